#include "device_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "packing.hpp"
#include "status.hpp"

namespace fllm::cuda {

namespace {

constexpr std::uint64_t kResidentBytes = std::uint64_t{1} << 30;  // of a resident piece at most
constexpr std::uint64_t kPlaceBytes = std::uint64_t{64} << 20;    // of a streamed piece: long enough for full speed
constexpr std::uint64_t kSpareBytes = std::uint64_t{256} << 20;   // for items and candidates

constexpr std::uint64_t kGaps = 4 * Packing::kBoundary;  // between a block's arrays, and after it

Codes kind_of(Codec codec) {
  switch (codec) {
    case Codec::int2: return Codes::int2;
    case Codec::int4row: return Codes::int4row;
    case Codec::fp8: return Codes::fp8;
    default: return Codes::int8;
  }
}

// Ids ascend within a tile, so that the first and the last tell whether they count up.
bool counts_up(const Tile& tile) {
  return static_cast<std::uint64_t>(tile.ids[tile.rows - 1]) - static_cast<std::uint64_t>(tile.ids[0]) == tile.rows - 1;
}

}  // namespace

// Tiles that follow each other in a shard's memory, all of them with ids that count up or all without.
struct DeviceTable::Run {
  const std::uint8_t* codes;
  const float* scales;
  const float* bias;        // null when the table has none
  const std::int64_t* ids;  // null when they count up
  std::int64_t first_id;
  std::uint64_t first_row, rows;

  // The tile's rows may begin a block, not lie in one.
  bool goes_on_with(const Tile& tile, bool counted, std::size_t code_bytes, std::size_t rows_together) const {
    if (rows % rows_together != 0 || codes + rows * code_bytes != tile.codes) return false;
    if (counted != (ids == nullptr)) return false;
    return !counted || first_id + static_cast<std::int64_t>(rows) == tile.ids[0];
  }
};

DeviceTable::DeviceTable(const Device& device, const Rows& table, TileRange tiles, std::uint64_t bytes)
    : device_(device),
      dim_(table.layout.dim),
      code_bytes_(fllm::code_bytes(table.layout.codec, table.layout.dim)),
      rows_together_(facts_of(table.layout.codec).planes == 0 ? 1 : kernels::kPlaneRows),
      kind_(kind_of(table.layout.codec)) {
  const std::uint64_t free = device.facts().free_bytes, limit = bytes == 0 ? free : std::min(bytes, free);
  const std::uint64_t spare = std::min(kSpareBytes + table.layout.rows / 8, limit / 4);
  place_runs(cut_runs(table, tiles), limit - spare);
}

std::vector<DeviceTable::Run> DeviceTable::cut_runs(const Rows& table, TileRange tiles) const {
  std::vector<Run> runs;
  for (std::size_t number = tiles.first; number < tiles.last; ++number) {
    const Tile& tile = table.tiles[number];
    const bool counted = counts_up(tile);
    if (!runs.empty() && runs.back().goes_on_with(tile, counted, code_bytes_, rows_together_)) {
      runs.back().rows += tile.rows;
    } else {
      runs.push_back(
          {tile.codes, tile.scales, tile.bias, counted ? nullptr : tile.ids, tile.ids[0], tile.first_row, tile.rows});
    }
  }
  return runs;
}

std::uint64_t DeviceTable::row_bytes(const Run& run) const {
  return code_bytes_ + sizeof(float) * (run.bias == nullptr ? 1 : 2) + (run.ids == nullptr ? 0 : sizeof(std::int64_t));
}

// The rows that fit so many bytes with all that belongs to them, in whole blocks.
std::uint64_t DeviceTable::fitting_rows(std::uint64_t bytes, std::uint64_t each) const {
  return bytes < kGaps ? 0 : (bytes - kGaps) / each / rows_together_ * rows_together_;
}

// So many rows and those that fill their last block up.
std::uint64_t DeviceTable::whole_blocks(std::uint64_t rows) const {
  return (rows + rows_together_ - 1) / rows_together_ * rows_together_;
}

void DeviceTable::place_runs(const std::vector<Run>& runs, std::uint64_t bytes) {
  std::uint64_t wanted = 0, most = 0;
  for (const Run& run : runs) {
    const std::uint64_t all = whole_blocks(run.rows) * row_bytes(run);
    wanted += all + (all / kResidentBytes + 1) * kGaps;
    most = std::max(most, row_bytes(run));
  }
  std::uint64_t free = bytes;
  if (wanted > bytes) {
    place_bytes_ = std::min(kPlaceBytes, bytes / 8) / Packing::kBoundary * Packing::kBoundary;
    if (fitting_rows(place_bytes_, most) == 0) {
      throw Error(Status::memory, sentence(device_.name() + " has too little free memory", "memory for some rows",
                                           "Free GPU memory, or raise gpu_bytes"));
    }
    places_ = Memory::of_gpu(device_, kPlaces * place_bytes_);
    free -= kPlaces * place_bytes_;
  }
  for (const Run& run : runs) {
    const std::uint64_t each = row_bytes(run);
    for (std::uint64_t first = 0, rows = 0; first < run.rows; first += rows) {
      const std::uint64_t left = run.rows - first, room = std::min(free, kResidentBytes);
      // Once rows are streamed, all that follow are: the resident ones come first, and copies begin while they are
      // read.
      const bool resident = resident_ == pieces_.size() && fitting_rows(room, each) > 0;
      rows = std::min(left, fitting_rows(resident ? room : place_bytes_, each));
      if (resident) {
        add_resident(run, first, rows);
        free -= pieces_.back().bytes;
      } else {
        add_pinned(run, first, rows);
      }
    }
  }
}

Piece DeviceTable::lay_out(const Run& run, std::uint64_t first, std::uint64_t rows) const {
  Piece piece;
  Packing packing;
  piece.first_row = run.first_row + first;
  piece.rows = rows;
  piece.first_id = run.first_id + static_cast<std::int64_t>(first);
  piece.has_bias = run.bias != nullptr;
  piece.has_ids = run.ids != nullptr;
  packing.add<std::int8_t>(whole_blocks(rows) * code_bytes_);
  piece.scales = packing.add<float>(rows);
  if (piece.has_bias) piece.bias = packing.add<float>(rows);
  if (piece.has_ids) piece.ids = packing.add<std::int64_t>(rows);
  piece.bytes = packing.bytes();
  for (std::uint64_t row = 0; piece.has_bias && row < rows; ++row) {
    piece.most_bias = std::max(piece.most_bias, std::abs(run.bias[first + row]));
  }
  return piece;
}

// Copies the arrays of rows from `first` on into a piece's block, each by copy(to, from, bytes).
template <typename Copy>
void DeviceTable::fill(const Piece& piece, const Run& run, std::uint64_t first, Copy&& copy) const {
  std::uint8_t* const block = piece.block.data();
  copy(block, run.codes + first * code_bytes_, whole_blocks(piece.rows) * code_bytes_);
  copy(block + piece.scales, run.scales + first, piece.rows * sizeof(float));
  if (piece.has_bias) copy(block + piece.bias, run.bias + first, piece.rows * sizeof(float));
  if (piece.has_ids) copy(block + piece.ids, run.ids + first, piece.rows * sizeof(std::int64_t));
}

void DeviceTable::add_resident(const Run& run, std::uint64_t first, std::uint64_t rows) {
  Piece piece = lay_out(run, first, rows);
  piece.resident = true;
  piece.block = Memory::of_gpu(device_, piece.bytes);
  const Stream stream(device_);
  fill(piece, run, first, [&](void* to, const void* from, std::size_t bytes) { stream.copy(to, from, bytes); });
  stream.finish();
  pieces_.push_back(std::move(piece));
  resident_ = pieces_.size();
}

void DeviceTable::add_pinned(const Run& run, std::uint64_t first, std::uint64_t rows) {
  Piece piece = lay_out(run, first, rows);
  piece.block = Memory::pinned(device_, piece.bytes);
  fill(piece, run, first, [](void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); });
  pieces_.push_back(std::move(piece));
}

Wave DeviceTable::wave(const Piece& piece, const std::uint8_t* block, std::uint64_t first, std::uint64_t rows) const {
  Wave wave;
  wave.codes = reinterpret_cast<const std::int8_t*>(block) + first * code_bytes_;
  wave.scales = reinterpret_cast<const float*>(block + piece.scales) + first;
  wave.bias = piece.has_bias ? reinterpret_cast<const float*>(block + piece.bias) + first : nullptr;
  wave.ids = piece.has_ids ? reinterpret_cast<const std::int64_t*>(block + piece.ids) + first : nullptr;
  wave.first_id = piece.first_id + static_cast<std::int64_t>(first);
  wave.first_row = piece.first_row + first;
  wave.rows = rows;
  wave.dim = static_cast<std::uint32_t>(dim_);
  wave.most_bias = piece.most_bias;
  wave.kind = kind_;
  return wave;
}

}  // namespace fllm::cuda

#include "search/panel.hpp"

#include <algorithm>
#include <cstring>

namespace fllm {

namespace {

using kernels::kBlockRows;
using kernels::kPlaneBytes;
using kernels::kPlaneRows;

// One row in so many is drawn, but not fewer or more than these.
constexpr std::uint64_t kRowsOfOne = 384, kFewest = 2048, kMost = 65536;
constexpr std::size_t kLaneBytes = kPlaneBytes / kPlaneRows;

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): 64 bits that look random.
std::uint64_t mixed(std::uint64_t number) {
  number += 0x9e3779b97f4a7c15;
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9;
  number = (number ^ (number >> 27)) * 0x94d049bb133111eb;
  return number ^ (number >> 31);
}

std::uint64_t rows_of_a_part(std::uint64_t rows) {
  const std::uint64_t drawn = std::clamp(rows / kRowsOfOne, kFewest, kMost);
  return (rows + drawn - 1) / drawn;
}

std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

template <typename T>
Aligned<T> zeros(std::size_t n) {
  Aligned<T> made(n);
  std::fill_n(made.data(), n, T{0});
  return made;
}

}  // namespace

Panel::Panel(const Table& table) : part_rows_(rows_of_a_part(table.layout().stored_rows)) {
  const Layout& layout = table.layout();
  const auto parts = static_cast<std::size_t>((layout.stored_rows + part_rows_ - 1) / part_rows_);
  rows_.assign(parts, kEmpty);
  const std::size_t room = round_up(parts, kBlockRows);
  codes_ = zeros<std::uint8_t>(room * code_bytes(layout.codec, layout.dim));
  groups_ = zeros<std::uint8_t>(room * group_bytes(layout.codec, layout.dim));
  scales_ = zeros<float>(room);
  bias_ = zeros<float>(layout.bias ? room : 0);
  tile_.rows = room;
  tile_.codes = codes_.data();
  tile_.groups = groups_.size() > 0 ? groups_.data() : nullptr;
  tile_.scales = scales_.data();
  tile_.bias = layout.bias ? bias_.data() : nullptr;
  draw(table);
}

void Panel::draw(const Table& table) {
  const std::vector<Tile>& tiles = table.tiles();
  std::size_t number = 0;
  for (std::size_t slot = 0; slot < rows_.size(); ++slot) {
    const std::uint64_t row = slot * part_rows_ + mixed(slot) % part_rows_;
    if (row >= table.layout().stored_rows || table.tombstones().holds(row)) {
      empty_.push_back(static_cast<std::uint32_t>(slot));
      continue;
    }
    while (row >= tiles[number].first_row + tiles[number].rows) ++number;
    rows_[slot] = row;
    copy(table.layout(), tiles[number], static_cast<std::size_t>(row - tiles[number].first_row), slot);
  }
}

void Panel::copy(const Layout& layout, const Tile& from, std::size_t row, std::size_t slot) {
  scales_[slot] = from.scales[row];
  if (layout.bias) bias_[slot] = from.bias[row];
  if (facts_of(layout.codec).planes > 0) return copy_planes(layout, from, row, slot);
  const std::size_t bytes = code_bytes(layout.codec, layout.dim), groups = group_bytes(layout.codec, layout.dim);
  std::memcpy(codes_.data() + slot * bytes, from.codes + row * bytes, bytes);
  if (groups > 0) std::memcpy(groups_.data() + slot * groups, from.groups + row * groups, groups);
}

// A row has four bytes of each 64 of its block.
void Panel::copy_planes(const Layout& layout, const Tile& from, std::size_t row, std::size_t slot) {
  const std::size_t block_bytes = kPlaneRows * code_bytes(layout.codec, layout.dim);
  const std::uint8_t* source = from.codes + row / kPlaneRows * block_bytes + row % kPlaneRows * kLaneBytes;
  std::uint8_t* target = codes_.data() + slot / kPlaneRows * block_bytes + slot % kPlaneRows * kLaneBytes;
  for (std::size_t at = 0; at < block_bytes; at += kPlaneBytes) std::memcpy(target + at, source + at, kLaneBytes);
}

}  // namespace fllm

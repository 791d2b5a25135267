#include "plan_table.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cuda/host/packing.hpp"
#include "machine/aligned.hpp"
#include "status.hpp"

namespace fllm::tensorrt {

namespace {

constexpr double kLargestInt8 = 128.0;

std::uint64_t round_up(std::uint64_t n, std::uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// What is no number has no bound.
void raise(double& most, double value) {
  if (!(value <= most)) most = std::isnan(value) ? std::numeric_limits<double>::infinity() : value;
}

}  // namespace

PlanTable::PlanTable(const cuda::Device& device, const cuda::Rows& table, const kernels::Kernels& kernels,
                     const TableCut& cut)
    : device_(device), table_(table), kernels_(kernels), rows_(table.layout.rows), step_(cut.step) {
  bounds_.resize(round_up(rows_, step_) / step_);
  place(cut);
}

PlanTable::Arrays PlanTable::arrays_of(std::uint64_t rows) const {
  cuda::Packing packing;
  packing.add<std::uint8_t>(rows * table_.layout.dim);
  Arrays arrays;
  arrays.scales = packing.add<float>(rows);
  if (table_.layout.bias) arrays.bias = packing.add<float>(rows);
  arrays.bytes = packing.bytes();
  return arrays;
}

void PlanTable::place(const TableCut& cut) {
  const std::uint64_t all = round_up(rows_, step_);
  resident_rows_ = all;
  if (arrays_of(all).bytes > cut.bytes) {
    const std::size_t place_bytes = arrays_of(cut.most_rows).bytes;
    if (kPlaces * place_bytes > cut.bytes) {
      throw Error(Status::memory, sentence(device_.name() + " has too little free memory",
                                           "memory for two blocks of " + std::to_string(cut.most_rows) + " rows",
                                           "Free GPU memory, or raise gpu_bytes"));
    }
    streamed_rows_ = cut.most_rows;
    places_ = cuda::Memory::of_gpu(device_, kPlaces * place_bytes);
    const std::uint64_t left = cut.bytes - kPlaces * place_bytes, each = arrays_of(step_).bytes;
    resident_rows_ = left / each * step_;  // a step's own gaps make up for those of the whole
  }
  if (resident_rows_ > 0) {
    const Arrays arrays = arrays_of(resident_rows_);
    resident_ = cuda::Memory::of_gpu(device_, arrays.bytes);
    const cuda::Stream stream(device_);
    fill(resident_.data(), arrays, {0, resident_rows_, std::min(rows_, resident_rows_)},
         [&](void* to, const void* from, std::size_t bytes) {
           stream.copy(to, from, bytes);
           stream.finish();  // `from` may be gone after this
         });
  }
  for (std::uint64_t first = resident_rows_; first < rows_; first += streamed_rows_) {
    const Arrays arrays = arrays_of(streamed_rows_);
    pinned_.push_back(cuda::Memory::pinned(device_, arrays.bytes));
    fill(pinned_.back().data(), arrays, {first, streamed_rows_, std::min(streamed_rows_, rows_ - first)},
         [](void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); });
  }
}

// Copies the rows of a block by copy(to, from, bytes), tile by tile, and zeros behind them.
template <typename Copy>
void PlanTable::fill(std::uint8_t* to, const Arrays& arrays, const Block& block, Copy&& copy) {
  const std::size_t dim = table_.layout.dim;
  for (const Tile& tile : table_.tiles) {
    const std::uint64_t first = std::max(block.first, tile.first_row);
    const std::uint64_t end = std::min(block.first + block.valid, tile.first_row + tile.rows);
    if (first >= end) continue;
    const std::uint64_t in_tile = first - tile.first_row, at = first - block.first, rows = end - first;
    copy(to + at * dim, tile.codes + in_tile * dim, rows * dim);
    copy(to + arrays.scales + at * sizeof(float), tile.scales + in_tile, rows * sizeof(float));
    if (tile.bias != nullptr) copy(to + arrays.bias + at * sizeof(float), tile.bias + in_tile, rows * sizeof(float));
    measure(tile, in_tile, rows, first);
  }
  const std::uint64_t padding = block.rows - block.valid;
  if (padding == 0) return;
  const std::vector<std::uint8_t> zeros(step_ * std::max(dim, sizeof(float)));
  for (std::uint64_t done = 0; done < padding; done += step_) {
    const std::uint64_t at = block.valid + done, rows = std::min(step_, padding - done);
    copy(to + at * dim, zeros.data(), rows * dim);
    copy(to + arrays.scales + at * sizeof(float), zeros.data(), rows * sizeof(float));
    if (table_.layout.bias) copy(to + arrays.bias + at * sizeof(float), zeros.data(), rows * sizeof(float));
  }
}

// Raises the bounds of the steps that rows [first, first + rows) of a tile lie in; `at` is the first one's number.
void PlanTable::measure(const Tile& tile, std::uint64_t first, std::uint64_t rows, std::uint64_t at) {
  const std::size_t dim = table_.layout.dim;
  const std::size_t padded = (dim + kernels::kItemLanes - 1) / kernels::kItemLanes * kernels::kItemLanes;
  const bool fp8 = table_.layout.codec == Codec::fp8;
  Aligned<float> values(fp8 ? kernels::kBlockRows * padded : 0), norms(kernels::kBlockRows);
  std::fill_n(norms.data(), norms.size(),
              static_cast<float>(kLargestInt8 * std::sqrt(static_cast<double>(dim)) * 1.0001));
  for (std::uint64_t done = 0; done < rows; done += kernels::kBlockRows) {
    const std::uint64_t count = std::min<std::uint64_t>(kernels::kBlockRows, rows - done);
    if (fp8) kernels_.decode_fp8(tile.codes + (first + done) * dim, nullptr, count, dim, values.data(), norms.data());
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t row = first + done + i;
      RowBounds& bounds = bounds_[(at + done + i) / step_];
      const double reach = std::abs(static_cast<double>(tile.scales[row])) * norms[i];
      const double bias = tile.bias == nullptr ? 0.0 : std::abs(static_cast<double>(tile.bias[row]));
      raise(bounds.reach, reach);
      raise(bounds.bias, bias);
    }
  }
}

std::vector<Block> PlanTable::blocks(std::uint64_t most_rows) const {
  std::vector<Block> all;
  const std::uint64_t resident = std::min(rows_, resident_rows_);
  for (std::uint64_t first = 0; first < resident; first += most_rows) {
    const std::uint64_t rows = std::min(most_rows, resident_rows_ - first);
    all.push_back({first, rows, std::min(rows, resident - first)});
  }
  for (std::uint64_t first = resident_rows_; first < rows_; first += streamed_rows_) {
    all.push_back({first, streamed_rows_, std::min(streamed_rows_, rows_ - first)});
  }
  return all;
}

RowBounds PlanTable::bounds(const Block& block) const {
  RowBounds most;
  for (std::uint64_t step = block.first / step_; step * step_ < block.first + block.valid; ++step) {
    raise(most.reach, bounds_[step].reach);
    raise(most.bias, bounds_[step].bias);
  }
  return most;
}

BlockAddresses PlanTable::addresses(std::uint8_t* memory, const Arrays& arrays, std::uint64_t first) const {
  return {memory + first * table_.layout.dim, memory + arrays.scales + first * sizeof(float),
          table_.layout.bias ? memory + arrays.bias + first * sizeof(float) : nullptr};
}

BlockAddresses PlanTable::bring(const Block& block, std::size_t place, const cuda::Stream& stream) const {
  if (block.first < resident_rows_) return addresses(resident_.data(), arrays_of(resident_rows_), block.first);
  const Arrays arrays = arrays_of(streamed_rows_);
  const std::uint64_t number = (block.first - resident_rows_) / streamed_rows_;
  const std::uint64_t first = (block.first - resident_rows_) % streamed_rows_;
  std::uint8_t* const to = places_.data() + place * arrays.bytes;
  const std::uint8_t* const from = pinned_[number].data();
  if (block.rows == streamed_rows_) {
    stream.copy(to, from, arrays.bytes);
    return addresses(to, arrays, 0);
  }
  const BlockAddresses there = addresses(to, arrays, 0);
  stream.copy(there.codes, from + first * table_.layout.dim, block.rows * table_.layout.dim);
  stream.copy(there.scales, from + arrays.scales + first * sizeof(float), block.rows * sizeof(float));
  if (there.bias != nullptr) {
    stream.copy(there.bias, from + arrays.bias + first * sizeof(float), block.rows * sizeof(float));
  }
  return there;
}

}  // namespace fllm::tensorrt

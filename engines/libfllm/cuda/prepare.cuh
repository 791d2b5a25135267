// From item vectors in device memory to what scans read of them: the numbers of src/search/query.cpp, with the same
// bits.
#pragma once

#include "cuda/device.hpp"
#include "cuda/preparation.hpp"

namespace fllm::cuda {

constexpr unsigned kPrepareThreads = 256;

__device__ inline double item_scale(const float* vector, unsigned dim) {
  constexpr double kLargest = 8127;
  __shared__ std::uint32_t peak;  // the bits of floats that are not negative are in their order
  if (threadIdx.x == 0) peak = 0;
  __syncthreads();
  float own = 0.0f;
  for (unsigned j = threadIdx.x; j < dim; j += kPrepareThreads) {
    const float magnitude = fabsf(vector[j]);
    if (magnitude > own) own = magnitude;
  }
  atomicMax(&peak, __float_as_uint(own));
  __syncthreads();
  return peak == 0 ? 1.0 : __ddiv_rn(static_cast<double>(__uint_as_float(peak)), kLargest);
}

// Sums over an item's numbers: of their magnitudes, and of their limbs', 128 high and low.
struct Magnitudes {
  std::uint32_t wholes, limbs;
};

// Writes the numbers in all forms, zeros behind them.
__device__ inline Magnitudes write_numbers(const Preparation& to, unsigned item, double scale) {
  __shared__ std::uint32_t wholes, limbs;
  if (threadIdx.x == 0) wholes = limbs = 0;
  __syncthreads();
  const float* const vector = to.vectors + std::uint64_t{item} * to.dim;
  std::int8_t* const high = to.limbs + std::uint64_t{2} * item * to.padded_dim;
  Magnitudes own{0, 0};
  for (unsigned j = threadIdx.x; j < to.padded_dim; j += kPrepareThreads) {
    const int value = j < to.dim ? __double2int_rn(__ddiv_rn(static_cast<double>(vector[j]), scale)) : 0;
    const int upper = (value + 64) >> 7;  // floor((value + 64) / 128)
    high[j] = static_cast<std::int8_t>(upper);
    high[to.padded_dim + j] = static_cast<std::int8_t>(value - 128 * upper);
    to.wholes[std::uint64_t{item} * to.padded_dim + j] = static_cast<float>(value);
    const int lower = value - 128 * upper;
    own.wholes += static_cast<std::uint32_t>(value < 0 ? -value : value);
    own.limbs += static_cast<std::uint32_t>(128 * (upper < 0 ? -upper : upper) + (lower < 0 ? -lower : lower));
  }
  atomicAdd(&wholes, own.wholes);
  atomicAdd(&limbs, own.limbs);
  __syncthreads();
  return {wholes, limbs};
}

__device__ inline void write_structs(const Preparation& to, unsigned item, double scale, Magnitudes sums) {
  constexpr std::uint32_t kNoPeak = 0xFF800000u;  // -infinity, as order.cuh writes it
  const std::int8_t* const high = to.limbs + std::uint64_t{2} * item * to.padded_dim;
  Item& made = to.items[item];
  made.high = high;
  made.low = high + to.padded_dim;
  made.whole = to.wholes + std::uint64_t{item} * to.padded_dim;
  made.allowed = nullptr;
  made.scale = scale;
  made.error = __double2float_rn(__dmul_rn(to.error_share_alone, static_cast<double>(sums.wholes)));
  made.error_together = __double2float_rn(__dmul_rn(to.error_share_together, static_cast<double>(sums.limbs)));
  made.seed = 0;
  made.peak = to.peaks + item;
  float* const scores = to.scores + std::uint64_t{item} * to.capacity;
  to.candidates[item] = {scores,
                         scores,
                         to.rows + std::uint64_t{item} * to.capacity,
                         to.counts + item,
                         to.kept + item,
                         to.thresholds + item,
                         to.capacity,
                         to.k};
  to.counts[item] = to.kept[item] = 0;
  to.peaks[item] = kNoPeak;
  to.thresholds[item] = -INFINITY;
}

// A block an item; the first also asks how many rows the tile has.
__global__ void __launch_bounds__(kPrepareThreads) prepare(Preparation to) {
  const unsigned item = blockIdx.x;
  const double scale = item_scale(to.vectors + std::uint64_t{item} * to.dim, to.dim);
  const Magnitudes sums = write_numbers(to, item, scale);
  for (unsigned part = threadIdx.x; part < to.stride; part += kPrepareThreads) {
    to.shares[std::uint64_t{item} * to.stride + part] = {-INFINITY, 0.0};
  }
  if (threadIdx.x != 0) return;
  write_structs(to, item, scale, sums);
  if (item != 0) return;
  const std::int64_t valid = *to.valid_rows;
  const std::uint64_t rows = valid < 0 ? 0 : static_cast<std::uint64_t>(valid);
  *to.tile = {rows < to.tile_rows ? rows : to.tile_rows, 0.0f};
}

// The largest magnitude of a bias, which scan_many's thresholds are lowered by: infinity, so that it settles every row
// exactly, where float32 does not hold an item's scale with room to spare. After `prepare`; any number of blocks.
__global__ void __launch_bounds__(kPrepareThreads)
    find_most_bias(const float* bias, const Item* items, unsigned count, TileFacts* tile) {
  __shared__ std::uint32_t most;
  if (threadIdx.x == 0) most = 0;
  __syncthreads();
  float own = 0.0f;
  const std::uint64_t first = std::uint64_t{blockIdx.x} * kPrepareThreads + threadIdx.x;
  const std::uint64_t step = std::uint64_t{gridDim.x} * kPrepareThreads;
  for (std::uint64_t row = first; bias != nullptr && row < tile->rows; row += step) {
    const float magnitude = fabsf(bias[row]);
    if (magnitude > own) own = magnitude;
  }
  for (std::uint64_t item = first; item < count; item += step) {
    if (!(items[item].scale > 0x1p-60 && items[item].scale < 0x1p60)) own = INFINITY;
  }
  atomicMax(&most, __float_as_uint(own));
  __syncthreads();
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<std::uint32_t*>(&tile->most_bias), most);
}

}  // namespace fllm::cuda

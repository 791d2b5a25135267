// One item against the rows of a wave: bound by memory. Every row is read once, sixteen bytes a lane.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/rows.cuh"
#include "cuda/score.cuh"

namespace fllm::cuda {

constexpr unsigned kScanThreads = 256;
constexpr unsigned kScanWarps = kScanThreads / kWarpLanes;

// Lanes that share a row: a piece of sixteen bytes each, as far as there are pieces.
inline unsigned lanes_of_row(std::uint32_t dim) {
  unsigned lanes = 1;
  while (lanes < kWarpLanes && lanes * kPieceBytes < dim) lanes *= 2;
  return lanes;
}

// The shares of a block's threads become one, by a tree of fixed shape: the sum does not depend on who comes first.
__device__ inline void write_share(Share share, Share& sum, std::uint32_t* peak) {
  __shared__ Share parts[kScanThreads];
  parts[threadIdx.x] = share;
  __syncthreads();
  for (unsigned half = kScanThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] = joined(parts[threadIdx.x], parts[threadIdx.x + half]);
    __syncthreads();
  }
  if (threadIdx.x != 0) return;
  sum = joined(sum, parts[0]);
  atomicMin(peak, descending(parts[0].m));
}

// Scores the rows that fall to this block; returns the thread's share of the denominator.
template <class Rows, bool kDenominator, bool kSample>
__device__ __forceinline__ Share scan_rows(const Wave& wave, const Item& item, const Candidates& out) {
  constexpr unsigned kTogether = Rows::kRows * Rows::kAhead;  // rows of a warp
  const unsigned lane = threadIdx.x % kWarpLanes, steps = Rows::steps(wave.dim);
  const float threshold = *out.threshold;
  Share share{-INFINITY, 0.0};
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kScanWarps * kTogether;
  std::uint64_t first = (std::uint64_t{blockIdx.x} * kScanWarps + threadIdx.x / kWarpLanes) * kTogether;
  for (; first < wave.rows; first += stride) {
    typename Rows::Sum sums[Rows::kAhead];
    FLLM_UNROLL
    for (unsigned ahead = 0; ahead < Rows::kAhead; ++ahead) sums[ahead] = Rows::start(item);
    for (unsigned step = 0; step < steps; ++step) {
      typename Rows::Codes codes[Rows::kAhead];
      FLLM_UNROLL
      for (unsigned ahead = 0; ahead < Rows::kAhead; ++ahead) {
        codes[ahead] = Rows::load(wave, first + ahead * Rows::kRows, step, lane);
      }
      const typename Rows::Part with = Rows::part(item, wave.dim, step, lane);
      FLLM_UNROLL
      for (unsigned ahead = 0; ahead < Rows::kAhead; ++ahead) Rows::multiply(sums[ahead], codes[ahead], with);
    }
    FLLM_UNROLL
    for (unsigned ahead = 0; ahead < Rows::kAhead; ++ahead) {
      const auto sum = Rows::total(sums[ahead], lane);
      const std::uint64_t row = first + ahead * Rows::kRows + Rows::row_of(lane);
      if (!Rows::takes(lane, ahead) || row >= wave.rows) continue;
      const double bias = wave.bias == nullptr ? 0.0 : wave.bias[row];
      const float score = Rows::score(sum, wave.scales[row], item, bias);
      if (kDenominator) add_score(share, score);
      Rows::template consider_row<kSample>(wave, item, out, threshold, row, score);
    }
    __syncwarp();  // lanes that multiply together go on together
  }
  return share;
}

// kDenominator: to `shares` [blocks] each block adds its own, null otherwise.
template <class Rows, bool kDenominator, bool kSample>
__global__ void __launch_bounds__(kScanThreads, 2) scan_one(Wave wave, Item item, Candidates out, Share* shares) {
  const Share share = scan_rows<Rows, kDenominator, kSample>(wave, item, out);
  if (kDenominator) write_share(share, shares[blockIdx.x], item.peak);
}

}  // namespace fllm::cuda

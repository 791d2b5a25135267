// One item against the rows of a wave: bound by memory. Every row is read once, sixteen bytes a lane.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/rows.cuh"
#include "cuda/score.cuh"

namespace fllm::cuda {

constexpr unsigned kScanThreads = 256;
constexpr unsigned kScanWarps = kScanThreads / kWarpLanes;
constexpr unsigned kRowsAhead = 4;  // rows of a group of lanes whose loads are on their way together

// Lanes that share a row: a piece of sixteen bytes each, as far as there are pieces.
inline unsigned lanes_of_row(std::uint32_t dim) {
  unsigned lanes = 1;
  while (lanes < kWarpLanes && lanes * kPieceBytes < dim) lanes *= 2;
  return lanes;
}

__device__ __forceinline__ int four_codes(const std::int8_t* row, unsigned first, unsigned dim) {
  unsigned word = 0;
  for (unsigned byte = 0; byte < 4 && first + byte < dim; ++byte) {
    word |= static_cast<unsigned>(static_cast<std::uint8_t>(row[first + byte])) << (8 * byte);
  }
  return static_cast<int>(word);
}

// Rows whose length is a multiple of sixteen lie on boundaries of sixteen; others are read byte by byte.
template <bool kAligned>
__device__ __forceinline__ int4 load_piece(const std::int8_t* row, unsigned piece, unsigned dim) {
  const unsigned first = piece * kPieceBytes;
  if (first >= dim) return int4{0, 0, 0, 0};
  if (kAligned) return __ldcs(reinterpret_cast<const int4*>(row + first));
  return int4{four_codes(row, first, dim), four_codes(row, first + 4, dim), four_codes(row, first + 8, dim),
              four_codes(row, first + 12, dim)};
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

// Scores the rows that fall to this block, kLanes lanes per row; returns the thread's share of the denominator.
template <class Rows, unsigned kLanes, bool kAligned, bool kDenominator, bool kSample>
__device__ __forceinline__ Share scan_rows(const Wave& wave, const Item& item, const Candidates& out) {
  constexpr unsigned kRows = kWarpLanes / kLanes;  // of a warp at once
  const unsigned lane = threadIdx.x % kWarpLanes, part = lane % kLanes;
  const unsigned pieces = (wave.dim + kPieceBytes - 1) / kPieceBytes;
  const float threshold = *out.threshold;
  Share share{-INFINITY, 0.0};
  const std::uint64_t step = std::uint64_t{gridDim.x} * kScanWarps * kRows * kRowsAhead;
  std::uint64_t first = (std::uint64_t{blockIdx.x} * kScanWarps + threadIdx.x / kWarpLanes) * kRows * kRowsAhead;
  for (; first < wave.rows; first += step) {
    typename Rows::Sum sums[kRowsAhead] = {};
    for (unsigned piece = part; piece - part < pieces; piece += kLanes) {
      int4 codes[kRowsAhead];
      FLLM_UNROLL
      for (unsigned ahead = 0; ahead < kRowsAhead; ++ahead) {
        const std::uint64_t row = first + ahead * kRows + lane / kLanes;
        codes[ahead] =
            row < wave.rows ? load_piece<kAligned>(wave.codes + row * wave.dim, piece, wave.dim) : int4{0, 0, 0, 0};
      }
      const typename Rows::Part with = Rows::part(item, piece, piece < pieces);
      FLLM_UNROLL
      for (unsigned ahead = 0; ahead < kRowsAhead; ++ahead) Rows::multiply(sums[ahead], codes[ahead], with);
    }
    FLLM_UNROLL
    for (unsigned ahead = 0; ahead < kRowsAhead; ++ahead) {
      FLLM_UNROLL
      for (unsigned mask = kLanes / 2; mask > 0; mask /= 2) Rows::join(sums[ahead], static_cast<int>(mask));
      // All lanes of a group hold its sums; they take turns at the rows, so that the tail is shared as well.
      const std::uint64_t row = first + ahead * kRows + lane / kLanes;
      if (part != ahead % kLanes || row >= wave.rows) continue;
      const double bias = wave.bias == nullptr ? 0.0 : wave.bias[row];
      const float score = Rows::score(sums[ahead], wave.scales[row], item, bias);
      if (kDenominator) add_score(share, score);
      Rows::template consider_row<kSample>(wave, item, out, threshold, row, score);
    }
  }
  return share;
}

// kDenominator: to `shares` [blocks] each block adds its own, null otherwise.
template <class Rows, unsigned kLanes, bool kAligned, bool kDenominator, bool kSample>
__global__ void __launch_bounds__(kScanThreads, 2) scan_one(Wave wave, Item item, Candidates out, Share* shares) {
  const Share share = scan_rows<Rows, kLanes, kAligned, kDenominator, kSample>(wave, item, out);
  if (kDenominator) write_share(share, shares[blockIdx.x], item.peak);
}

}  // namespace fllm::cuda

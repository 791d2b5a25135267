// From candidates and shares to answers: the K best in their order, the highest score, and the sum of exponentials.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/score.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kFinishThreads = 256;

// A batch's answers, best first; a place that no row can fill has the score -infinity and the row 0.
struct Answers {
  float* scores;       // [count, k]
  std::int64_t* rows;  // [count, k]
  float* m;            // [count], the highest score
  float* l;            // [count], the sum of exp(score - m)
};

// The shares of an item's blocks become one, by a tree of fixed shape.
__device__ inline Share sum_shares(const Share* shares, unsigned stride) {
  __shared__ Share parts[kFinishThreads];
  Share own{-INFINITY, 0.0};
  for (unsigned part = threadIdx.x; part < stride; part += kFinishThreads) own = joined(own, shares[part]);
  parts[threadIdx.x] = own;
  __syncthreads();
  for (unsigned half = kFinishThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] = joined(parts[threadIdx.x], parts[threadIdx.x + half]);
    __syncthreads();
  }
  return parts[0];
}

// The sum of exp(score - m) over so many rows, of which m is the best. Its own term is 1, and none is greater: that
// holds even where scores are so large that the rounding of fp8 rows' float32 sums is many times e.
__device__ inline float rebased(Share sum, float m, double rows) {
  const double l = sum.l * exp(static_cast<double>(sum.m) - m);
  return static_cast<float>(l < 1.0 ? 1.0 : l > rows ? rows : l);
}

// A scan of many takes exponentials relative to the best score of the first wave. Where a later one is so far above it
// that their sum is infinite, the item is marked `again` [count], forgets its shares, and takes no more candidates.
__global__ void __launch_bounds__(kFinishThreads) mark_infinite(ItemBatch batch, std::uint8_t* again) {
  Share* const shares = batch.shares + std::uint64_t{blockIdx.x} * batch.stride;
  const bool finite = sum_shares(shares, batch.stride).l < INFINITY;
  if (threadIdx.x == 0) again[blockIdx.x] = finite ? 0 : 1;
  if (finite) return;
  for (unsigned part = threadIdx.x; part < batch.stride; part += kFinishThreads) shares[part] = {-INFINITY, 0.0};
  if (threadIdx.x == 0) *batch.candidates[blockIdx.x].threshold = INFINITY;
}

// `segments` blocks an item. A thread's candidate goes to the place that as many come before, by score descending and
// row ascending.
__global__ void __launch_bounds__(kFinishThreads)
    finish(ItemBatch batch, const TileFacts* tile, unsigned segments, Answers to) {
  __shared__ std::uint32_t keys[kFinishThreads];
  __shared__ std::int64_t rows[kFinishThreads];
  const unsigned item = blockIdx.x / segments, own = blockIdx.x % segments * kFinishThreads + threadIdx.x;
  const Candidates found = batch.candidates[item];
  const unsigned n = *found.kept;
  const float score = own < n ? found.scores[own] : -INFINITY;
  const std::uint32_t key = descending(score);
  const std::int64_t row = own < n ? found.ids[own] : 0;
  std::uint32_t best = descending(-INFINITY);
  unsigned place = own < n ? 0 : own;
  for (unsigned first = 0; first < n; first += kFinishThreads) {
    const unsigned left = n - first < kFinishThreads ? n - first : kFinishThreads;
    if (threadIdx.x < left) keys[threadIdx.x] = descending(found.scores[first + threadIdx.x]);
    if (threadIdx.x < left) rows[threadIdx.x] = found.ids[first + threadIdx.x];
    __syncthreads();
    for (unsigned i = 0; i < left; ++i) {
      best = keys[i] < best ? keys[i] : best;
      if (own < n && (keys[i] < key || (keys[i] == key && rows[i] < row))) ++place;
    }
    __syncthreads();
  }
  if (own < found.k) {
    to.scores[std::uint64_t{item} * found.k + place] = score;
    to.rows[std::uint64_t{item} * found.k + place] = row;
  }
  if (blockIdx.x % segments != 0) return;
  const Share sum = sum_shares(batch.shares + std::uint64_t{item} * batch.stride, batch.stride);
  if (threadIdx.x != 0) return;
  const float m = from_descending(best);
  to.m[item] = m;
  to.l[item] = n == 0 ? 0.0f : rebased(sum, m, static_cast<double>(tile->rows));
}

}  // namespace fllm::cuda

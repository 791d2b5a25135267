// A row's score for an item, its share of the denominator, and its way among the candidates.
#pragma once

#include "cuda/device.hpp"
#include "cuda/noise.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

// Products of a row's codes with an item's limbs.
struct Sums {
  int high = 0, low = 0;
};

// The score by the definition of the reference engine: float32(sum * (row scale * item scale) + bias), product and sum
// rounded in double each, so that it has the same bits as the CPU's.
__device__ __forceinline__ float exact_score(double sum, double row_scale, double item_scale, double bias) {
  return __double2float_rn(__dadd_rn(__dmul_rn(sum, __dmul_rn(row_scale, item_scale)), bias));
}

__device__ __forceinline__ void add_score(Share& share, float score) {
  if (score > share.m) {
    share.l = share.l * static_cast<double>(expf(share.m - score)) + 1.0;
    share.m = score;
  } else {
    share.l += static_cast<double>(expf(score - share.m));
  }
}

__device__ __forceinline__ Share joined(Share a, Share b) {
  if (b.l == 0.0) return a;
  if (a.l == 0.0) return b;
  const float m = a.m > b.m ? a.m : b.m;
  return {m, a.l * static_cast<double>(expf(a.m - m)) + b.l * static_cast<double>(expf(b.m - m))};
}

__device__ __forceinline__ void offer(const Candidates& out, float key, float score, std::int64_t id) {
  const std::uint32_t place = atomicAdd(out.count, 1u);
  if (place >= out.capacity) return;
  out.keys[place] = key;
  out.scores[place] = score;
  out.ids[place] = id;
}

__device__ __forceinline__ bool is_allowed(const Wave& wave, const Item& item, std::uint64_t row) {
  const std::uint64_t bit = wave.first_row + row;
  return item.allowed == nullptr || (item.allowed[bit / 32] >> (bit % 32) & 1u) != 0;
}

template <bool kSample>
__device__ __forceinline__ void consider(const Wave& wave, const Item& item, const Candidates& out, float threshold,
                                         std::uint64_t row, float score) {
  if (!kSample && !(score >= threshold)) return;
  if (!is_allowed(wave, item, row)) return;
  const std::int64_t id = wave.ids == nullptr ? wave.first_id + static_cast<std::int64_t>(row) : wave.ids[row];
  float key = score;
  if (kSample) key = __double2float_rn(__dadd_rn(static_cast<double>(score), gumbel_noise(item.seed, id)));
  if (key >= threshold) offer(out, key, score, id);
}

}  // namespace fllm::cuda

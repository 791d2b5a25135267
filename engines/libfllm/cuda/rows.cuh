// How the rows of each codec meet an item in a scan for one: what a lane keeps of the item, the sum, and the score.
#pragma once

#include "cuda/device.hpp"
#include "cuda/e4m3.cuh"
#include "cuda/score.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

// int8 codes and both limbs: whole numbers throughout, so that every score is exact.
struct Int8Rows {
  using Sum = Sums;
  struct Part {
    int4 high, low;
  };

  __device__ static Part part(const Item& item, unsigned piece, bool inside) {
    if (!inside) return {int4{0, 0, 0, 0}, int4{0, 0, 0, 0}};
    return {reinterpret_cast<const int4*>(item.high)[piece], reinterpret_cast<const int4*>(item.low)[piece]};
  }
  __device__ __forceinline__ static void multiply(Sum& sum, int4 codes, const Part& with) {
    sum.high = __dp4a(codes.x, with.high.x, __dp4a(codes.y, with.high.y, sum.high));
    sum.low = __dp4a(codes.x, with.low.x, __dp4a(codes.y, with.low.y, sum.low));
    sum.high = __dp4a(codes.z, with.high.z, __dp4a(codes.w, with.high.w, sum.high));
    sum.low = __dp4a(codes.z, with.low.z, __dp4a(codes.w, with.low.w, sum.low));
  }
  __device__ __forceinline__ static void join(Sum& sum, int mask) {
    sum.high += __shfl_xor_sync(kAllLanes, sum.high, mask);
    sum.low += __shfl_xor_sync(kAllLanes, sum.low, mask);
  }
  __device__ static float score(Sum sum, double row_scale, const Item& item, double bias) {
    return exact_score(128.0 * sum.high + sum.low, row_scale, item.scale, bias);
  }
  template <bool kSample>
  __device__ static void consider_row(const Wave& wave, const Item& item, const Candidates& out, float threshold,
                                      std::uint64_t row, float score) {
    consider<kSample>(wave, item, out, threshold, row, score);
  }
};

// e4m3 codes and the item's whole numbers in float32. The sum is rounded; what may reach the threshold is scored
// exactly.
struct Fp8Rows {
  using Sum = float;
  struct Part {
    float4 values[4];
  };

  __device__ static Part part(const Item& item, unsigned piece, bool inside) {
    const float4* const from = reinterpret_cast<const float4*>(item.whole) + 4 * piece;
    const float4 none{0.0f, 0.0f, 0.0f, 0.0f};
    if (!inside) return {{none, none, none, none}};
    return {{from[0], from[1], from[2], from[3]}};
  }
  __device__ __forceinline__ static void multiply(Sum& sum, int4 codes, const Part& with) {
    multiply_word(sum, codes.x, with.values[0]);
    multiply_word(sum, codes.y, with.values[1]);
    multiply_word(sum, codes.z, with.values[2]);
    multiply_word(sum, codes.w, with.values[3]);
  }
  __device__ __forceinline__ static void join(Sum& sum, int mask) { sum += __shfl_xor_sync(kAllLanes, sum, mask); }

  // float32's halves of e4m3 numbers are 2^-8 of them: both formats' exponents begin after the sign.
  __device__ static float score(Sum sum, double row_scale, const Item& item, double bias) {
    return exact_score(256.0 * sum, row_scale, item.scale, bias);
  }
  template <bool kSample>
  __device__ static void consider_row(const Wave& wave, const Item& item, const Candidates& out, float threshold,
                                      std::uint64_t row, float score) {
    constexpr double kMostNoise = 37.0;  // no noise of 52 random bits exceeds it
    const double bias = wave.bias == nullptr ? 0.0 : wave.bias[row], scale = wave.scales[row] * item.scale;
    const double rounding = 0x1p-22 * (fabs(static_cast<double>(score)) + fabs(bias));
    const double upper = score + scale * item.error + rounding + (kSample ? kMostNoise : 0.0);
    if (!(upper >= threshold) || !is_allowed(wave, item, row)) return;
    const double sum = exact_sum(wave.codes + row * wave.dim, item, wave.dim);
    consider<kSample>(wave, item, out, threshold, row, exact_score(sum, wave.scales[row], item.scale, bias));
  }

 private:
  // A byte of e4m3 in the upper half of a 16-bit float, its exponent's and mantissa's bits one place to the right.
  __device__ __forceinline__ static float half_of(unsigned bits) {
    return half_bits_to_float((bits & 0x8000u) | (bits & 0x7F00u) >> 1);
  }
  __device__ __forceinline__ static void multiply_word(Sum& sum, int codes, const float4& with) {
    const auto word = static_cast<unsigned>(codes);
    sum = fmaf(half_of(word << 8), with.x, sum);
    sum = fmaf(half_of(word), with.y, sum);
    sum = fmaf(half_of(word >> 8), with.z, sum);
    sum = fmaf(half_of(word >> 16), with.w, sum);
  }
  __device__ static double exact_sum(const std::int8_t* row, const Item& item, unsigned dim) {
    long long sum = 0;
    for (unsigned j = 0; j < dim; ++j) {
      const int code = whole_of_e4m3(static_cast<std::uint8_t>(row[j]));
      sum += static_cast<long long>(code) * (128 * item.high[j] + item.low[j]);
    }
    return static_cast<double>(sum) * kE4m3Unit;
  }
};

}  // namespace fllm::cuda

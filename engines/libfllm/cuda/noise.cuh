// Gumbel noise of (seed, user id): the bits of src/search/gumbel.cpp, which says where the formulas come from.
#pragma once

#include "cuda/device.hpp"

namespace fllm::cuda {

__device__ __forceinline__ std::uint64_t philox(std::uint64_t seed, std::int64_t id) {
  constexpr std::uint32_t kFirst = 0xD2511F53u, kSecond = 0xCD9E8D57u;
  const auto counter = static_cast<std::uint64_t>(id);
  std::uint32_t words[4] = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32), 0, 0};
  std::uint32_t keys[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  FLLM_UNROLL
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t first_high = __umulhi(words[0], kFirst), first_low = words[0] * kFirst;
    const std::uint32_t second_high = __umulhi(words[2], kSecond), second_low = words[2] * kSecond;
    words[0] = second_high ^ words[1] ^ keys[0];
    words[2] = first_high ^ words[3] ^ keys[1];
    words[1] = second_low;
    words[3] = first_low;
    keys[0] += 0x9E3779B9u;
    keys[1] += 0xBB67AE85u;
  }
  return std::uint64_t{words[1]} << 32 | words[0];
}

// The logarithm of a positive normal number, in a fixed order of rounded operations.
__device__ inline double fixed_log(double x) {
  const std::int64_t bits = __double_as_longlong(x);
  double exponent = static_cast<double>((bits >> 52) - 1022);
  double mantissa = __longlong_as_double((bits & 0xFFFFFFFFFFFFFll) | 1022ll << 52);  // in [0.5, 1)
  if (mantissa < 0x1.6a09e667f3bcdp-1) {
    mantissa *= 2.0;
    exponent -= 1.0;
  }
  const double s = __ddiv_rn(__dadd_rn(mantissa, -1.0), __dadd_rn(mantissa, 1.0));
  const double square = __dmul_rn(s, s);
  double series = 1.0 / 23;
  FLLM_UNROLL
  for (int k = 10; k >= 0; --k) series = __dadd_rn(__dmul_rn(series, square), 1.0 / (2 * k + 1));
  const double high = __dmul_rn(exponent, 0x1.62e42feep-1);
  const double low = __dmul_rn(exponent, 0x1.a39ef35793c76p-33);
  return __dadd_rn(high, __dadd_rn(__dmul_rn(__dmul_rn(2.0, s), series), low));
}

__device__ inline double gumbel_noise(std::uint64_t seed, std::int64_t id) {
  const double uniform = __dmul_rn(__dadd_rn(static_cast<double>(philox(seed, id) >> 12), 0.5), 0x1p-52);
  return -fixed_log(-fixed_log(uniform));
}

}  // namespace fllm::cuda

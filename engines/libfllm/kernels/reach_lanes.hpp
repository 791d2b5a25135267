// Which rows of a sample may reach a threshold, over lanes of 64 bits and without a logarithm.
//
// The noise of a row is -ln(-ln u), u uniform in (0, 1). So for a weight w
//
//     ln w - ln(-ln u) >= t   if and only if   -ln u <= w exp(-t),   and then   1 - u <= w exp(-t)
//
// as 1 - u <= -ln u. Where few rows reach t, u is near 1 for those that do, and both sides of that are nearly equal.
// What stands for w exp(-t) here, the *odds*, is at least as large: exp is 2^n (1 + f) of the parts n and f of the
// binary logarithm, a chord of a convex function and at most 1.0615 times too large, and kSlack covers the rounding of
// all this and of the logarithms in the keys that are compared in the end.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gumbel_lanes.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr double kSlack = 1.0 + 0x1p-12;
constexpr double kLeastPower = -1000.0;  // of two: less than every 1 - u, and than it over any weight
constexpr double kLargestPower = 1000.0;

// exp(x) or slightly more; infinite or no number as the largest power.
template <class W>
inline typename W::Double chord_of_exp(typename W::Double x) {
  using Double = typename W::Double;
  const Double least = W::broadcast(kLeastPower), largest = W::broadcast(kLargestPower);
  Double power = W::multiply(x, W::broadcast(0x1.71547652b82fep0));
  power = W::if_less(power, largest, power, largest);
  power = W::if_less(power, least, least, power);
  // The sum leaves the power and its 20 binary places, biased as an exponent is, in the low 32 bits.
  const Double fixed = W::add(W::add(power, W::broadcast(1023.0)), W::broadcast(0x1.8p32));
  return W::number(W::shift_left(W::bits(fixed), 32));
}

template <class W>
inline typename W::Double weights_of(typename W::Double scores, int exponent) {
  using Double = typename W::Double;
  const Double zero = W::broadcast(0.0), largest = W::broadcast(static_cast<double>(kLargestScore));
  const Double positive = W::if_less(zero, scores, scores, zero);
  const Double x = W::if_less(positive, largest, positive, largest);
  Double power = x;
  for (int k = 1; k < exponent; ++k) power = W::multiply(power, x);
  return W::add(power, W::broadcast(1.0));
}

template <class W>
inline typename W::Double odds_of(typename W::Double scores, const Reach& reach, typename W::Double factor) {
  if (reach.exponent == 0) {
    const auto above = W::subtract(scores, W::broadcast(static_cast<double>(reach.threshold)));
    return W::multiply(chord_of_exp<W>(above), factor);
  }
  return W::multiply(weights_of<W>(scores, reach.exponent), factor);
}

template <class W>
std::size_t may_reach(std::uint64_t seed, const std::int64_t* ids, const float* scores, std::size_t n,
                      const Reach& reach, std::uint16_t* indices) {
  const PhiloxKeys keys(seed);
  auto factor = W::broadcast(kSlack);
  if (reach.exponent != 0) {
    factor = W::multiply(factor, chord_of_exp<W>(W::broadcast(-static_cast<double>(reach.threshold))));
  }
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; i += W::kCount) {
    std::int64_t some_ids[W::kCount] = {};
    float some_scores[W::kCount] = {};
    const bool whole = n - i >= W::kCount;
    for (std::size_t l = 0; !whole && i + l < n; ++l) {
      some_ids[l] = ids[i + l];
      some_scores[l] = scores[i + l];
    }
    const auto odds = odds_of<W>(W::widen(whole ? scores + i : some_scores), reach, factor);
    const auto uniform = uniform_lanes<W>(keys, W::load(whole ? ids + i : some_ids));
    unsigned found = W::not_above(W::subtract(W::broadcast(1.0), uniform), odds);
    if (!whole) found &= (1u << (n - i)) - 1;
    for (; found != 0; found &= found - 1) {
      indices[count++] = static_cast<std::uint16_t>(i + static_cast<std::size_t>(__builtin_ctz(found)));
    }
  }
  return count;
}

}  // namespace

}  // namespace fllm::kernels

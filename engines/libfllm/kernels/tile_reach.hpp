// Bounds of one tile for many items (docs/internals/tiles.md). One plain loop that the compiler turns into vectors with
// each level's flags. It has no fused multiply-add and no sums across items, so every level gives the same bits.
//
// All code here has internal linkage: each file that includes this is compiled with its own flags.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/kernels.hpp"

namespace fllm::kernels {
namespace {

// A tile is tried the earlier, the higher its bound and the higher the score of its middle: for few rows come near the
// bound where a tile is not coherent. The share was measured (docs/internals/tiles.md).
constexpr double kBoundShare = 0.3;

// By how much the squared length of a direction may exceed 1, and what that and float64 make of a score, relative to
// the product of norms; both far more than they do.
constexpr double kScoreSlack = 0x1p-20;
constexpr double kBiasSlack = 1e-12;

inline double larger(double a, double b) { return a < b ? b : a; }

// The least float32 that is not below `number`. Only a number above 0 is rounded down to 0, so it is +0.
inline float rounded_up(double number) {
  const float nearest = static_cast<float>(number);
  std::int32_t bits;
  __builtin_memcpy(&bits, &nearest, sizeof bits);
  const std::int32_t next = bits < 0 ? bits - 1 : bits + 1;
  const std::int32_t chosen = static_cast<double>(nearest) < number ? next : bits;
  float result;
  __builtin_memcpy(&result, &chosen, sizeof result);
  return result;
}

inline float or_infinity(float number) { return number == number ? number : std::numeric_limits<float>::infinity(); }

void tile_reach(const float* __restrict products, const float* extents, const TileItems& items,
                float* __restrict uppers, float* __restrict promises) {
  const double low = extents[0], high = extents[1], rest = extents[2], bias = extents[3];
  const double farthest = larger(std::fabs(low), std::fabs(high));
  const double slack = kScoreSlack * (farthest + rest), half = (low + high) / 2;
  const double biased = bias + kBiasSlack * std::fabs(bias);
  const double* __restrict norms = items.norms;
  const double* __restrict lost = items.lost;
  for (std::size_t i = 0; i < items.count; ++i) {
    const double along = products[i], norm = norms[i];
    const double certain = larger(std::fabs(along) - lost[i], 0.0);  // of the part along the direction
    // 1 - kScoreSlack is less than 1 / (1 + kScoreSlack), by which a direction longer than 1 would shorten it.
    const double across = std::sqrt(larger(norm * norm - certain * certain * (1 - kScoreSlack), 0.0));
    const double score = larger(low * along, high * along) + lost[i] * farthest + across * rest + slack * norm;
    // A product beyond float32 would pass through larger() unseen.
    const double finite = std::fabs(along) <= std::numeric_limits<float>::max() ? norm : along;
    const double upper = std::fabs(finite) <= std::numeric_limits<double>::max()
                             ? score + biased
                             : std::numeric_limits<double>::infinity();
    const double middle = half * along + bias;
    uppers[i] = or_infinity(rounded_up(upper));
    promises[i] = or_infinity(static_cast<float>(middle + kBoundShare * (upper - middle)));
  }
}

}  // namespace
}  // namespace fllm::kernels

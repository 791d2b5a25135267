// How scores become probabilities: p(u) = w(s_u) / (sum of w(s_v) over all users). fllm_export.link is the definition.
#pragma once

#include <algorithm>
#include <limits>

#include "portable_log.hpp"

namespace fllm {

struct Link {
  // Scores beyond this count as this one: of a power, no sum of a block overflows float32.
  static constexpr double kLargestScore = 0x1p30;
  static constexpr int kLargestExponent = 4;

  int exponent = 0;  // g of w(s) = 1 + max(s, 0)^g; 0: w(s) = exp(s)

  bool exponential() const { return exponent == 0; }

  // w(s) - 1 of a power.
  double excess(double score) const {
    const double x = std::clamp(score, 0.0, kLargestScore), square = x * x;
    return exponent == 1 ? x : exponent == 2 ? square : exponent == 3 ? square * x : square * square;
  }

  // ln w(s). -infinity, the score of nobody, stays -infinity.
  double logit(double score) const {
    if (exponential() || score == -std::numeric_limits<double>::infinity()) return score;
    return portable_log(1.0 + excess(score));
  }
};

}  // namespace fllm

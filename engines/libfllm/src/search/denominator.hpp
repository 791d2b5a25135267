// The softmax denominator of one item, as the design's pair (m, l).
#pragma once

#include <cmath>
#include <limits>

namespace fllm {

// sum of exp(logit - m) over the rows seen; m is a reference near the largest logit, or 0 for sums of powers.
struct LogSumExp {
  double m = -std::numeric_limits<double>::infinity();
  double l = 0.0;

  void add(double other_m, double other_l) {
    if (other_l == 0.0) return;
    if (other_m == m) {
      l += other_l;
      return;
    }
    if (other_m > m) {
      l = l == 0.0 ? 0.0 : l * std::exp(m - other_m);
      m = other_m;
    }
    l += other_l * std::exp(other_m - m);
  }

  double value() const { return m + std::log(l); }
};

}  // namespace fllm

// An item vector as the plan takes it, z = scale * q with integers q cut into limbs, and how far the plan's score
// of it may be from the exact one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/table.hpp"

namespace fllm::tensorrt {

struct WholeItem {
  double scale = 1.0;
  std::vector<std::int32_t> whole;  // [dim], at most 8127
  std::vector<float> limbs;         // [limbs, dim], most significant first
  std::size_t limb_count = 0;
  // The Euclidean norm of the limbs' magnitudes put together: of w_j = 128 |high| + |low| for int8.
  double magnitude = 0;
  // What is left of the precision: the plan's sums err by at most this times norm(row codes) * magnitude.
  double relative_error = 0;

  WholeItem(Codec codec, const float* z, std::size_t dim);

  // Whether float32 holds the scale with room to spare, so that a plan's score means anything.
  bool is_plain() const { return scale > 0x1p-60 && scale < 0x1p60; }
};

// How far a plan's score s of rows whose scale * norm is at most `reach` and whose bias is at most `most_bias` may be
// from the exact one: allowance(...) + kRounding * (|s| + most_bias). Infinite where a score may mean nothing.
double allowance(const WholeItem& item, double reach);
inline constexpr double kRounding = 0x1p-21;

}  // namespace fllm::tensorrt

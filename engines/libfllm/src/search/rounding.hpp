// Numbers that bounds may be stored in: never below what they stand for.
#pragma once

#include <cmath>
#include <limits>

namespace fllm {

// The least float32 that is not below `number`.
inline float float_above(double number) {
  const float nearest = static_cast<float>(number);
  return static_cast<double>(nearest) < number ? std::nextafter(nearest, std::numeric_limits<float>::infinity())
                                               : nearest;
}

}  // namespace fllm

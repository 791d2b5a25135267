// Numbers that a test draws, the same in every run.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

inline std::mt19937_64 random_bits(21);

inline double uniform(double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(random_bits);
}

inline std::vector<float> floats(std::size_t count, double low, double high) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(uniform(low, high));
  return values;
}

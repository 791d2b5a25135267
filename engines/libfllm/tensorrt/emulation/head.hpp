// What a head plan computes, on the CPU, with errors of the size that a GPU's may have.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "tensorrt/emulation/plan_file.hpp"

namespace fllm::tensorrt::emulation {

struct HeadTensors {
  const std::uint8_t* codes;
  const float *scales, *bias, *limbs, *query_scale;
  const std::int64_t* valid_rows;
  float* scores;
  std::int64_t* rows;
  float *m, *l;
};

inline double e4m3(std::uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 128 ? -magnitude : magnitude;
}

// A number in [-1, 1] that depends on the row, the item and the score.
inline double noise(std::int64_t row, std::int64_t item, double score) {
  std::uint64_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = (bits ^ static_cast<std::uint64_t>(row * 131 + item)) * 0x9E3779B97F4A7C15u;
  bits = (bits ^ bits >> 29) * 0xBF58476D1CE4E5B9u;
  return static_cast<double>(bits >> 11) * 0x1p-52 - 1.0;
}

class Head {
 public:
  Head(const HeadPlan& plan, std::int64_t rows, std::int64_t batch, const HeadTensors& tensors)
      : plan_(plan), rows_(rows), batch_(batch), t_(tensors), scores_(static_cast<std::size_t>(rows)) {}

  void run() {
    for (std::int64_t item = 0; item < batch_; ++item) {
      for (std::int64_t row = 0; row < rows_; ++row) scores_[static_cast<std::size_t>(row)] = score(row, item);
      select(item);
      sum(item);
    }
  }

 private:
  float score(std::int64_t row, std::int64_t item) const {
    if (row >= *t_.valid_rows) return -std::numeric_limits<float>::infinity();
    const std::uint8_t* const codes = t_.codes + row * plan_.dim;
    const double base = plan_.fp8 ? 32.0 : 128.0;
    double sum = 0, row_squares = 0, item_squares = 0;
    for (std::int64_t j = 0; j < plan_.dim; ++j) {
      const double code = plan_.fp8 ? e4m3(codes[j]) : static_cast<std::int8_t>(codes[j]);
      double whole = 0, magnitude = 0;
      for (std::int64_t limb = 0; limb < plan_.limbs(); ++limb) {
        const double digit = t_.limbs[(limb * batch_ + item) * plan_.dim + j];
        whole = base * whole + digit;
        magnitude = base * magnitude + std::abs(digit);
      }
      sum += code * whole;
      row_squares += code * code;
      item_squares += magnitude * magnitude;
    }
    // Half of what the scan allows for: a margin that is forgotten somewhere shows.
    const double allowed = plan_.fp8 ? 0x1p-12 * (1.0 + static_cast<double>(plan_.dim) / 128.0) : 0x1p-21;
    sum += allowed * noise(row, item, sum) * std::sqrt(row_squares * item_squares);
    const float scaled = static_cast<float>(sum) * (t_.scales[row] * t_.query_scale[item]);
    return t_.bias == nullptr ? scaled : scaled + t_.bias[row];
  }

  void select(std::int64_t item) {
    order_.resize(scores_.size());
    std::iota(order_.begin(), order_.end(), std::int64_t{0});
    const auto k = static_cast<std::ptrdiff_t>(plan_.k);
    const auto at = [&](std::int64_t row) { return scores_[static_cast<std::size_t>(row)]; };
    std::partial_sort(order_.begin(), order_.begin() + k, order_.end(),
                      [&](std::int64_t a, std::int64_t b) { return at(a) > at(b) || (at(a) == at(b) && a < b); });
    for (std::ptrdiff_t place = 0; place < k; ++place) {
      const std::int64_t row = order_[static_cast<std::size_t>(place)];
      t_.rows[item * k + place] = row;
      t_.scores[item * k + place] = at(row);
    }
  }

  void sum(std::int64_t item) const {
    const float m = *std::max_element(scores_.begin(), scores_.end());
    float l = 0;
    for (const float score : scores_) l += std::exp(score - m);
    t_.m[item] = m;
    t_.l[item] = l;
  }

  const HeadPlan& plan_;
  std::int64_t rows_, batch_;
  HeadTensors t_;
  std::vector<float> scores_;
  std::vector<std::int64_t> order_;
};

}  // namespace fllm::tensorrt::emulation

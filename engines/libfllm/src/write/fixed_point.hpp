// Numbers as integers of limited size, whose products and sums are exact (fllm_export/table/fixed_point.py).
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"

namespace fllm::writing {

inline constexpr double kWeight = 0x1p24;      // matrices are rounded to multiples of its reciprocal
inline constexpr double kRounding = 0.501;     // of a unit: what rounding to an integer loses at most, and more
inline constexpr std::size_t kDimMax = 65536;  // for longer rows the sums of the kernels could overflow

// The largest integer of a row of that length: so many of its squares add up to less than 2^53.
inline double limit(std::size_t length) {
  const int bits = (52 - static_cast<int>(std::bit_width(length - 1))) / 2;
  return std::ldexp(1.0, bits < 20 ? bits : 20);
}

// A row as integers times a unit.
struct Fixed {
  double unit;
  std::int64_t squares;
};

inline Fixed fix(const kernels::Writing& kernels, const float* row, std::size_t dim, std::int32_t* fixed) {
  const auto peak = static_cast<double>(std::bit_cast<float>(kernels.peak(row, dim)));
  const double largest = limit(dim);
  return {peak / largest, kernels.fix(row, dim, largest / (peak > 0 ? peak : 1.0), fixed)};
}

// A matrix [columns, dim] as turn() takes it: integers in panels, columns filled up with zeros. Where it is Hadamard's
// matrix with signs, times a number, rows are turned by those instead: the sums are exact, and so the same.
class Weights {
 public:
  Weights(const float* matrix, std::size_t columns, std::size_t dim);

  std::size_t columns() const { return columns_; }
  // Turns integers [rows, dim] of at most limit(dim) into `turned` [rows, columns]; `wide` has room for 8 dim numbers.
  void turn(const kernels::Writing& kernels, const std::int32_t* fixed, std::size_t rows, double* wide,
            double* turned) const;

 private:
  // What the matrix is a multiple of: fills in step_ and signs_, or finds that it is another.
  bool is_by_signs(const std::vector<double>& weights);

  std::size_t dim_, columns_;
  double step_ = 0;
  std::vector<std::int32_t> signs_;  // empty: another matrix
  Aligned<double> panels_;
};

// The number of `kernels::Kernels` that this process uses, and memory for turning some rows.
struct Turn {
  Turn(const kernels::Writing& used, const Weights& by, std::size_t most_rows, std::size_t length)
      : kernels(used),
        weights(by),
        dim(length),
        fixed(most_rows * length),
        wide(8 * length),
        turned(most_rows * by.columns()),
        facts(most_rows) {}

  // Turns rows [count, dim]: `turned` [count, columns], in units of facts[r].unit / kWeight.
  void operator()(const float* rows, std::size_t count) {
    for (std::size_t r = 0; r < count; ++r) facts[r] = fix(kernels, rows + r * dim, dim, fixed.data() + r * dim);
    weights.turn(kernels, fixed.data(), count, wide.data(), turned.data());
  }

  const kernels::Writing& kernels;
  const Weights& weights;
  std::size_t dim;
  Aligned<std::int32_t> fixed;
  Aligned<double> wide, turned;
  std::vector<Fixed> facts;
};

}  // namespace fllm::writing

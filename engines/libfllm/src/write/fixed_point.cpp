#include "write/fixed_point.hpp"

#include <algorithm>

namespace fllm::writing {

using kernels::kTurnColumns;

Weights::Weights(const float* matrix, std::size_t columns, std::size_t dim)
    : dim_(dim), columns_((columns + kTurnColumns - 1) / kTurnColumns * kTurnColumns) {
  std::vector<double> weights(columns * dim);
  std::transform(matrix, matrix + columns * dim, weights.begin(),
                 [](float number) { return std::nearbyint(static_cast<double>(number) * kWeight); });
  if (columns == columns_ && columns == dim && std::has_single_bit(dim) && is_by_signs(weights)) return;
  signs_.clear();
  panels_ = Aligned<double>(columns_ * dim);
  std::fill_n(panels_.data(), panels_.size(), 0.0);
  for (std::size_t c = 0; c < columns; ++c) {
    double* panel = panels_.data() + c / kTurnColumns * kTurnColumns * dim;
    for (std::size_t j = 0; j < dim; ++j) panel[j * kTurnColumns + c % kTurnColumns] = weights[c * dim + j];
  }
}

// Number [i, j] of Hadamard's matrix is -1 where i and j have an odd number of bits in common.
bool Weights::is_by_signs(const std::vector<double>& weights) {
  step_ = std::abs(weights[0]);
  for (std::size_t j = 0; j < dim_; ++j) signs_.push_back(weights[j] < 0 ? -1 : 1);
  for (std::size_t i = 0; i < dim_; ++i) {
    for (std::size_t j = 0; j < dim_; ++j) {
      const int sign = std::popcount(i & j) % 2 == 0 ? signs_[j] : -signs_[j];
      if (weights[i * dim_ + j] != sign * step_) return false;
    }
  }
  return true;
}

void Weights::turn(const kernels::Writing& kernels, const std::int32_t* fixed, std::size_t rows, double* wide,
                   double* turned) const {
  if (signs_.empty()) {
    kernels.turn(fixed, rows, dim_, panels_.data(), columns_, wide, turned);
  } else {
    kernels.turn_by_signs(fixed, rows, dim_, signs_.data(), step_, wide, turned);
  }
}

}  // namespace fllm::writing

#include "format/sketch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "search/rounding.hpp"

namespace fllm {

namespace {

// The squared norm of a code is at most this times the sketch's dimensions: the writer sees to it.
constexpr double kCoarseCodeLimit = 6.0;
constexpr double kFullCodeLimit = 64.0;

// Far above what float64 loses in turning the vector, and what float32 loses in computing a bound.
constexpr double kTurnSlack = 1e-9;
constexpr double kFloatSlack = 0x1p-18;

// Beyond this norm a float32 bound could overflow: rows of a larger norm are never ruled out (the writer's part).
constexpr double kLargestNorm = 0x1p60;

double norm_of(const std::vector<double>& numbers) {
  double squares = 0.0;
  for (const double number : numbers) squares += number * number;
  return std::sqrt(squares);
}

// basis values, [dims].
std::vector<double> turn(const Sketch& sketch, const double* values) {
  std::vector<double> turned(sketch.dims);
  for (std::size_t i = 0; i < sketch.dims; ++i) {
    const float* row = sketch.basis + i * sketch.dim;
    double sum = 0.0;
    for (std::size_t j = 0; j < sketch.dim; ++j) sum += static_cast<double>(row[j]) * values[j];
    turned[i] = sum;
  }
  return turned;
}

// What the basis leaves out: values - basis' turned, [dim].
std::vector<double> left_out(const Sketch& sketch, const double* values, const std::vector<double>& turned) {
  std::vector<double> rest(values, values + sketch.dim);
  for (std::size_t i = 0; i < sketch.dims; ++i) {
    const float* row = sketch.basis + i * sketch.dim;
    for (std::size_t j = 0; j < sketch.dim; ++j) rest[j] -= static_cast<double>(row[j]) * turned[i];
  }
  return rest;
}

}  // namespace

kernels::SketchBlocks Sketch::blocks(std::size_t first, std::size_t rows, const float* bias, bool with_fine) const {
  const std::size_t block = first / kernels::kPlaneRows;
  const std::size_t groups = dims / kernels::kPlaneDims;
  const std::size_t codes = block * groups * kernels::kPlaneBytes;
  const std::size_t factors = block * parts() * kernels::kPlaneRows;
  return {rows,
          groups,
          parts(),
          coarse + codes,
          with_fine ? fine + codes : nullptr,
          (with_fine ? fine_factors : coarse_factors) + factors,
          bias};
}

SketchQuery::SketchQuery(const Sketch& sketch, const double* values)
    : dim_(sketch.dim), dims_(sketch.dims), limb_(sketch.dims) {
  std::vector<double> turned = turn(sketch, values);
  const double slack = kTurnSlack * norm_of(std::vector<double>(values, values + dim_));
  outer_ = norm_of(left_out(sketch, values, turned)) + slack;
  inner_ = std::max(norm_of(turned) + slack, outer_);
  usable_ = inner_ <= kLargestNorm;  // false for a norm that is not a number, too
  if (!usable_) return;
  double peak = 0.0;
  for (const double number : turned) peak = std::max(peak, std::fabs(number));
  // A vector so small that the scale would lose bits takes a larger one: all of it is then `rounding`.
  scale_ = peak > 0.0 ? std::max(static_cast<float>(peak / 127.0), std::numeric_limits<float>::min()) : 1.0f;
  for (std::size_t i = 0; i < dims_; ++i) {
    const double rounded = std::clamp(std::nearbyint(turned[i] / scale_), -127.0, 127.0);
    limb_[i] = static_cast<std::int8_t>(rounded);
    limb_sum_ += limb_[i];
    turned[i] -= scale_ * rounded;
  }
  rounding_ = norm_of(turned) + slack + kFloatSlack * inner_;
}

kernels::SketchItem SketchQuery::proving(bool with_fine) const {
  const double longest = std::sqrt((with_fine ? kFullCodeLimit : kCoarseCodeLimit) * static_cast<double>(dims_));
  return {limb_.data(),
          limb_sum_,
          scale_,
          float_above(rounding_ * longest * (1 + kFloatSlack)),
          float_above(inner_ * (1 + kFloatSlack)),
          float_above(outer_ * (1 + kFloatSlack))};
}

kernels::SketchItem SketchQuery::estimating(bool with_fine, double deviations) const {
  const double outside = dim_ > dims_ ? static_cast<double>(dim_ - dims_) : 1.0;
  return {limb_.data(),
          limb_sum_,
          static_cast<float>(scale_ * (with_fine ? kFullUnbiased : kCoarseUnbiased)),
          0.0f,
          static_cast<float>(deviations * inner_ / std::sqrt(static_cast<double>(dims_))),
          static_cast<float>(deviations * outer_ / std::sqrt(outside))};
}

}  // namespace fllm

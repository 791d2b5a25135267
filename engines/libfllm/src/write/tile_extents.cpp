#include "write/tile_extents.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "write/fixed_point.hpp"

namespace fllm::writing {

namespace {

using kernels::Writing;

constexpr double kFloat64Slack = 1e-9, kRowSlack = 0x1p-23, kRestSlack = 0x1p-48;

float above(double number) {
  const auto nearest = static_cast<float>(number);
  return static_cast<double>(nearest) >= number ? nearest : std::nextafter(nearest, HUGE_VALF);
}

// The unit vector along the sum of rows, rounded to float32, and as integers.
struct Direction {
  std::vector<std::int32_t> weights;
  double squares;  // of the weights
};

Direction direction_of(const Writing& kernels, const std::vector<std::int64_t>& sums, float* direction) {
  const std::size_t dim = sums.size();
  std::vector<double> wide(sums.begin(), sums.end());
  const double peak = kernels.peak_wide(wide.data(), dim), largest = limit(dim);
  std::vector<std::int32_t> fixed(dim);
  const std::int64_t squares = kernels.fix_wide(wide.data(), dim, largest / (peak > 0 ? peak : 1.0), fixed.data());
  const double length = std::sqrt(static_cast<double>(squares));
  for (std::size_t j = 0; j < dim; ++j) {
    direction[j] = static_cast<float>(static_cast<double>(fixed[j]) / (length > 0 ? length : 1.0));
    fixed[j] = static_cast<std::int32_t>(std::nearbyint(static_cast<double>(direction[j]) * kWeight));
  }
  const auto of_weights = static_cast<double>(kernels.dot(fixed.data(), fixed.data(), dim));
  return {std::move(fixed), of_weights};
}

}  // namespace

void describe_tile(const Writing& kernels, const float* rows, std::size_t n, std::size_t dim, const float* bias,
                   float* direction, float* extents) {
  const auto peak = static_cast<double>(std::bit_cast<float>(kernels.peak(rows, n * dim)));
  const double largest = limit(dim), factor = largest / (peak > 0 ? peak : 1.0), unit = peak / largest;
  Aligned<std::int32_t> fixed(n * dim);
  std::vector<double> squares(n);
  std::vector<std::int64_t> sums(dim, 0);
  for (std::size_t r = 0; r < n; ++r) {
    squares[r] = static_cast<double>(kernels.fix(rows + r * dim, dim, factor, fixed.data() + r * dim));
    kernels.add(fixed.data() + r * dim, dim, sums.data());
  }
  const Direction along = direction_of(kernels, sums, direction);
  const double shrink = (2 - along.squares / (kWeight * kWeight)) / (kWeight * kWeight);
  double low = HUGE_VAL, high = -HUGE_VAL, rest = 0, most = 0;
  for (std::size_t r = 0; r < n; ++r) {
    const auto product = static_cast<double>(kernels.dot(fixed.data() + r * dim, along.weights.data(), dim));
    low = std::min(low, product);
    high = std::max(high, product);
    rest = std::max(rest, squares[r] - product * product * shrink);
    most = std::max(most, squares[r]);
  }
  const double root = std::sqrt(static_cast<double>(dim)), longest = std::sqrt(most) * unit;
  const double lost =
      (kFloat64Slack + kRowSlack) * longest + 2 * kRounding * (root * unit) + 1.01 * (root / kWeight) * longest;
  const double step = unit / kWeight;
  extents[0] = -above(lost - low * step);
  extents[1] = above(high * step + lost);
  extents[2] = above(std::sqrt(rest + kRestSlack * most) * unit + lost);
  // 0 added makes 0 of -0, which a maximum may or may not find beside 0.
  extents[3] = bias == nullptr ? 0.0f : *std::max_element(bias, bias + n) + 0.0f;
}

}  // namespace fllm::writing

// Scores, hits and softmax denominators without vector instructions, and what every level promises about them.
//
// Rounding of the fast scores (select_int8_many, select_float_many, finish_float_one). Let S be the exact sum, 128 high
// + low or the float32 sum as given, M = 128 |high| + |low| or |S|, s = S * scales[row] * item_scale + bias the exact
// score, and e = row_errors[row] * item_error. Every level computes s + e with an error of at most
//
//     scales[row] * item_scale * M * 2^-22  +  |s| * 2^-23  +  e * 2^-23
//
// unless scales[row] * item_scale leaves the normal range of float32. (Vector levels: two roundings of the sum, one of
// the product of the scales and one fused multiply-add each for the score and for the error; here everything but the
// last rounding of the score is in double.) So a caller whose errors cover the first two terms, and are enlarged by one
// part in 2^22, misses no row that its threshold should let through. With low == null, S and M are 128 high and
// 128 |high|: what the low limb would have added is for the caller to cover.
//
// A sum that is not a number, as from float32 values whose products overflow, counts as a hit; an item whose threshold
// is +infinity has none.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/exponential.hpp"
#include "kernels/kernels.hpp"
#include "kernels/reach_lanes.hpp"
#include "kernels/tile_reach.hpp"
#include "search/gumbel.hpp"

namespace fllm::kernels {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(t) for t <= kRaise, relative error below 2e-7.
float exp_below(float t) {
  if (!(t > kLowest)) t = kLowest;
  const float shifted = t * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (t - n * kLn2High) - n * kLn2Low;
  float p = kSeries[0];
  for (int k = 1; k < kTerms; ++k) p = p * r + kSeries[k];
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
}

// Moves the reference up to `top` where that is due. References are integers, so that their differences are exact.
void raise(float top, float& reference, float& sum) {
  if (!(top > reference + kRaise)) return;
  const float raised = std::nearbyint(top);
  sum *= exp_below(reference - raised);
  reference = raised;
}

void accumulate_one(const float* scores, std::size_t n, float* reference, float* sum) {
  float top = *reference;
  for (std::size_t i = 0; i < n; ++i) top = scores[i] > top ? scores[i] : top;
  raise(top, *reference, *sum);
  double total = *sum;
  for (std::size_t i = 0; i < n; ++i) total += static_cast<double>(exp_below(scores[i] - *reference));
  *sum = static_cast<float>(total);
}

float powers_one(const float* scores, std::size_t n, int exponent) {
  double total = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    const double x = scores[i] > 0.0f ? (scores[i] < kLargestScore ? scores[i] : kLargestScore) : 0.0;
    double power = x;
    for (int k = 1; k < exponent; ++k) power *= x;
    total += power;
  }
  return static_cast<float>(total);
}

void finish_int8_one(const std::int32_t* high, const std::int32_t* low, const Block& block, double item_scale,
                     float* scores) {
  for (std::size_t r = 0; r < block.rows; ++r) {
    const double sum = 128.0 * high[r] + low[r];
    const double bias = block.bias == nullptr ? 0.0 : block.bias[r];
    scores[r] = static_cast<float>(sum * (static_cast<double>(block.scales[r]) * item_scale) + bias);
  }
}

float fast_score(double sum, const Block& block, std::size_t row, float item_scale) {
  const double bias = block.bias == nullptr ? 0.0 : block.bias[row];
  return static_cast<float>(sum * (static_cast<double>(block.scales[row]) * item_scale) + bias);
}

double upper_bound(float score, float row_error, float item_error) {
  return score + static_cast<double>(row_error) * item_error;
}

void finish_float_one(const float* sums, const Block& block, float item_scale, float item_error, float* scores,
                      float* uppers) {
  for (std::size_t r = 0; r < block.rows; ++r) {
    scores[r] = fast_score(sums[r], block, r, item_scale);
    const float upper = static_cast<float>(upper_bound(scores[r], block.row_errors[r], item_error));
    uppers[r] = std::isnan(upper) ? kInfinity : upper;
  }
}

std::size_t not_below(const float* values, std::size_t n, float threshold, std::uint16_t* indices) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i)
    if (!(values[i] < threshold)) indices[count++] = static_cast<std::uint16_t>(i);
  return count;
}

// Denominators of all items over the block; sum_at(row, item) gives the sum.
template <class SumAt>
void accumulate(const Block& block, const Items& items, const Denominator& denominator, SumAt sum_at) {
  for (std::size_t i = 0; i < items.count; ++i) {
    float scores[kBlockRows];
    for (std::size_t r = 0; r < block.rows; ++r) scores[r] = fast_score(sum_at(r, i), block, r, items.scales[i]);
    if (denominator.exponent == 0) {
      accumulate_one(scores, block.rows, denominator.references + i, denominator.sums + i);
    } else {
      denominator.sums[i] += powers_one(scores, block.rows, denominator.exponent);
    }
  }
}

template <class SumAt>
std::size_t select(const Block& block, const Items& items, const Denominator* denominator, Hit* out, SumAt sum_at) {
  std::size_t count = 0;
  for (std::size_t r = 0; r < block.rows; ++r) {
    for (std::size_t i = 0; i < items.count; ++i) {
      const float threshold = items.thresholds[i];
      const float score = fast_score(sum_at(r, i), block, r, items.scales[i]);
      if (upper_bound(score, block.row_errors[r], items.errors[i]) < threshold || threshold == kInfinity) continue;
      out[count++] = Hit{static_cast<std::uint16_t>(r), static_cast<std::uint16_t>(i)};
    }
  }
  if (denominator != nullptr) accumulate(block, items, *denominator, sum_at);
  return count;
}

std::size_t select_int8_many(const std::int32_t* high, const std::int32_t* low, const Block& block, const Items& items,
                             const Denominator* denominator, Hit* out) {
  return select(block, items, denominator, out, [&](std::size_t r, std::size_t i) {
    const std::size_t at = r * items.count + i;
    return 128.0 * high[at] + (low == nullptr ? 0 : low[at]);
  });
}

std::size_t select_float_many(const float* sums, const Block& block, const Items& items, const Denominator* denominator,
                              Hit* out) {
  return select(block, items, denominator, out,
                [&](std::size_t r, std::size_t i) { return static_cast<double>(sums[r * items.count + i]); });
}

// One lane of 64 bits.
struct OneLane {
  using Word = std::uint64_t;
  using Double = double;
  static constexpr std::size_t kCount = 1;

  static Word broadcast(std::uint64_t x) { return x; }
  static Word load(const std::int64_t* p) { return static_cast<Word>(*p); }
  static Word multiply_low(Word a, Word b) { return (a & 0xffffffff) * (b & 0xffffffff); }
  static Word shift_right(Word a, int count) { return a >> count; }
  static Word shift_left(Word a, int count) { return a << count; }
  static Word exclusive_or(Word a, Word b, Word c) { return a ^ b ^ c; }
  static Word both(Word a, Word b) { return a & b; }
  static Word either(Word a, Word b) { return a | b; }

  static Double broadcast(double x) { return x; }
  static Double widen(const float* p) { return *p; }
  static Word bits(Double x) { return std::bit_cast<Word>(x); }
  static Double number(Word x) { return std::bit_cast<Double>(x); }
  static Double add(Double a, Double b) { return a + b; }
  static Double subtract(Double a, Double b) { return a - b; }
  static Double multiply(Double a, Double b) { return a * b; }
  static Double if_less(Double a, Double b, Double yes, Double no) { return a < b ? yes : no; }
  static unsigned not_above(Double a, Double b) { return a <= b ? 1 : 0; }
};

}  // namespace

void fill_select_scalar(Kernels& kernels) {
  kernels.finish_int8_one = finish_int8_one;
  kernels.finish_float_one = finish_float_one;
  kernels.not_below = not_below;
  kernels.accumulate_one = accumulate_one;
  kernels.powers_one = powers_one;
  kernels.select_int8_many = select_int8_many;
  kernels.select_float_many = select_float_many;
  kernels.tile_reach = tile_reach;
  kernels.gumbel = fllm::gumbel;
  kernels.may_reach = may_reach<OneLane>;
}

}  // namespace fllm::kernels

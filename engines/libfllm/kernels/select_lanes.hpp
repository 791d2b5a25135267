// Scores, hits and softmax denominators over sixteen lanes; select_scalar.cpp says what they promise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/exponential.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr float kInfinity = __builtin_inff();
// One group is kItemLanes items; Hit counts items in 16 bits.
constexpr std::size_t kMaxGroups = 65536 / kItemLanes;

// ---- where the sums of sixteen items come from, and what they are to be multiplied by

template <class V>
struct HighSums {
  const std::int32_t* high;
  static constexpr float kFactor = 128.0f;
  typename V::Float at(std::size_t index) const { return V::integers(high + index); }
};

template <class V>
struct LimbSums {
  const std::int32_t* high;
  const std::int32_t* low;
  static constexpr float kFactor = 1.0f;
  typename V::Float at(std::size_t index) const {
    return V::fma(V::integers(high + index), V::broadcast(128.0f), V::integers(low + index));
  }
};

template <class V>
struct FloatSums {
  const float* sums;
  static constexpr float kFactor = 1.0f;
  typename V::Float at(std::size_t index) const { return V::load(sums + index); }
};

// ---- denominators

// exp(t) for t <= kRaise, relative error below 2e-7.
template <class V>
inline typename V::Float exp_below(typename V::Float t) {
  t = V::larger(t, V::broadcast(kLowest));
  const auto shifted = V::fma(t, V::broadcast(kLog2E), V::broadcast(kRound));
  const auto n = V::subtract(shifted, V::broadcast(kRound));
  auto r = V::fnma(n, V::broadcast(kLn2High), t);
  r = V::fnma(n, V::broadcast(kLn2Low), r);
  auto p = V::broadcast(kSeries[0]);
#pragma GCC unroll 8
  for (int k = 1; k < kTerms; ++k) p = V::fma(p, r, V::broadcast(kSeries[k]));
  return V::times_power(p, shifted);
}

// Moves references up to `top` where that is due. References are integers, so that their differences are exact.
template <class V>
[[gnu::noinline]] void raise(typename V::Float top, float* reference, float* sum) {
  const auto before = V::load(reference);
  const auto due = V::less(V::all(), V::add(before, V::broadcast(kRaise)), top);
  const auto after = V::choose(due, V::nearest(top), before);
  V::store(reference, after);
  V::store(sum, V::choose(due, V::multiply(V::load(sum), exp_below<V>(V::subtract(before, after))), V::load(sum)));
}

// The sum of R exponentials in a tree: few additions in a row keep its error small. R is a power of two.
template <class V, int R>
inline typename V::Float sum_of_exp(const typename V::Float* scores, typename V::Float origin) {
  if constexpr (R == 1) {
    return exp_below<V>(V::subtract(scores[0], origin));
  } else {
    return V::add(sum_of_exp<V, R / 2>(scores, origin), sum_of_exp<V, R / 2>(scores + R / 2, origin));
  }
}

// Adds R scores of each of sixteen items to their denominators.
template <class V, int R>
inline void accumulate(const typename V::Float (&scores)[R], float* reference, float* sum) {
  auto top = V::load(reference);
  const auto limit = V::add(top, V::broadcast(kRaise));
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) top = V::larger(scores[r], top);
  if (V::bits(V::less(V::all(), limit, top)) != 0) raise<V>(top, reference, sum);
  V::store(sum, V::add(V::load(sum), sum_of_exp<V, R>(scores, V::load(reference))));
}

// max(score, 0)^G; scores above kLargestScore are that, and what is not a number is 0.
template <class V, int G>
inline typename V::Float power_of(typename V::Float score) {
  const auto x = V::smaller(V::larger(score, V::zero()), V::broadcast(kLargestScore));
  if constexpr (G == 1) return x;
  const auto square = V::multiply(x, x);
  if constexpr (G == 3) return V::multiply(square, x);
  return G == 2 ? square : V::multiply(square, square);
}

// The sum of R powers in a tree, as sum_of_exp.
template <class V, int R, int G>
inline typename V::Float sum_of_powers(const typename V::Float* scores) {
  if constexpr (R == 1) {
    return power_of<V, G>(scores[0]);
  } else {
    return V::add(sum_of_powers<V, R / 2, G>(scores), sum_of_powers<V, R / 2, G>(scores + R / 2));
  }
}

// Adds powers of R scores of each of sixteen items to their denominators.
template <class V, int R>
inline void accumulate_powers(const typename V::Float (&scores)[R], int exponent, float* sum) {
  const auto before = V::load(sum);
  switch (exponent) {
    case 1: return V::store(sum, V::add(before, sum_of_powers<V, R, 1>(scores)));
    case 2: return V::store(sum, V::add(before, sum_of_powers<V, R, 2>(scores)));
    case 3: return V::store(sum, V::add(before, sum_of_powers<V, R, 3>(scores)));
    default: return V::store(sum, V::add(before, sum_of_powers<V, R, 4>(scores)));
  }
}

// The n < 16 lanes at `p`, and `fill` in the others; reads nothing else.
template <class V>
inline typename V::Float load_some(const float* p, std::size_t n, float fill) {
  alignas(kAlign) float lanes[kItemLanes];
  for (std::size_t l = 0; l < kItemLanes; ++l) lanes[l] = l < n ? p[l] : fill;
  return V::load(lanes);
}

template <class V>
void accumulate_one(const float* scores, std::size_t n, float* reference, float* sum) {
  const std::size_t whole = n / kItemLanes * kItemLanes;
  // Lanes without a score count as exp of the lowest exponent, 1.6e-38.
  const auto last = whole < n ? load_some<V>(scores + whole, n - whole, -kInfinity) : V::broadcast(-kInfinity);
  auto tops = V::larger(last, V::broadcast(*reference));
  for (std::size_t i = 0; i < whole; i += kItemLanes) tops = V::larger(V::load(scores + i), tops);
  const float top = V::largest(tops);
  if (top > *reference + kRaise) {
    alignas(kAlign) float references[kItemLanes], sums[kItemLanes];
    V::store(references, V::broadcast(*reference));
    V::store(sums, V::broadcast(*sum));
    raise<V>(V::broadcast(top), references, sums);
    *reference = references[0];
    *sum = sums[0];
  }
  const auto origin = V::broadcast(*reference);
  auto total = whole < n ? exp_below<V>(V::subtract(last, origin)) : V::zero();
  for (std::size_t i = 0; i < whole; i += kItemLanes)
    total = V::add(total, exp_below<V>(V::subtract(V::load(scores + i), origin)));
  *sum += V::sum(total);
}

template <class V, int G>
float powers_one(const float* scores, std::size_t n) {
  const std::size_t whole = n / kItemLanes * kItemLanes;
  auto total = whole < n ? power_of<V, G>(load_some<V>(scores + whole, n - whole, 0.0f)) : V::zero();
  for (std::size_t i = 0; i < whole; i += kItemLanes) total = V::add(total, power_of<V, G>(V::load(scores + i)));
  return V::sum(total);
}

template <class V>
float powers_one(const float* scores, std::size_t n, int exponent) {
  switch (exponent) {
    case 1: return powers_one<V, 1>(scores, n);
    case 2: return powers_one<V, 2>(scores, n);
    case 3: return powers_one<V, 3>(scores, n);
    default: return powers_one<V, 4>(scores, n);
  }
}

// ---- scores and hits

template <class V, int R>
struct Rows {
  typename V::Float scales[R], errors[R], bias[R];

  Rows(const Block& block, std::size_t row) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      scales[r] = V::broadcast(block.scales[row + r]);
      errors[r] = V::broadcast(block.row_errors[row + r]);
      bias[r] = V::broadcast(block.bias == nullptr ? 0.0f : block.bias[row + r]);
    }
  }
};

// Goes through all items of R rows, whose sums start at index `first`. Returns how many groups of items have a score
// that does not stay below its threshold, their numbers in `hot`, and adds to the denominators if there are any.
template <class V, int R, class Sums>
inline std::size_t scan(const Sums& sums, std::size_t first, const Rows<V, R>& rows, const Items& items,
                        const Denominator* denominator, std::uint16_t* hot) {
  std::size_t hot_groups = 0;
  for (std::size_t item = 0; item < items.count; item += kItemLanes) {
    const auto item_scales = V::multiply(V::load(items.scales + item), V::broadcast(Sums::kFactor));
    const auto item_errors = V::load(items.errors + item), thresholds = V::load(items.thresholds + item);
    typename V::Float scores[R];
    auto below = V::all();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto scale = V::multiply(rows.scales[r], item_scales);
      scores[r] = V::fma(sums.at(first + r * items.count + item), scale, rows.bias[r]);
      below = V::less(below, V::fma(rows.errors[r], item_errors, scores[r]), thresholds);
    }
    hot[hot_groups] = static_cast<std::uint16_t>(item / kItemLanes);
    if (!V::every(below)) ++hot_groups;
    if (denominator == nullptr) continue;
    if (denominator->exponent == 0) {
      accumulate<V, R>(scores, denominator->references + item, denominator->sums + item);
    } else {
      accumulate_powers<V, R>(scores, denominator->exponent, denominator->sums + item);
    }
  }
  return hot_groups;
}

// Writes the hits of row `row` among the hot groups. Scores are computed as scan does, to the same bits.
template <class V, class Sums>
Hit* write_hits(const Sums& sums, const Block& block, std::size_t row, const Items& items, const std::uint16_t* hot,
                std::size_t hot_groups, Hit* out) {
  const Rows<V, 1> rows(block, row);
  for (std::size_t g = 0; g < hot_groups; ++g) {
    const std::size_t item = hot[g] * kItemLanes;
    const auto item_scales = V::multiply(V::load(items.scales + item), V::broadcast(Sums::kFactor));
    const auto thresholds = V::load(items.thresholds + item);
    const auto scale = V::multiply(rows.scales[0], item_scales);
    const auto score = V::fma(sums.at(row * items.count + item), scale, rows.bias[0]);
    const auto upper = V::fma(rows.errors[0], V::load(items.errors + item), score);
    const auto wanted = V::less(V::all(), thresholds, V::broadcast(kInfinity));
    std::uint32_t lanes = V::bits(wanted) & ~V::bits(V::less(V::all(), upper, thresholds));
    for (; lanes != 0; lanes &= lanes - 1)
      *out++ = Hit{static_cast<std::uint16_t>(row),
                   static_cast<std::uint16_t>(item + static_cast<std::size_t>(__builtin_ctz(lanes)))};
  }
  return out;
}

template <class V, int R, class Sums>
std::size_t select(const Sums& sums, const Block& block, const Items& items, const Denominator* denominator, Hit* out) {
  std::uint16_t hot[kMaxGroups + 1];  // scan writes a number before it knows whether to keep it
  Hit* end = out;
  std::size_t row = 0;
  while (row < block.rows) {
    const bool strip = block.rows - row >= R;
    const std::size_t rows = strip ? R : 1, first = row * items.count;
    const std::size_t hot_groups = strip ? scan<V, R>(sums, first, Rows<V, R>(block, row), items, denominator, hot)
                                         : scan<V, 1>(sums, first, Rows<V, 1>(block, row), items, denominator, hot);
    for (std::size_t r = row; hot_groups != 0 && r < row + rows; ++r)
      end = write_hits<V>(sums, block, r, items, hot, hot_groups, end);
    row += rows;
  }
  return static_cast<std::size_t>(end - out);
}

// Without denominators, strips of 4 rows keep all that belongs to the rows in registers; with them the exponentials
// dominate, and 8 rows are summed before they are added.
template <class V, class Sums>
std::size_t select(const Sums& sums, const Block& block, const Items& items, const Denominator* denominator, Hit* out) {
  return denominator == nullptr ? select<V, 4>(sums, block, items, nullptr, out)
                                : select<V, 8>(sums, block, items, denominator, out);
}

template <class V>
std::size_t select_int8_many(const std::int32_t* high, const std::int32_t* low, const Block& block, const Items& items,
                             const Denominator* denominator, Hit* out) {
  return low == nullptr ? select<V>(HighSums<V>{high}, block, items, denominator, out)
                        : select<V>(LimbSums<V>{high, low}, block, items, denominator, out);
}

template <class V>
std::size_t select_float_many(const float* sums, const Block& block, const Items& items, const Denominator* denominator,
                              Hit* out) {
  return select<V>(FloatSums<V>{sums}, block, items, denominator, out);
}

// ---- one item

template <class V>
inline void finish_lanes(typename V::Float sums, typename V::Float scales, typename V::Float errors,
                         typename V::Float bias, float item_scale, float item_error, float* scores, float* uppers) {
  const auto score = V::fma(sums, V::multiply(scales, V::broadcast(item_scale)), bias);
  const auto upper = V::fma(errors, V::broadcast(item_error), score);
  const auto infinity = V::broadcast(kInfinity);
  V::store(scores, score);
  V::store(uppers, V::choose(V::less(V::all(), upper, infinity), upper, infinity));  // NaN becomes infinity
}

template <class V>
void finish_float_one(const float* sums, const Block& block, float item_scale, float item_error, float* scores,
                      float* uppers) {
  const std::size_t whole = block.rows / kItemLanes * kItemLanes, left = block.rows - whole;
  for (std::size_t r = 0; r < whole; r += kItemLanes)
    finish_lanes<V>(V::load(sums + r), V::load(block.scales + r), V::load(block.row_errors + r),
                    block.bias == nullptr ? V::zero() : V::load(block.bias + r), item_scale, item_error, scores + r,
                    uppers + r);
  if (left == 0) return;
  alignas(kAlign) float last_scores[kItemLanes], last_uppers[kItemLanes];
  finish_lanes<V>(load_some<V>(sums + whole, left, 0.0f), load_some<V>(block.scales + whole, left, 0.0f),
                  load_some<V>(block.row_errors + whole, left, 0.0f),
                  block.bias == nullptr ? V::zero() : load_some<V>(block.bias + whole, left, 0.0f), item_scale,
                  item_error, last_scores, last_uppers);
  for (std::size_t l = 0; l < left; ++l) {
    scores[whole + l] = last_scores[l];
    uppers[whole + l] = last_uppers[l];
  }
}

// W::scores takes W::kCount rows at once in double; the rows that remain are the same arithmetic one by one.
template <class W>
void finish_int8_one(const std::int32_t* high, const std::int32_t* low, const Block& block, double item_scale,
                     float* scores) {
  std::size_t r = 0;
  for (; r + W::kCount <= block.rows; r += W::kCount)
    W::scores(high + r, low + r, block.scales + r, block.bias == nullptr ? nullptr : block.bias + r, item_scale,
              scores + r);
  for (; r < block.rows; ++r) {
    const double bias = block.bias == nullptr ? 0.0 : static_cast<double>(block.bias[r]);
    const double sum = 128.0 * high[r] + low[r];
    scores[r] = static_cast<float>(sum * (static_cast<double>(block.scales[r]) * item_scale) + bias);
  }
}

template <class V>
std::size_t not_below(const float* values, std::size_t n, float threshold, std::uint16_t* indices) {
  std::size_t count = 0;
  const auto limit = V::broadcast(threshold);
  for (std::size_t i = 0; i < n; i += kItemLanes) {
    const std::size_t some = n - i < kItemLanes ? n - i : kItemLanes;
    const auto lanes = some == kItemLanes ? V::load(values + i) : load_some<V>(values + i, some, 0.0f);
    std::uint32_t found = V::not_below(lanes, limit) & ((2u << (some - 1)) - 1);
    for (; found != 0; found &= found - 1)
      indices[count++] = static_cast<std::uint16_t>(i + static_cast<std::size_t>(__builtin_ctz(found)));
  }
  return count;
}

// `Exact` makes the scores of one int8 item, in double.
template <class V, class Exact>
void fill_select(Kernels& kernels) {
  kernels.finish_int8_one = finish_int8_one<Exact>;
  kernels.finish_float_one = finish_float_one<V>;
  kernels.not_below = not_below<V>;
  kernels.accumulate_one = accumulate_one<V>;
  kernels.powers_one = powers_one<V>;
  kernels.select_int8_many = select_int8_many<V>;
  kernels.select_float_many = select_float_many<V>;
}

}  // namespace

}  // namespace fllm::kernels

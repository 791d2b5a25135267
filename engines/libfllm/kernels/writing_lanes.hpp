// The loops of writing.hpp as the compiler vectorises them for the instruction set of the file that includes this one.
// A file that includes it defines `Wide`, a vector of float64 numbers with its multiply-add, before.
#pragma once

#include "kernels/sums_lanes.hpp"
#include "kernels/writing.hpp"

namespace fllm::kernels {

namespace {

// x + 1.5 * 2^23 has no room for a fraction: the sum is rounded to an integer, ties to even.
constexpr float kRound = 12582912.0f;
constexpr double kRoundWide = 6755399441055744.0;

inline std::uint32_t bits_of(float value) { return __builtin_bit_cast(std::uint32_t, value); }
inline float float_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline float least(float a, float b) { return a < b ? a : b; }
inline float most(float a, float b) { return a > b ? a : b; }

std::uint32_t peak(const float* values, std::size_t n) {
  std::int32_t highest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = static_cast<std::int32_t>(bits_of(values[i]) & 0x7fffffffu);
    highest = bits > highest ? bits : highest;
  }
  return static_cast<std::uint32_t>(highest);
}

void to_integers(const float* values, std::size_t n, float step, float largest, std::int8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    const float rounded = (values[i] / step + kRound) - kRound;
    codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(least(most(rounded, -largest), largest)));
  }
}

// Numbers below 2^-6 are multiples of 2^-9; others keep three bits of their mantissa.
void to_fp8(const float* values, std::size_t n, float step, std::uint8_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t all = bits_of(values[i] / step), bits = all & 0x7fffffffu;
    const std::uint32_t normal = ((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
    const float small = (float_of(bits) * 512.0f + kRound) - kRound;
    const auto subnormal = static_cast<std::uint32_t>(static_cast<std::int32_t>(small));
    const std::uint32_t code = bits < 0x3c800000u ? subnormal : normal;
    codes[i] = static_cast<std::uint8_t>(code | ((all >> 24) & 0x80u));
  }
}

// The same with numbers below 2^-14 and ten bits: adding 0.5 rounds those to multiples of 2^-24.
void to_fp16(const float* values, std::size_t n, float step, std::uint16_t* codes) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t all = bits_of(values[i] / step), bits = all & 0x7fffffffu;
    const std::uint32_t normal = ((bits + 0xfffu + ((bits >> 13) & 1u)) >> 13) - (112u << 10);
    const std::uint32_t subnormal = bits_of(float_of(bits) + 0.5f) - 0x3f000000u;
    const std::uint32_t code = bits < 0x38800000u ? subnormal : normal;
    codes[i] = static_cast<std::uint16_t>(code | ((all >> 16) & 0x8000u));
  }
}

std::int64_t magnitudes(const float* values, std::size_t n, double unit, std::int32_t* fixed) {
  std::int64_t squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double magnitude = static_cast<double>(float_of(bits_of(values[i]) & 0x7fffffffu)) / unit;
    fixed[i] = static_cast<std::int32_t>((magnitude + kRoundWide) - kRoundWide);
  }
  for (std::size_t i = 0; i < n; ++i) squares += static_cast<std::int64_t>(fixed[i]) * fixed[i];
  return squares;
}

void try_odd(const std::int32_t* fixed, std::size_t n, double factor, std::int32_t largest, std::int64_t* along,
             std::int64_t* squares) {
  std::int64_t with = 0, of = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t nearest = 2 * static_cast<std::int32_t>(static_cast<double>(fixed[i]) * factor) + 1;
    const std::int32_t code = nearest < largest ? nearest : largest;
    with += static_cast<std::int64_t>(code) * fixed[i];
    of += static_cast<std::int64_t>(code) * code;
  }
  *along = with;
  *squares = of;
}

void to_odd(const float* values, std::size_t n, float step, std::int32_t largest, std::uint8_t* levels) {
  for (std::size_t i = 0; i < n; ++i) {
    const float half = least(most(values[i] / step * 0.5f, -64.0f), 64.0f);
    const auto towards_zero = static_cast<std::int32_t>(half);
    const std::int32_t floor = towards_zero - (half < static_cast<float>(towards_zero) ? 1 : 0);
    const std::int32_t code = 2 * floor + 1;
    const std::int32_t low = code > -largest ? code : -largest;
    levels[i] = static_cast<std::uint8_t>(((low < largest ? low : largest) + largest) >> 1);
  }
}

constexpr float kLargestFloat = 3.40282346638528859812e+38f;

// A value that is not a number stays one, as the second argument of the comparisons.
void scale_integers(const std::int8_t* numbers, std::size_t n, float scale, float* values) {
  for (std::size_t i = 0; i < n; ++i) {
    values[i] = least(kLargestFloat, most(-kLargestFloat, static_cast<float>(numbers[i]) * scale));
  }
}

void scale_floats(float* values, std::size_t n, float scale) {
  for (std::size_t i = 0; i < n; ++i) values[i] = least(kLargestFloat, most(-kLargestFloat, values[i] * scale));
}

template <typename Value>
std::int64_t fix_values(const Value* values, std::size_t n, double factor, std::int32_t* fixed) {
  std::int64_t squares = 0;
  for (std::size_t i = 0; i < n; ++i) {
    fixed[i] = static_cast<std::int32_t>((static_cast<double>(values[i]) * factor + kRoundWide) - kRoundWide);
  }
  for (std::size_t i = 0; i < n; ++i) squares += static_cast<std::int64_t>(fixed[i]) * fixed[i];
  return squares;
}

double peak_wide(const double* values, std::size_t n) {
  std::int64_t highest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t bits = __builtin_bit_cast(std::int64_t, values[i]) & 0x7fffffffffffffff;
    highest = bits > highest ? bits : highest;
  }
  return __builtin_bit_cast(double, highest);
}

void add(const std::int32_t* fixed, std::size_t n, std::int64_t* sums) {
  for (std::size_t i = 0; i < n; ++i) sums[i] += fixed[i];
}

std::int64_t dot(const std::int32_t* a, const std::int32_t* b, std::size_t n) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += static_cast<std::int64_t>(a[i]) * b[i];
  return sum;
}

// One panel of columns for kRows rows; all sums stay in registers.
template <std::size_t kRows>
void turn_panel(const double* wide, std::size_t dim, const double* panel, std::size_t columns, double* turned) {
  constexpr std::size_t kVectors = kTurnColumns / Wide::kLanes;
  typename Wide::Vector sums[kRows][kVectors];
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = Wide::zero();
  for (std::size_t j = 0; j < dim; ++j) {
    typename Wide::Vector weights[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) weights[v] = Wide::load(panel + j * kTurnColumns + v * Wide::kLanes);
    for (std::size_t r = 0; r < kRows; ++r) {
      const typename Wide::Vector number = Wide::all(wide[r * dim + j]);
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = Wide::multiply_add(number, weights[v], sums[r][v]);
    }
  }
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t v = 0; v < kVectors; ++v) Wide::store(turned + r * columns + v * Wide::kLanes, sums[r][v]);
}

void turn(const std::int32_t* fixed, std::size_t rows, std::size_t dim, const double* weights, std::size_t columns,
          double* wide, double* turned) {
  static_assert(Wide::kRows <= 8);
  for (std::size_t row = 0; row < rows;) {
    const std::size_t count = rows - row < Wide::kRows ? 1 : Wide::kRows;
    for (std::size_t i = 0; i < count * dim; ++i) wide[i] = static_cast<double>(fixed[row * dim + i]);
    for (std::size_t column = 0; column < columns; column += kTurnColumns) {
      double* out = turned + row * columns + column;
      if (count == 1) {
        turn_panel<1>(wide, dim, weights + column * dim, columns, out);
      } else {
        turn_panel<Wide::kRows>(wide, dim, weights + column * dim, columns, out);
      }
    }
    row += count;
  }
}

// Multiplies by Hadamard's matrix. Every pass adds and subtracts neighbours and moves the lowest bit of their place to
// the top, so that each number is back in its place after the last one. Returns which of the two holds the result.
template <typename Sum>
const Sum* hadamard(Sum* in, Sum* out, std::size_t n) {
  const std::size_t half = n / 2;
  for (std::size_t pass = n; pass > 1; pass /= 2) {
    for (std::size_t i = 0; i < half; ++i) {
      out[i] = in[2 * i] + in[2 * i + 1];
      out[i + half] = in[2 * i] - in[2 * i + 1];
    }
    Sum* const other = in;
    in = out;
    out = other;
  }
  return in;
}

// `numbers` and `others` have room for dim numbers.
template <typename Sum>
void turn_row_by_signs(const std::int32_t* fixed, std::size_t dim, const std::int32_t* signs, double step, Sum* numbers,
                       Sum* others, double* turned) {
  for (std::size_t i = 0; i < dim; ++i) numbers[i] = static_cast<Sum>(fixed[i] * signs[i]);
  const Sum* sums = hadamard(numbers, others, dim);
  for (std::size_t i = 0; i < dim; ++i) turned[i] = step * static_cast<double>(sums[i]);
}

void turn_by_signs(const std::int32_t* fixed, std::size_t rows, std::size_t dim, const std::int32_t* signs, double step,
                   double* wide, double* turned) {
  constexpr std::size_t kNarrowDims = 1024;  // values are of at most 2^20, so that sums of so many fit 32 bits
  alignas(64) std::int32_t numbers[kNarrowDims], others[kNarrowDims];
  for (std::size_t r = 0; r < rows; ++r) {
    if (dim <= kNarrowDims) {
      turn_row_by_signs(fixed + r * dim, dim, signs, step, numbers, others, turned + r * dim);
    } else {
      turn_row_by_signs(fixed + r * dim, dim, signs, step, wide, wide + dim, turned + r * dim);
    }
  }
}

inline std::int32_t level_of(float value, float factor) {
  // The floor, as it is not negative.
  return static_cast<std::int32_t>(least(most(value * factor + 8.0f, 0.0f), 15.0f));
}

void to_levels(const std::int32_t* values, std::size_t n, float factor, std::uint8_t* levels) {
  for (std::size_t i = 0; i < n; ++i) {
    levels[i] = static_cast<std::uint8_t>(level_of(static_cast<float>(values[i]), factor));
  }
}

// Values are of at most 2^20, levels of four bits: with values in an upper and a lower part, sums over as many numbers
// as a row may have stay below 2^31.
void try_levels(const std::int32_t* values, std::size_t n, const float* factors, LevelSums* sums) {
  std::int32_t upper[kLevelSteps] = {}, lower[kLevelSteps] = {}, squares[kLevelSteps] = {}, coarse[kLevelSteps] = {};
  for (std::size_t i = 0; i < n; ++i) {
    const auto value = static_cast<float>(values[i]);
    const std::int32_t high = values[i] >> 8, low = values[i] & 255;
#pragma GCC unroll 5
    for (std::size_t s = 0; s < kLevelSteps; ++s) {
      const std::int32_t level = level_of(value, factors[s]);
      const std::int32_t code = 2 * level - 15, coarse_code = 2 * (level >> 2) - 3;
      upper[s] += high * code;
      lower[s] += low * code;
      squares[s] += code * code;
      coarse[s] += coarse_code * coarse_code;
    }
  }
  for (std::size_t s = 0; s < kLevelSteps; ++s) {
    sums[s] = {256 * static_cast<std::int64_t>(upper[s]) + lower[s], squares[s], coarse[s]};
  }
}

void coarse_sums(const std::int32_t* values, const std::uint8_t* levels, std::size_t n, std::int64_t* along,
                 std::int64_t* squares) {
  std::int32_t upper = 0, lower = 0, of = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t coarse = 2 * (static_cast<std::int32_t>(levels[i]) >> 2) - 3;
    upper += (values[i] >> 8) * coarse;
    lower += (values[i] & 255) * coarse;
    of += coarse * coarse;
  }
  *along = 256 * static_cast<std::int64_t>(upper) + lower;
  *squares = of;
}

void keys(const float* points, const std::uint32_t* rows, std::size_t n, const float* direction, float* keys) {
  constexpr std::size_t kHalf = kFeatures / 2, kAhead = 24;
  for (std::size_t i = 0; i < n; ++i) {
    if (i + kAhead < n) {
      const float* later = points + rows[i + kAhead] * kPointFloats;
      __builtin_prefetch(later);
      __builtin_prefetch(later + kHalf);
    }
    const float* point = points + rows[i] * kPointFloats;
    float sums[kHalf];
    for (std::size_t l = 0; l < kHalf; ++l) sums[l] = point[l] * direction[l] + point[l + kHalf] * direction[l + kHalf];
    for (std::size_t l = 0; l < 8; ++l) sums[l] += sums[l + 8];
    for (std::size_t l = 0; l < 4; ++l) sums[l] += sums[l + 4];
    keys[i] = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
}

void moment(const double* a, std::size_t n, double* out) {
  for (std::size_t i = 0; i < kFeatures; ++i) {
    double sums[kFeatures] = {};
    for (std::size_t r = 0; r < n; ++r) {
      const double* row = a + r * kFeatures;
      for (std::size_t k = 0; k < kFeatures; ++k) sums[k] += row[i] * row[k];
    }
    for (std::size_t k = 0; k < kFeatures; ++k) out[i * kFeatures + k] += sums[k];
  }
}

// For kRows places; vectors are as wide as those of `Wide`, which the compiler knows the instructions for.
constexpr std::size_t kFloatLanes = 2 * Wide::kLanes, kFloatVectors = kTurnColumns / kFloatLanes;
using Floats [[gnu::vector_size(kFloatLanes * sizeof(float))]] = float;
using Numbers [[gnu::vector_size(kFloatLanes * sizeof(std::int32_t))]] = std::int32_t;

template <std::size_t kRows>
void nearest_of(const float* places, const float* panels, const float* halves, std::size_t count, std::int32_t* owners,
                float* nears) {
  Floats best[kRows][kFloatVectors];
  Numbers at[kRows][kFloatVectors];
  for (std::size_t r = 0; r < kRows; ++r)
    for (std::size_t v = 0; v < kFloatVectors; ++v) {
      best[r][v] = Floats{} - __builtin_inff();
      at[r][v] = Numbers{};
    }
  for (std::size_t panel = 0; panel < count; ++panel) {
    const float *centres = panels + panel * kFeatures * kTurnColumns, *half = halves + panel * kTurnColumns;
    Floats sums[kRows][kFloatVectors];
    for (std::size_t v = 0; v < kFloatVectors; ++v) {
      Floats start;
      __builtin_memcpy(&start, half + v * kFloatLanes, sizeof start);
      for (std::size_t r = 0; r < kRows; ++r) sums[r][v] = -start;
    }
    for (std::size_t j = 0; j < kFeatures; ++j)
      for (std::size_t v = 0; v < kFloatVectors; ++v) {
        Floats centre;
        __builtin_memcpy(&centre, centres + j * kTurnColumns + v * kFloatLanes, sizeof centre);
        for (std::size_t r = 0; r < kRows; ++r) sums[r][v] += centre * places[r * kFeatures + j];
      }
    for (std::size_t r = 0; r < kRows; ++r)
      for (std::size_t v = 0; v < kFloatVectors; ++v) {
        const Numbers better = sums[r][v] > best[r][v];
        best[r][v] = better ? sums[r][v] : best[r][v];
        at[r][v] = better ? Numbers{} + static_cast<std::int32_t>(panel) : at[r][v];
      }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    nears[r] = -__builtin_inff();
    for (std::size_t lane = 0; lane < kTurnColumns; ++lane) {
      const float near = best[r][lane / kFloatLanes][lane % kFloatLanes];
      const std::int32_t number =
          at[r][lane / kFloatLanes][lane % kFloatLanes] * static_cast<std::int32_t>(kTurnColumns) +
          static_cast<std::int32_t>(lane);
      if (near > nears[r] || (near == nears[r] && number < owners[r])) {
        nears[r] = near;
        owners[r] = number;
      }
    }
  }
}

void nearest(const float* places, std::size_t n, const float* panels, const float* halves, std::size_t count,
             std::int32_t* owners, float* nears) {
  constexpr std::size_t kRows = 8 / kFloatVectors;  // all sums stay in registers
  std::size_t row = 0;
  for (; row + kRows <= n; row += kRows)
    nearest_of<kRows>(places + row * kFeatures, panels, halves, count, owners + row, nears + row);
  for (; row < n; ++row) nearest_of<1>(places + row * kFeatures, panels, halves, count, owners + row, nears + row);
}

void square(const double* m, double* out) {
  for (std::size_t i = 0; i < kFeatures; ++i) {
    double sums[kFeatures] = {};
    for (std::size_t j = 0; j < kFeatures; ++j)
      for (std::size_t k = 0; k < kFeatures; ++k) sums[k] += m[i * kFeatures + j] * m[j * kFeatures + k];
    for (std::size_t k = 0; k < kFeatures; ++k) out[i * kFeatures + k] = sums[k];
  }
}

void fill_writing(Writing& writing) {
  writing = {peak,
             to_integers,
             to_fp8,
             to_fp16,
             magnitudes,
             try_odd,
             to_odd,
             scale_integers,
             scale_floats,
             fix_values<float>,
             fix_values<double>,
             peak_wide,
             add,
             sum_picked,
             dot,
             turn,
             turn_by_signs,
             to_levels,
             try_levels,
             coarse_sums,
             keys,
             moment,
             nearest,
             square};
}

}  // namespace

}  // namespace fllm::kernels

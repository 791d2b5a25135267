// The inner loops of writing a table. Their results have the same bits on every level: what is added up is integers
// below 2^53, and everything else is computed number by number with the roundings that the source shows. Plain data and
// plain pointers, as in kernels.hpp; fllm_export/table has the definitions, in NumPy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

inline constexpr std::size_t kTurnColumns = 16;  // columns of a matrix that turn() takes together: a panel
inline constexpr std::size_t kFeatures = 32;
inline constexpr std::size_t kPointFloats = kFeatures + 1;  // coordinates and the norm

inline constexpr std::size_t kLevelSteps = 5;  // of which a row's levels have one

// What a step's levels make of a row, all exact.
struct LevelSums {
  std::int64_t along;    // sum of value * full code
  std::int64_t squares;  // sum of full code^2
  std::int64_t coarse_squares;
};

// Some of many vectors: those at places[0..count).
struct Picked {
  const float* vectors;
  std::size_t stride;  // numbers from one vector to the next
  const std::int32_t* places;
  std::size_t count;
  std::size_t after;  // more places that can be read behind: those of the next sums, which may be prefetched
};

struct Writing {
  // ---- codecs
  // The bits of the largest magnitude of values[n]; they order as magnitudes do, and exceed 0x7f7fffff when a value is
  // not finite.
  std::uint32_t (*peak)(const float* values, std::size_t n);
  // The nearest codes of values / step. Integers are of at most `largest`, which is below 2^20.
  void (*to_integers)(const float* values, std::size_t n, float step, float largest, std::int8_t* codes);
  void (*to_fp8)(const float* values, std::size_t n, float step, std::uint8_t* codes);
  void (*to_fp16)(const float* values, std::size_t n, float step, std::uint16_t* codes);
  // fixed[i] = |values[i]| / unit to the nearest integer, at most 2^15; returns the sum of their squares.
  std::int64_t (*magnitudes)(const float* values, std::size_t n, double unit, std::int32_t* fixed);
  // The odd integers c nearest to fixed / (unit of the grid), factor being half of its reciprocal: sums of c * fixed
  // and of c * c.
  void (*try_odd)(const std::int32_t* fixed, std::size_t n, double factor, std::int32_t largest, std::int64_t* along,
                  std::int64_t* squares);
  // Levels (c + largest) / 2 of the odd integers c nearest to values / step.
  void (*to_odd)(const float* values, std::size_t n, float step, std::int32_t largest, std::uint8_t* levels);
  // values = numbers * scale, kept within float32's range.
  void (*scale_integers)(const std::int8_t* numbers, std::size_t n, float scale, float* values);
  void (*scale_floats)(float* values, std::size_t n, float scale);

  // ---- fixed point
  // fixed[i] = values[i] * factor to the nearest integer, at most 2^20; returns the sum of their squares.
  std::int64_t (*fix)(const float* values, std::size_t n, double factor, std::int32_t* fixed);
  std::int64_t (*fix_wide)(const double* values, std::size_t n, double factor, std::int32_t* fixed);
  double (*peak_wide)(const double* values, std::size_t n);
  void (*add)(const std::int32_t* fixed, std::size_t n, std::int64_t* sums);
  // out[n] = factor * the sum of the first n numbers of some vectors, added in float64 in their order and rounded once.
  void (*sum_picked)(const Picked& picked, std::size_t n, double factor, float* out);
  std::int64_t (*dot)(const std::int32_t* a, const std::int32_t* b, std::size_t n);
  // turned[r, c] = sum over j of fixed[r, j] * weights[c / 16, j, c % 16], for a number of columns that is a multiple
  // of kTurnColumns. `wide` has room for 8 * dim numbers.
  void (*turn)(const std::int32_t* fixed, std::size_t rows, std::size_t dim, const double* weights, std::size_t columns,
               double* wide, double* turned);

  // The same of a matrix step * H diag(signs), H being Hadamard's matrix [dim, dim] of 1 and -1 in Sylvester's order,
  // dim a power of two, signs 1 or -1.
  void (*turn_by_signs)(const std::int32_t* fixed, std::size_t rows, std::size_t dim, const std::int32_t* signs,
                        double step, double* wide, double* turned);

  // ---- the sketch
  // levels[i] = floor(values[i] * factor + 8) within 0..15; the sums of such levels for each of kLevelSteps factors.
  void (*to_levels)(const std::int32_t* values, std::size_t n, float factor, std::uint8_t* levels);
  void (*try_levels)(const std::int32_t* values, std::size_t n, const float* factors, LevelSums* sums);
  // Sums of value * coarse code and of coarse code^2.
  void (*coarse_sums)(const std::int32_t* values, const std::uint8_t* levels, std::size_t n, std::int64_t* along,
                      std::int64_t* squares);

  // ---- the order of rows
  // keys[i] = coordinates of point rows[i] times a direction [kFeatures]: products are added in halves, 16 + 16 first.
  void (*keys)(const float* points, const std::uint32_t* rows, std::size_t n, const float* direction, float* keys);
  // out[i, k] += sums of a[r, i] * a[r, k] over rows of integers [n, kFeatures] whose sums stay below 2^53.
  void (*moment)(const double* a, std::size_t n, double* out);
  // Of `panels` times kTurnColumns centres, panels [panels, kFeatures, kTurnColumns] of integers whose products
  // and sums are exact in float32: for each of n places [n, kFeatures] the first centre c with the largest place * c -
  // halves[c], and that number.
  void (*nearest)(const float* places, std::size_t n, const float* panels, const float* halves, std::size_t count,
                  std::int32_t* owners, float* nears);
  // out = m m for a symmetric matrix [kFeatures, kFeatures]; terms are added in the order of their index.
  void (*square)(const double* m, double* out);
};

}  // namespace fllm::kernels

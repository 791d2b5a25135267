#include "write/sketch_rows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <vector>

namespace fllm::writing {

namespace {

using kernels::kPlaneBytes;
using kernels::kPlaneDims;
using kernels::kPlaneRows;
using kernels::LevelSums;
using kernels::Writing;

constexpr double kSteps[kernels::kLevelSteps] = {0.27, 0.285, 0.30, 0.32, 0.45};
constexpr double kCoarseLimit = 6, kFullLimit = 64;
constexpr double kLargestNorm = 0x1p60, kNormSlack = 1e-9, kRowSlack = 0x1p-22;
constexpr std::uint16_t kLargestFactor = 0x7f7f;

std::uint16_t nearest_bfloat16(double number) {
  const auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(number));
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

double widen(std::uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
}

// The least bfloat16 not below a number, which is at least 0.
std::uint16_t bfloat16_above(double number) {
  const auto narrow = static_cast<float>(number);
  const float up = static_cast<double>(narrow) < number ? std::nextafter(narrow, HUGE_VALF) : narrow;
  const std::uint64_t bits = (std::uint64_t{std::bit_cast<std::uint32_t>(up)} + 0xffff) >> 16;
  return static_cast<std::uint16_t>(std::min<std::uint64_t>(bits, kLargestFactor));
}

// What is known of a row besides its codes; lengths of vectors, all rounding counted.
struct Lengths {
  double length, extra, outer;
};

struct Turned {
  double unit;
  std::int64_t squares;
};

Lengths lengths_of(const SketchBasis& basis, const Fixed& row, const Turned& turned) {
  const double row_lost = kRounding * std::sqrt(static_cast<double>(basis.dim)) * row.unit;
  const double norm = std::sqrt(static_cast<double>(row.squares)) * row.unit;
  const double length = norm + row_lost;
  const double lost =
      kRounding * std::sqrt(static_cast<double>(basis.sketch_dims)) * turned.unit + basis.snapped * length;
  const double extra = (1.01 * basis.defect + kRowSlack) * length + 1.01 * (lost + 1.002 * row_lost);
  const double inside = std::sqrt(static_cast<double>(turned.squares)) * turned.unit;
  const double outside =
      norm * norm - (1 - basis.defect) * (inside * inside) + 2 * lost * inside + kNormSlack * (length * length);
  return {length, extra, std::sqrt(std::max(outside, 0.0)) + row_lost};
}

// Fills in the levels of a row, and returns their sums.
LevelSums choose_levels(const Writing& kernels, const std::int32_t* values, std::size_t n, std::int64_t squares,
                        std::uint8_t* levels) {
  const double mean = std::max(std::sqrt(static_cast<double>(squares) / static_cast<double>(n)), 1.0);
  float factors[kernels::kLevelSteps];
  for (std::size_t s = 0; s < std::size(kSteps); ++s) factors[s] = static_cast<float>(1.0 / (kSteps[s] * mean));
  LevelSums sums[kernels::kLevelSteps];
  kernels.try_levels(values, n, factors, sums);
  double explained = -1;
  std::size_t best = 0;
  for (std::size_t s = 0; s < std::size(kSteps); ++s) {
    const bool is_short = static_cast<double>(sums[s].coarse_squares) <= kCoarseLimit * static_cast<double>(n) &&
                          static_cast<double>(sums[s].squares) <= kFullLimit * static_cast<double>(n);
    const auto along = static_cast<double>(sums[s].along);
    const double gain = along * along / static_cast<double>(sums[s].squares);
    if (!is_short || !(gain > explained)) continue;
    explained = gain;
    best = s;
  }
  if (explained >= 0) {
    kernels.to_levels(values, n, factors[best], levels);
    return sums[best];
  }
  LevelSums found{};
  for (std::size_t i = 0; i < n; ++i) {
    levels[i] = values[i] >= 0 ? 8 : 7;
    found.along += std::abs(values[i]);
  }
  found.squares = static_cast<std::int64_t>(n);
  return found;
}

// Scale, inner norm and, where there is a third part, outer norm of one row's codes.
void write_factors(double along, double squares, const Turned& turned, const Lengths& lengths, std::size_t parts,
                   std::uint16_t* factors) {
  const bool usable = lengths.length <= kLargestNorm;
  const std::uint16_t scale = nearest_bfloat16(usable ? std::max(along, 0.0) / squares * turned.unit : 0.0);
  const double chosen = widen(scale);
  const double residual = static_cast<double>(turned.squares) * (turned.unit * turned.unit) -
                          2 * chosen * (along * turned.unit) + chosen * chosen * squares;
  const double inner =
      std::sqrt(std::max(residual, 0.0) + kNormSlack * (lengths.length * lengths.length)) + lengths.extra;
  factors[0] = scale;
  factors[kPlaneRows] = usable ? bfloat16_above(inner) : kLargestFactor;
  if (parts == 3) factors[2 * kPlaneRows] = usable ? bfloat16_above(lengths.outer) : kLargestFactor;
}

// Puts the upper and the lower two bits of a row's levels into its lanes of a block, four dimensions at a time.
void place_levels(const std::uint8_t* levels, std::size_t groups, std::size_t row, std::uint8_t* coarse,
                  std::uint8_t* fine) {
  constexpr std::uint32_t kLowBits = 0x03030303;
  for (std::size_t g = 0; g < groups; ++g) {
    std::uint32_t parts[4], upper = 0, lower = 0;
    std::memcpy(parts, levels + g * kPlaneDims, sizeof parts);
    for (unsigned s = 0; s < 4; ++s) {
      upper |= ((parts[s] >> 2) & kLowBits) << (2 * s);
      lower |= (parts[s] & kLowBits) << (2 * s);
    }
    std::memcpy(coarse + g * kPlaneBytes + 4 * row, &upper, sizeof upper);
    std::memcpy(fine + g * kPlaneBytes + 4 * row, &lower, sizeof lower);
  }
}

struct Room {
  explicit Room(std::size_t n) : values(n), levels(n) {}
  std::vector<std::int32_t> values;
  std::vector<std::uint8_t> levels;
};

// One row of a block, whose memory begins at `out`.
void sketch_row(const Writing& kernels, const SketchBasis& basis, const Fixed& row, const double* turned,
                std::size_t number, const SketchOut& out, Room& room) {
  const std::size_t n = basis.sketch_dims;
  const double peak = kernels.peak_wide(turned, n), largest = limit(n);
  const std::int64_t squares = kernels.fix_wide(turned, n, largest / (peak > 0 ? peak : 1.0), room.values.data());
  const Turned facts{peak * row.unit / (largest * kWeight), squares};
  const Lengths lengths = lengths_of(basis, row, facts);
  const LevelSums full = choose_levels(kernels, room.values.data(), n, squares, room.levels.data());
  std::int64_t along = 0, coarse_squares = 0;
  kernels.coarse_sums(room.values.data(), room.levels.data(), n, &along, &coarse_squares);
  write_factors(static_cast<double>(along), static_cast<double>(coarse_squares), facts, lengths, basis.parts(),
                out.coarse_factors + number);
  write_factors(static_cast<double>(full.along), static_cast<double>(full.squares), facts, lengths, basis.parts(),
                out.fine_factors + number);
  place_levels(room.levels.data(), n / kPlaneDims, number, out.coarse, out.fine);
}

}  // namespace

void sketch_rows(const Writing& kernels, const SketchBasis& basis, const float* rows, std::size_t n,
                 const SketchOut& out) {
  const std::size_t code_bytes = basis.sketch_dims / kPlaneDims * kPlaneBytes, factors = basis.parts() * kPlaneRows;
  Turn turn(kernels, basis.weights, kPlaneRows, basis.dim);
  Room room(basis.sketch_dims);
  for (std::size_t at = 0; at < n; at += kPlaneRows) {
    const std::size_t block = at / kPlaneRows, count = std::min(kPlaneRows, n - at);
    const SketchOut here{out.coarse + block * code_bytes, out.fine + block * code_bytes,
                         out.coarse_factors + block * factors, out.fine_factors + block * factors};
    if (count < kPlaneRows) {
      for (std::uint8_t* codes : {here.coarse, here.fine}) std::memset(codes, 0, code_bytes);
      for (std::uint16_t* each : {here.coarse_factors, here.fine_factors}) std::fill_n(each, factors, std::uint16_t{0});
    }
    turn(rows + at * basis.dim, count);
    for (std::size_t r = 0; r < count; ++r) {
      sketch_row(kernels, basis, turn.facts[r], turn.turned.data() + r * basis.weights.columns(), r, here, room);
    }
  }
}

}  // namespace fllm::writing

#include "exact_rows.hpp"

#include <cmath>
#include <limits>

namespace fllm::tensorrt {

namespace {

double value_of(Codec codec, std::uint8_t code) {
  if (codec == Codec::int8) return static_cast<std::int8_t>(code);
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 128 ? -magnitude : magnitude;
}

}  // namespace

ExactRows::ExactRows(const cuda::Rows& table) : table_(table) {
  for (unsigned code = 0; code < values_.size(); ++code) {
    values_[code] = value_of(table.layout.codec, static_cast<std::uint8_t>(code));
  }
}

const Tile& ExactRows::tile_of(std::uint64_t row) const {
  const auto after = std::upper_bound(table_.tiles.begin(), table_.tiles.end(), row,
                                      [](std::uint64_t wanted, const Tile& tile) { return wanted < tile.first_row; });
  return *(after - 1);
}

Candidate ExactRows::score(std::uint64_t row, const WholeItem& item) const { return score(tile_of(row), row, item); }

// All products are multiples of 2^-9 below 2^44: the sum is exact in whatever order.
Candidate ExactRows::score(const Tile& tile, std::uint64_t row, const WholeItem& item) const {
  const std::uint64_t place = row - tile.first_row;
  const std::uint8_t* const codes = tile.codes + place * table_.layout.dim;
  double sum = 0;
  for (std::size_t j = 0; j < table_.layout.dim; ++j) sum += values_[codes[j]] * item.whole[j];
  const double scaled = sum * (static_cast<double>(tile.scales[place]) * item.scale);
  const double bias = tile.bias == nullptr ? 0.0 : static_cast<double>(tile.bias[place]);
  const auto score = static_cast<float>(scaled + bias);
  return {score, score, tile.ids[place]};
}

}  // namespace fllm::tensorrt

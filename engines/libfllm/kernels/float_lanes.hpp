// Decoding and float32 sums over sixteen lanes.
//
// A codec is a type with kBits, the bits of one value; kGrouped, whether multipliers stand beside the codes; and load,
// which reads sixteen values. Rows start at any byte.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kPad = 16;
constexpr std::size_t kGroupDims = 32;
constexpr std::size_t kAhead = 1536;  // bytes that decoding asks for in advance
constexpr float kSmallestNormal = 0x1p-126f;

// ---- decoding

// At least the square root of `squares`, a float32 sum of the squares of `dim` values in any order.
inline float norm_above(float squares, std::size_t dim) {
  return __builtin_sqrtf(squares) * (1.0f + static_cast<float>(dim + 8) * 0x1p-24f);
}

// The same from the values, in double: for float32 values whose squares overflow or vanish. A norm beyond float32 is
// +infinity: every pair of such a row is a hit and scored exactly.
inline float wide_norm_above(const float* values, std::size_t dim) {
  double squares = 0;
  for (std::size_t j = 0; j < dim; ++j) squares += static_cast<double>(values[j]) * static_cast<double>(values[j]);
  const float norm = static_cast<float>(__builtin_sqrt(squares) * (1 + 0x1p-20));
  return squares > 0 && norm < kSmallestNormal ? kSmallestNormal : norm;
}

// Sixteen values at `p`, of which the codes' end may cut off some.
template <class V, class Codec>
inline typename V::Float load_before(const std::uint8_t* p, const std::uint8_t* end, typename V::Float multiplier) {
  constexpr std::size_t kBytes = kPad * Codec::kBits / 8;
  const auto left = static_cast<std::size_t>(end - p);
  if (left >= kBytes) return Codec::load(p, multiplier);
  std::uint8_t copy[kBytes] = {};
  for (std::size_t i = 0; i < left; ++i) copy[i] = p[i];
  return Codec::load(copy, multiplier);
}

// Decodes one row, whose codes may reach up to `end`, and returns a float32 sum of the values' squares.
template <class V, class Codec>
inline float decode_row(const std::uint8_t* row, const std::uint8_t* end, const std::uint8_t* groups, std::size_t dim,
                        float* values) {
  const auto multiplier = [groups](std::size_t j) {
    return V::broadcast(Codec::kGrouped ? static_cast<float>(groups[j / kGroupDims]) : 1.0f);
  };
  auto squares = V::zero(), more_squares = V::zero();
  std::size_t j = 0;
  for (; j + kGroupDims <= dim; j += kGroupDims) {
    const auto group = multiplier(j);
    const auto first = Codec::load(row + j * Codec::kBits / 8, group);
    const auto second = Codec::load(row + (j + kPad) * Codec::kBits / 8, group);
    V::store(values + j, first);
    V::store(values + j + kPad, second);
    squares = V::fma(first, first, squares);
    more_squares = V::fma(second, second, more_squares);
  }
  for (; j < dim; j += kPad) {
    auto lanes = load_before<V, Codec>(row + j * Codec::kBits / 8, end, multiplier(j));
    if (dim - j < kPad) lanes = V::first(lanes, dim - j);
    V::store(values + j, lanes);
    squares = V::fma(lanes, lanes, squares);
  }
  return V::sum(V::add(squares, more_squares));
}

template <class V, class Codec>
void decode(const void* codes, const std::uint8_t* groups, std::size_t rows, std::size_t dim, float* values,
            float* norms) {
  const std::size_t row_bytes = (dim * Codec::kBits + 7) / 8, padded_dim = (dim + kPad - 1) / kPad * kPad;
  const auto* row = static_cast<const std::uint8_t*>(codes);
  const std::uint8_t* const end = row + rows * row_bytes;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t ahead = 0; ahead < row_bytes; ahead += kAlign) __builtin_prefetch(row + kAhead + ahead);
    const float squares = decode_row<V, Codec>(row, end, groups, dim, values);
    const bool sound = Codec::kBits < 32 || (squares > 0x1p-80f && squares < 0x1p127f);
    norms[r] = sound ? norm_above(squares, dim) : wide_norm_above(values, dim);
    row += row_bytes;
    if (Codec::kGrouped) groups += (dim + kGroupDims - 1) / kGroupDims;
    values += padded_dim;
  }
}

// ---- sums

template <class V>
void float_one(const float* values, std::size_t rows, std::size_t padded_dim, const float* query, float* sums) {
  constexpr std::size_t kRows = V::kDotRows;
  std::size_t r = 0;
  for (; r + kRows <= rows; r += kRows, values += kRows * padded_dim) {
    typename V::Float lanes[kRows];
#pragma GCC unroll 8
    for (std::size_t k = 0; k < kRows; ++k) lanes[k] = V::zero();
    for (std::size_t j = 0; j < padded_dim; j += kPad) {
      const auto part = V::load(query + j);
#pragma GCC unroll 8
      for (std::size_t k = 0; k < kRows; ++k) lanes[k] = V::fma(V::load(values + k * padded_dim + j), part, lanes[k]);
    }
    V::store_sums(lanes, sums + r);
  }
  for (; r < rows; ++r, values += padded_dim) {
    auto lanes = V::zero();
    for (std::size_t j = 0; j < padded_dim; j += kPad) lanes = V::fma(V::load(values + j), V::load(query + j), lanes);
    sums[r] = V::sum(lanes);
  }
}

// The sums of R rows with G groups of items, kept in registers.
template <class V, std::size_t R, std::size_t G>
inline void float_tile(const float* values, std::size_t padded_dim, std::size_t items, const float* packed,
                       float* sums) {
  typename V::Float lanes[R][G];
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (std::size_t g = 0; g < G; ++g) lanes[r][g] = V::zero();
  for (std::size_t j = 0; j < padded_dim; ++j, packed += items) {
    typename V::Float columns[G];
#pragma GCC unroll 4
    for (std::size_t g = 0; g < G; ++g) columns[g] = V::load(packed + g * kItemLanes);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < R; ++r) {
      const auto value = V::broadcast(values[r * padded_dim + j]);
#pragma GCC unroll 4
      for (std::size_t g = 0; g < G; ++g) lanes[r][g] = V::fma(value, columns[g], lanes[r][g]);
    }
  }
#pragma GCC unroll 8
  for (std::size_t r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (std::size_t g = 0; g < G; ++g) V::store(sums + r * items + g * kItemLanes, lanes[r][g]);
}

// G groups of items from `item` on, all rows.
template <class V, std::size_t G>
void float_columns(const float* values, std::size_t rows, std::size_t padded_dim, std::size_t items,
                   const float* packed, float* sums) {
  constexpr std::size_t kRows = V::kTileRows;
  std::size_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    float_tile<V, kRows, G>(values + r * padded_dim, padded_dim, items, packed, sums + r * items);
  for (; r < rows; ++r) float_tile<V, 1, G>(values + r * padded_dim, padded_dim, items, packed, sums + r * items);
}

template <class V>
void float_many(const float* values, std::size_t rows, std::size_t padded_dim, std::size_t items, const float* packed,
                float* sums) {
  constexpr std::size_t kGroups = V::kTileGroups;
  std::size_t item = 0;
  for (; item + kGroups * kItemLanes <= items; item += kGroups * kItemLanes)
    float_columns<V, kGroups>(values, rows, padded_dim, items, packed + item, sums + item);
  for (; item < items; item += kItemLanes)
    float_columns<V, 1>(values, rows, padded_dim, items, packed + item, sums + item);
}

template <class V>
void fill_sums(Kernels& kernels) {
  kernels.float_one = float_one<V>;
  kernels.float_many = float_many<V>;
}

}  // namespace

}  // namespace fllm::kernels

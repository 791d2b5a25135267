// How query limbs are packed for the int8 kernels: alike on every level, so that one packing serves them all.
//
// One item: an offset line, then the limb, padded with zeros to whole lines of 64 bytes.
// Many items: for each group of 16 items an offset line, then its quads [padded dim / 4, 16 items, 4 bytes]. A quad is
// what a dot-product instruction takes at once for one item; the padding is zeros.
// An offset line holds 16 int32 numbers, -128 * (sum of the limb) of its 16 items, or 16 times that of the one item.
// It is where the sums of x86 start: their instructions multiply unsigned by signed bytes, so the codes are read as
// code + 128, in 0 .. 255. Two such products and their sum, at most 2 * 255 * 64, fit an int16 number.
//
// All functions have internal linkage: each file keeps the code that its own instruction set gave them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.hpp"

namespace fllm::kernels {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kQuad = 4;

inline std::size_t padded_dim(std::size_t dim) { return (dim + kLine - 1) / kLine * kLine; }

inline std::size_t one_item_bytes(std::size_t dim) { return kLine + padded_dim(dim); }

inline std::size_t group_bytes(std::size_t dim) { return kLine + kItemLanes * padded_dim(dim); }

inline const std::int8_t* limb_of(const void* packed) { return static_cast<const std::int8_t*>(packed) + kLine; }

// The sum of one item's limb, which its offset line holds times -128.
inline std::int32_t limb_sum(const void* packed) { return *static_cast<const std::int32_t*>(packed) / -128; }

inline const std::int8_t* group_of(const void* packed, std::size_t dim, std::size_t group) {
  return static_cast<const std::int8_t*>(packed) + group * group_bytes(dim);
}

// Kernels::int8_many by tiles: the sums of four rows, or of one, with a group of items.
using SumTile = void(const std::int8_t* codes, std::size_t dim, std::size_t items, const std::int8_t* packed,
                     std::int32_t* sums);

template <SumTile* kFour, SumTile* kOne>
void many_of_limb(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const void* packed,
                  std::int32_t* sums) {
  for (std::size_t g = 0; g < items / kItemLanes; ++g) {
    const std::int8_t* group = group_of(packed, dim, g);
    std::int32_t* out = sums + g * kItemLanes;
    std::size_t r = 0;
    for (; r + 4 <= rows; r += 4) kFour(codes + r * dim, dim, items, group, out + r * items);
    for (; r < rows; ++r) kOne(codes + r * dim, dim, items, group, out + r * items);
  }
}

template <SumTile* kFour, SumTile* kOne>
void many_by_tiles(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items,
                   const void* packed_high, const void* packed_low, std::int32_t* high, std::int32_t* low) {
  many_of_limb<kFour, kOne>(codes, rows, dim, items, packed_high, high);
  if (packed_low != nullptr) many_of_limb<kFour, kOne>(codes, rows, dim, items, packed_low, low);
}

}  // namespace
}  // namespace fllm::kernels

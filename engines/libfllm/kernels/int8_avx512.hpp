// The int8 kernels of 512-bit registers; the two files that include this differ in how four products are summed.
//
// Step::add(sums, codes, limb) adds to each int32 lane the four products of its unsigned codes with its signed bytes.
// All code here has internal linkage: each of the two files is compiled with its own flags.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {
namespace {

// How far ahead of a row its successors are asked for: the hardware's prefetchers stop at each page of 4 KiB.
constexpr std::uintptr_t kAhead = 2048;

inline void prefetch(const std::int8_t* codes) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(codes) + kAhead), _MM_HINT_T0);
}

inline __m512i unsigned_codes(__m512i codes) { return _mm512_xor_si512(codes, _mm512_set1_epi8(-128)); }

struct Sums {
  __m512i high, low;
};

// The two limbs of one item, in lines of 64 bytes.
struct Limbs {
  const std::int8_t* high;
  const std::int8_t* low;

  template <class Step>
  void add(Sums& sums, __m512i codes, std::size_t j) const {
    const __m512i shifted = unsigned_codes(codes);
    sums.high = Step::add(sums.high, shifted, _mm512_load_si512(high + j));
    sums.low = Step::add(sums.low, shifted, _mm512_load_si512(low + j));
  }
};

template <class Step>
inline Sums row_sums(const std::int8_t* row, std::size_t dim, const Limbs& limbs) {
  Sums sums{_mm512_setzero_si512(), _mm512_setzero_si512()};
  std::size_t j = 0;
  for (; j + kLine <= dim; j += kLine) {
    prefetch(row + j);
    limbs.add<Step>(sums, _mm512_loadu_si512(row + j), j);
  }
  if (j < dim) {
    prefetch(row + j);
    limbs.add<Step>(sums, _mm512_maskz_loadu_epi8(~std::uint64_t{0} >> (kLine - (dim - j)), row + j), j);
  }
  return sums;
}

// Lane by lane of 128 bits: the four totals of a, b, c and d.
inline __m512i lane_totals(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

// Adds the even and the odd 128-bit lanes of a and of b.
inline __m512i lane_pairs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// The 16 totals of four times four rows that lane_totals has added up.
inline __m512i totals(__m512i a, __m512i b, __m512i c, __m512i d) {
  return lane_pairs(lane_pairs(a, b), lane_pairs(c, d));
}

// Sums of four rows, not yet added up over the lanes of 128 bits.
template <class Step>
inline Sums four_rows(const std::int8_t* codes, std::size_t dim, const Limbs& limbs) {
  Sums rows[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) rows[r] = row_sums<Step>(codes + r * dim, dim, limbs);
  return {lane_totals(rows[0].high, rows[1].high, rows[2].high, rows[3].high),
          lane_totals(rows[0].low, rows[1].low, rows[2].low, rows[3].low)};
}

template <class Step>
void one(const std::int8_t* codes, std::size_t rows, std::size_t dim, const void* packed_high, const void* packed_low,
         std::int32_t* high, std::int32_t* low) {
  const Limbs limbs{limb_of(packed_high), limb_of(packed_low)};
  const __m512i high_offset = _mm512_load_si512(packed_high);
  const __m512i low_offset = _mm512_load_si512(packed_low);
  std::size_t r = 0;
  for (; r + 16 <= rows; r += 16) {
    Sums fours[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) fours[k] = four_rows<Step>(codes + (r + 4 * k) * dim, dim, limbs);
    _mm512_storeu_si512(
        high + r, _mm512_add_epi32(high_offset, totals(fours[0].high, fours[1].high, fours[2].high, fours[3].high)));
    _mm512_storeu_si512(low + r,
                        _mm512_add_epi32(low_offset, totals(fours[0].low, fours[1].low, fours[2].low, fours[3].low)));
  }
  for (; r < rows; ++r) {
    const Sums sums = row_sums<Step>(codes + r * dim, dim, limbs);
    high[r] = _mm512_reduce_add_epi32(sums.high) + _mm512_cvtsi512_si32(high_offset);
    low[r] = _mm512_reduce_add_epi32(sums.low) + _mm512_cvtsi512_si32(low_offset);
  }
}

// One code of a row in each byte of a lane; n < 4 codes where the row ends, which the packed zeros make harmless.
inline __m512i broadcast(const std::int8_t* row, std::size_t n) {
  std::int32_t codes = 0;
  __builtin_memcpy(&codes, row, n);
  return unsigned_codes(_mm512_set1_epi32(codes));
}

template <int Rows, int Groups>
using Tile = __m512i[Rows][Groups];

// Adds the products of n codes of each row, n <= 4, with the quads of each group.
template <class Step, int Rows, int Groups>
inline void add_quads(Tile<Rows, Groups>& sums, const std::int8_t* codes, std::size_t dim, std::size_t n,
                      const std::int8_t* quads) {
  __m512i limbs[Groups];
#pragma GCC unroll 4
  for (int g = 0; g < Groups; ++g) limbs[g] = _mm512_load_si512(quads + g * group_bytes(dim));
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    const __m512i row = broadcast(codes + r * dim, n);
#pragma GCC unroll 4
    for (int g = 0; g < Groups; ++g) sums[r][g] = Step::add(sums[r][g], row, limbs[g]);
  }
}

// The sums of `Rows` rows with `Groups` groups of items, all held in registers.
template <class Step, int Rows, int Groups>
void tile(const std::int8_t* codes, std::size_t dim, std::size_t items, const std::int8_t* packed, std::int32_t* out) {
  Tile<Rows, Groups> sums;
#pragma GCC unroll 4
  for (int g = 0; g < Groups; ++g) {
    const __m512i offsets = _mm512_load_si512(packed + g * group_bytes(dim));
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) sums[r][g] = offsets;
  }
  const std::int8_t* quads = packed + kLine;
  std::size_t left = dim;
  for (; left >= kQuad; left -= kQuad, codes += kQuad, quads += kLine) {
    add_quads<Step, Rows, Groups>(sums, codes, dim, kQuad, quads);
  }
  if (left > 0) add_quads<Step, Rows, Groups>(sums, codes, dim, left, quads);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int g = 0; g < Groups; ++g) _mm512_storeu_si512(out + r * items + g * kItemLanes, sums[r][g]);
  }
}

// Sixteen sums are enough in flight to hide the latency, and leave no row of a whole block over. Taller tiles take
// fewer loads, but the rows that they leave over cost more.
template <class Step, int Groups>
void columns(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const std::int8_t* packed,
             std::int32_t* out) {
  constexpr int kTall = Groups == 4 ? 4 : 8;
  std::size_t r = 0;
  for (; r + kTall <= rows; r += kTall) {
    tile<Step, kTall, Groups>(codes + r * dim, dim, items, packed, out + r * items);
  }
  for (; r + 2 <= rows; r += 2) tile<Step, 2, Groups>(codes + r * dim, dim, items, packed, out + r * items);
  if (r < rows) tile<Step, 1, Groups>(codes + r * dim, dim, items, packed, out + r * items);
}

template <class Step>
void many_of_limb(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const void* packed,
                  std::int32_t* sums) {
  const std::size_t groups = items / kItemLanes;
  std::size_t g = 0;
  for (; g + 4 <= groups; g += 4) {
    columns<Step, 4>(codes, rows, dim, items, group_of(packed, dim, g), sums + g * kItemLanes);
  }
  for (; g + 2 <= groups; g += 2) {
    columns<Step, 2>(codes, rows, dim, items, group_of(packed, dim, g), sums + g * kItemLanes);
  }
  if (g < groups) columns<Step, 1>(codes, rows, dim, items, group_of(packed, dim, g), sums + g * kItemLanes);
}

template <class Step>
void many(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items, const void* packed_high,
          const void* packed_low, std::int32_t* high, std::int32_t* low) {
  many_of_limb<Step>(codes, rows, dim, items, packed_high, high);
  if (packed_low != nullptr) many_of_limb<Step>(codes, rows, dim, items, packed_low, low);
}

}  // namespace
}  // namespace fllm::kernels

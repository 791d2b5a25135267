// The int8 kernels of NEON with its dot-product instructions, which multiply signed by signed: no offset is needed.
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kVector = 16;
constexpr std::size_t kLanes = 4;

// How far ahead of a row its successors are asked for: the hardware's prefetchers stop at each page of 4 KiB.
constexpr std::uintptr_t kAhead = 2048;

inline void prefetch(const std::int8_t* codes) {
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(codes) + kAhead));
}

// The last n codes of a row, n < 16, and zeros.
inline int8x16_t load_last(const std::int8_t* codes, std::size_t n) {
  std::int8_t last[kVector] = {};
  __builtin_memcpy(last, codes, n);
  return vld1q_s8(last);
}

struct Limbs {
  const std::int8_t* high;
  const std::int8_t* low;
};

template <int Rows>
struct Sums {
  int32x4_t high[Rows];
  int32x4_t low[Rows];
};

template <int Rows>
inline void add_products(Sums<Rows>& sums, const int8x16_t (&codes)[Rows], const Limbs& limbs, std::size_t j) {
  const int8x16_t high = vld1q_s8(limbs.high + j);
  const int8x16_t low = vld1q_s8(limbs.low + j);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    sums.high[r] = vdotq_s32(sums.high[r], codes[r], high);
    sums.low[r] = vdotq_s32(sums.low[r], codes[r], low);
  }
}

// Rows side by side, so that the latency of one row's sums is hidden by the others.
template <int Rows>
inline Sums<Rows> row_sums(const std::int8_t* row, std::size_t dim, const Limbs& limbs) {
  Sums<Rows> sums;
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) sums.high[r] = sums.low[r] = vdupq_n_s32(0);
  int8x16_t codes[Rows];
  std::size_t j = 0;
  for (; j + kVector <= dim; j += kVector) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      prefetch(row + r * dim + j);
      codes[r] = vld1q_s8(row + r * dim + j);
    }
    add_products(sums, codes, limbs, j);
  }
  if (j < dim) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) codes[r] = load_last(row + r * dim + j, dim - j);
    add_products(sums, codes, limbs, j);
  }
  return sums;
}

inline int32x4_t totals(const int32x4_t (&rows)[4]) {
  return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}

void one(const std::int8_t* codes, std::size_t rows, std::size_t dim, const void* packed_high, const void* packed_low,
         std::int32_t* high, std::int32_t* low) {
  const Limbs limbs{limb_of(packed_high), limb_of(packed_low)};
  std::size_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const Sums<4> sums = row_sums<4>(codes + r * dim, dim, limbs);
    vst1q_s32(high + r, totals(sums.high));
    vst1q_s32(low + r, totals(sums.low));
  }
  for (; r < rows; ++r) {
    const Sums<1> sums = row_sums<1>(codes + r * dim, dim, limbs);
    high[r] = vaddvq_s32(sums.high[0]);
    low[r] = vaddvq_s32(sums.low[0]);
  }
}

// The sums of some rows with a group of items.
template <int Rows>
using Tile = int32x4_t[Rows][kItemLanes / kLanes];

// Adds the products of the codes 4 * Quad to 4 * Quad + 3 of each vector with their quads.
template <int Quad, int Rows>
inline void add_quad(Tile<Rows>& sums, const int8x16_t (&codes)[Rows], const std::int8_t* quads) {
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    const int8x16_t limbs = vld1q_s8(quads + Quad * kLine + v * kVector);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) sums[r][v] = vdotq_laneq_s32(sums[r][v], limbs, codes[r], Quad);
  }
}

template <int Rows>
inline void add_quads(Tile<Rows>& sums, const int8x16_t (&codes)[Rows], const std::int8_t* quads) {
  add_quad<0, Rows>(sums, codes, quads);
  add_quad<1, Rows>(sums, codes, quads);
  add_quad<2, Rows>(sums, codes, quads);
  add_quad<3, Rows>(sums, codes, quads);
}

template <int Rows>
void tile(const std::int8_t* row, std::size_t dim, std::size_t items, const std::int8_t* packed, std::int32_t* out) {
  Tile<Rows> sums;
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sums[r][v] = vdupq_n_s32(0);
  }
  int8x16_t codes[Rows];
  const std::int8_t* quads = packed + kLine;
  std::size_t j = 0;
  for (; j + kVector <= dim; j += kVector) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) codes[r] = vld1q_s8(row + r * dim + j);
    add_quads<Rows>(sums, codes, quads + j * kItemLanes);
  }
  if (j < dim) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) codes[r] = load_last(row + r * dim + j, dim - j);
    add_quads<Rows>(sums, codes, quads + j * kItemLanes);
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) vst1q_s32(out + r * items + v * kLanes, sums[r][v]);
  }
}

}  // namespace

void fill_int8_neon(Kernels& kernels) {
  kernels.int8_one = one;
  kernels.int8_many = many_by_tiles<tile<4>, tile<1>>;
}

}  // namespace fllm::kernels

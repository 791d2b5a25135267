// The int8 kernels of AVX2.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kVector = 32;
constexpr std::size_t kLanes = 8;

// How far ahead of a row its successors are asked for: the hardware's prefetchers stop at each page of 4 KiB.
constexpr std::uintptr_t kAhead = 2048;

void prefetch(const std::int8_t* codes) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(codes) + kAhead), _MM_HINT_T0);
}

__m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
__m256i load_unaligned(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
void store(std::int32_t* p, __m256i values) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), values); }

__m256i unsigned_codes(__m256i codes) { return _mm256_xor_si256(codes, _mm256_set1_epi8(-128)); }

// Adds to each int32 lane the four products of its unsigned codes with its signed bytes.
__m256i add_products(__m256i sums, __m256i codes, __m256i limb) {
  const __m256i pairs = _mm256_maddubs_epi16(codes, limb);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

struct Sums {
  __m256i high, low;
};

// The two limbs of one item, in lines of 64 bytes.
struct Limbs {
  const std::int8_t* high;
  const std::int8_t* low;

  void add(Sums& sums, __m256i codes, std::size_t j) const {
    const __m256i shifted = unsigned_codes(codes);
    sums.high = add_products(sums.high, shifted, load(high + j));
    sums.low = add_products(sums.low, shifted, load(low + j));
  }
};

// `end` is where the codes of the block end: up to there a row's last vector may read its neighbour's codes, which
// the limbs' padding multiplies by zero.
Sums row_sums(const std::int8_t* row, std::size_t dim, const std::int8_t* end, const Limbs& limbs) {
  Sums sums{_mm256_setzero_si256(), _mm256_setzero_si256()};
  std::size_t j = 0;
  for (; j + kVector <= dim; j += kVector) {
    prefetch(row + j);
    limbs.add(sums, load_unaligned(row + j), j);
  }
  if (j == dim) return sums;
  if (static_cast<std::size_t>(end - row) >= j + kVector) {
    limbs.add(sums, load_unaligned(row + j), j);
  } else {
    alignas(kVector) std::int8_t last[kVector] = {};
    __builtin_memcpy(last, row + j, dim - j);
    limbs.add(sums, load(last), j);
  }
  return sums;
}

// Lane by lane of 128 bits: the four totals of a, b, c and d.
__m256i lane_totals(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
  return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

// The eight totals of twice four rows that lane_totals has added up.
__m256i totals(__m256i a, __m256i b) {
  return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

Sums four_rows(const std::int8_t* codes, std::size_t dim, const std::int8_t* end, const Limbs& limbs) {
  Sums rows[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) rows[r] = row_sums(codes + r * dim, dim, end, limbs);
  return {lane_totals(rows[0].high, rows[1].high, rows[2].high, rows[3].high),
          lane_totals(rows[0].low, rows[1].low, rows[2].low, rows[3].low)};
}

std::int32_t total(__m256i sums) {
  const __m256i lanes = lane_totals(sums, sums, sums, sums);
  return _mm_cvtsi128_si32(_mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1)));
}

void one(const std::int8_t* codes, std::size_t rows, std::size_t dim, const void* packed_high, const void* packed_low,
         std::int32_t* high, std::int32_t* low) {
  const Limbs limbs{limb_of(packed_high), limb_of(packed_low)};
  const std::int8_t* end = codes + rows * dim;
  const __m256i high_offset = load(packed_high);
  const __m256i low_offset = load(packed_low);
  std::size_t r = 0;
  for (; r + kLanes <= rows; r += kLanes) {
    const Sums first = four_rows(codes + r * dim, dim, end, limbs);
    const Sums second = four_rows(codes + (r + 4) * dim, dim, end, limbs);
    store(high + r, _mm256_add_epi32(totals(first.high, second.high), high_offset));
    store(low + r, _mm256_add_epi32(totals(first.low, second.low), low_offset));
  }
  for (; r < rows; ++r) {
    const Sums sums = row_sums(codes + r * dim, dim, end, limbs);
    high[r] = total(sums.high) + _mm256_cvtsi256_si32(high_offset);
    low[r] = total(sums.low) + _mm256_cvtsi256_si32(low_offset);
  }
}

// One code of a row in each byte of a lane; n < 4 codes where the row ends, which the packed zeros make harmless.
__m256i broadcast(const std::int8_t* row, std::size_t n) {
  std::int32_t codes = 0;
  __builtin_memcpy(&codes, row, n);
  return unsigned_codes(_mm256_set1_epi32(codes));
}

// Adds the products of n codes of each row, n <= 4, with the quads of a group.
template <int Rows>
inline void add_quads(__m256i (&sums)[Rows][2], const std::int8_t* codes, std::size_t dim, std::size_t n,
                      const std::int8_t* quads) {
  const __m256i first = load(quads);
  const __m256i second = load(quads + kVector);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    const __m256i row = broadcast(codes + r * dim, n);
    sums[r][0] = add_products(sums[r][0], row, first);
    sums[r][1] = add_products(sums[r][1], row, second);
  }
}

// The sums of `Rows` rows with a group of items, all held in registers.
template <int Rows>
void tile(const std::int8_t* codes, std::size_t dim, std::size_t items, const std::int8_t* packed, std::int32_t* out) {
  __m256i sums[Rows][2];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    sums[r][0] = load(packed);
    sums[r][1] = load(packed + kVector);
  }
  const std::int8_t* quads = packed + kLine;
  std::size_t left = dim;
  for (; left >= kQuad; left -= kQuad, codes += kQuad, quads += kLine) add_quads(sums, codes, dim, kQuad, quads);
  if (left > 0) add_quads(sums, codes, dim, left, quads);
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    store(out + r * items, sums[r][0]);
    store(out + r * items + kLanes, sums[r][1]);
  }
}

}  // namespace

void fill_int8_avx2(Kernels& kernels) {
  kernels.int8_one = one;
  kernels.int8_many = many_by_tiles<tile<4>, tile<1>>;
}

}  // namespace fllm::kernels

// The kernels of rows in bit planes of AVX-512 without its dot-product instructions.
#include "kernels/kernels.hpp"
#include "kernels/planes_one_avx512.hpp"

namespace fllm::kernels {

namespace {

// Adds to the levels of 16 dimensions of a block's rows, four dimensions a vector, the bits that `mask` selects.
inline void add_levels(__m512i bits, char mask, __m512i (&dims)[4]) {
  const __m512i low_bits = _mm512_set1_epi8(mask);
#pragma GCC unroll 4
  for (int s = 0; s < 4; ++s) {
    const __m512i two = _mm512_and_si512(_mm512_srli_epi16(bits, 2 * s), low_bits);
    dims[s] = _mm512_add_epi8(_mm512_slli_epi16(dims[s], 2), two);
  }
}

// The values of 16 dimensions of 16 rows, four dimensions a vector, written row by row.
inline void write_rows(const __m512i (&dims)[4], std::size_t stride, std::int8_t* values) {
  const __m512i first_low = _mm512_unpacklo_epi32(dims[0], dims[1]),
                first_high = _mm512_unpackhi_epi32(dims[0], dims[1]);
  const __m512i last_low = _mm512_unpacklo_epi32(dims[2], dims[3]), last_high = _mm512_unpackhi_epi32(dims[2], dims[3]);
  // Each holds every fourth row.
  const __m512i rows[4] = {_mm512_unpacklo_epi64(first_low, last_low), _mm512_unpackhi_epi64(first_low, last_low),
                           _mm512_unpacklo_epi64(first_high, last_high), _mm512_unpackhi_epi64(first_high, last_high)};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const auto at = [&](int fourth) { return reinterpret_cast<__m128i*>(values + (4 * fourth + r) * stride); };
    _mm_storeu_si128(at(0), _mm512_castsi512_si128(rows[r]));
    _mm_storeu_si128(at(1), _mm512_extracti32x4_epi32(rows[r], 1));
    _mm_storeu_si128(at(2), _mm512_extracti32x4_epi32(rows[r], 2));
    _mm_storeu_si128(at(3), _mm512_extracti32x4_epi32(rows[r], 3));
  }
}

void unpack(const PlaneBlocks& blocks, std::int8_t* values) {
  const std::size_t dims = blocks.groups * kPlaneDims;
  const __m512i largest = _mm512_set1_epi8(static_cast<char>(largest_value(blocks.bits)));
  for (std::size_t b = 0; b < blocks.count; ++b) {
    for (std::size_t g = 0; g < blocks.groups; ++g) {
      __m512i levels[4] = {};
      const std::uint8_t* packed = block_of(blocks, b) + (blocks.bits == 1 ? g / 2 : g) * kPlaneBytes;
      const __m512i bits = _mm512_loadu_si512(packed);
      if (blocks.bits == 1) {
        add_levels(g % 2 == 1 ? _mm512_srli_epi16(bits, 1) : bits, 1, levels);
      } else {
        add_levels(bits, 3, levels);
      }
      if (blocks.bits == 4) add_levels(_mm512_loadu_si512(packed + plane_bytes(blocks)), 3, levels);
      for (__m512i& each : levels) each = _mm512_sub_epi8(_mm512_add_epi8(each, each), largest);
      write_rows(levels, dims, values + b * kPlaneRows * dims + g * kPlaneDims);
    }
  }
}

}  // namespace

void fill_planes_avx512(Kernels& kernels) {
  kernels.planes_one = one_of<MultiplyAdd>;
  kernels.planes_unpack = unpack;
}

}  // namespace fllm::kernels

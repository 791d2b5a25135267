// The kernels of rows in bit planes of AVX2.
#include "kernels/planes_avx2.hpp"
#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

// How far ahead of a block its successors are asked for: the hardware's prefetchers stop at each page of 4 KiB.
constexpr std::uintptr_t kAhead = 2048;

void prefetch(const std::uint8_t* block, std::size_t bytes) {
  const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(block) + kAhead;
  for (std::size_t at = 0; at < bytes; at += kPlaneBytes) {
    _mm_prefetch(reinterpret_cast<const char*>(from + at), _MM_HINT_T0);
  }
}

void store(std::int32_t* p, __m256i values) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), values); }

void one(const PlaneBlocks& blocks, const void* packed_high, const void* packed_low, std::int32_t* high,
         std::int32_t* low) {
  const std::int8_t* const limbs[2] = {limb_of(packed_high), limb_of(packed_low)};
  std::int32_t* const out[2] = {high, low};
  const std::int32_t largest = largest_value(blocks.bits);
  const __m256i offsets[2] = {_mm256_set1_epi32(largest * limb_sum(packed_high)),
                              _mm256_set1_epi32(largest * limb_sum(packed_low))};
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = block_of(blocks, b);
    prefetch(block, block_bytes(blocks));
    __m256i sums[2][2], lower[2][2];
    if (blocks.bits == 1) {
      plane_sums<2, true>(block, blocks.groups, limbs, sums);
    } else {
      plane_sums<2>(block, blocks.groups, limbs, sums);
    }
    if (blocks.bits == 4) {
      plane_sums<2>(block + plane_bytes(blocks), blocks.groups, limbs, lower);
      for (int l = 0; l < 2; ++l) {
        for (int half = 0; half < 2; ++half) {
          sums[l][half] = _mm256_add_epi32(_mm256_slli_epi32(sums[l][half], 2), lower[l][half]);
        }
      }
    }
    for (int l = 0; l < 2; ++l) {
      for (int half = 0; half < 2; ++half) {
        const __m256i dot = _mm256_sub_epi32(_mm256_slli_epi32(sums[l][half], 1), offsets[l]);
        store(out[l] + b * kPlaneRows + half * 8, dot);
      }
    }
  }
}

// The values of 16 dimensions of eight rows, four dimensions a vector, written row by row.
void write_rows(const __m256i (&dims)[4], std::size_t stride, std::int8_t* values) {
  const __m256i first_low = _mm256_unpacklo_epi32(dims[0], dims[1]),
                first_high = _mm256_unpackhi_epi32(dims[0], dims[1]);
  const __m256i last_low = _mm256_unpacklo_epi32(dims[2], dims[3]), last_high = _mm256_unpackhi_epi32(dims[2], dims[3]);
  // Each holds a row and the fourth after it.
  const __m256i rows[4] = {_mm256_unpacklo_epi64(first_low, last_low), _mm256_unpackhi_epi64(first_low, last_low),
                           _mm256_unpacklo_epi64(first_high, last_high), _mm256_unpackhi_epi64(first_high, last_high)};
  for (int r = 0; r < 4; ++r) {
    auto* near = reinterpret_cast<__m128i*>(values + r * stride);
    auto* far = reinterpret_cast<__m128i*>(values + (r + 4) * stride);
    _mm_storeu_si128(near, _mm256_castsi256_si128(rows[r]));
    _mm_storeu_si128(far, _mm256_extracti128_si256(rows[r], 1));
  }
}

void unpack(const PlaneBlocks& blocks, std::int8_t* values) {
  const std::size_t dims = blocks.groups * kPlaneDims;
  const bool one_bit = blocks.bits == 1;
  const __m256i largest = _mm256_set1_epi8(static_cast<char>(largest_value(blocks.bits)));
  for (std::size_t b = 0; b < blocks.count; ++b) {
    for (std::size_t place = 0; place < 2 * blocks.groups; ++place) {
      const std::size_t g = place / 2, half = place % 2;
      const std::uint8_t* packed = block_of(blocks, b) + (one_bit ? g / 2 : g) * kPlaneBytes + half * kPlaneBytes / 2;
      const __m256i bits = half_place(packed);
      HalfGroup group(one_bit && g % 2 == 1 ? _mm256_srli_epi16(bits, 1) : bits, one_bit ? 1 : 3);
      if (blocks.bits == 4) {
        const HalfGroup lower(half_place(packed + plane_bytes(blocks)));
        for (int s = 0; s < 4; ++s) {
          group.dims[s] = _mm256_add_epi8(_mm256_slli_epi16(group.dims[s], 2), lower.dims[s]);
        }
      }
      for (__m256i& levels : group.dims) levels = _mm256_sub_epi8(_mm256_add_epi8(levels, levels), largest);
      write_rows(group.dims, dims, values + (b * kPlaneRows + half * 8) * dims + g * kPlaneDims);
    }
  }
}

}  // namespace

void fill_planes_avx2(Kernels& kernels) {
  kernels.planes_one = one;
  kernels.planes_unpack = unpack;
}

}  // namespace fllm::kernels

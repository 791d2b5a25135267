// The sketch kernel of AVX2: a block in two halves of eight rows.
#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kHalf = 8;

inline __m256i limb_lanes(const std::int8_t* limb) {
  std::int32_t four;
  std::memcpy(&four, limb, sizeof four);
  return _mm256_set1_epi32(four);
}

inline __m256 widen_lanes(const std::uint16_t* factors) {
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(factors));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}

// Pairs of products of 16 dimensions of eight rows: four sums of at most 2 * 3 * 127 stay far within 16 bits.
inline __m256i group_pairs(__m256i packed, const __m256i* limb) {
  const __m256i low_bits = _mm256_set1_epi8(3);
  const __m256i first = _mm256_maddubs_epi16(_mm256_and_si256(packed, low_bits), limb[0]);
  const __m256i second = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(packed, 2), low_bits), limb[1]);
  const __m256i third = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(packed, 4), low_bits), limb[2]);
  const __m256i fourth = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(packed, 6), low_bits), limb[3]);
  return _mm256_add_epi16(_mm256_add_epi16(first, second), _mm256_add_epi16(third, fourth));
}

// The sums of two-bit numbers times the limb, of the block's rows 0 to 7 and 8 to 15.
inline void block_sums(const std::uint8_t* block, std::size_t groups, const std::int8_t* limb, __m256i* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  sums[0] = sums[1] = _mm256_setzero_si256();
  for (std::size_t g = 0; g < groups; ++g) {
    const std::int8_t* part = limb + g * kSketchGroupDims;
    const __m256i lanes[4] = {limb_lanes(part), limb_lanes(part + 4), limb_lanes(part + 8), limb_lanes(part + 12)};
    const auto* packed = reinterpret_cast<const __m256i*>(block + g * kSketchGroupBytes);
    for (std::size_t half = 0; half < 2; ++half) {
      const __m256i pairs = group_pairs(_mm256_loadu_si256(packed + half), lanes);
      sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
    }
  }
}

// The biases of eight rows, zeros where there are none.
inline __m256 bias_lanes(const SketchBlocks& blocks, std::size_t first) {
  if (first + kHalf <= blocks.rows) return _mm256_loadu_ps(blocks.bias + first);
  const int left = first < blocks.rows ? static_cast<int>(blocks.rows - first) : 0;
  const __m256i present = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_maskload_ps(blocks.bias + (left == 0 ? 0 : first), present);
}

// Writes the estimates and bounds of eight rows from the integer products of their codes.
inline void finish_half(__m256i dot, const SketchBlocks& blocks, std::size_t first, const SketchItem& item,
                        float* estimates, float* uppers) {
  const std::size_t block = first / kSketchBlockRows;
  const std::uint16_t* factors = blocks.factors + block * blocks.parts * kSketchBlockRows + first % kSketchBlockRows;
  const __m256 scale = widen_lanes(factors);
  __m256 slack = _mm256_add_ps(_mm256_mul_ps(scale, _mm256_set1_ps(item.rounding)),
                               _mm256_mul_ps(widen_lanes(factors + kSketchBlockRows), _mm256_set1_ps(item.inner)));
  if (blocks.parts == 3) {
    const __m256 outer = widen_lanes(factors + 2 * kSketchBlockRows);
    slack = _mm256_add_ps(slack, _mm256_mul_ps(outer, _mm256_set1_ps(item.outer)));
  }
  __m256 estimate = _mm256_mul_ps(scale, _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(item.scale)));
  if (blocks.bias != nullptr) estimate = _mm256_add_ps(estimate, bias_lanes(blocks, first));
  const __m256 size = _mm256_add_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), estimate), slack);
  const __m256 raise = _mm256_mul_ps(size, _mm256_set1_ps(kSketchRaise));
  const __m256 raised = _mm256_add_ps(_mm256_add_ps(estimate, slack), raise);
  _mm256_storeu_ps(estimates + first, estimate);
  _mm256_storeu_ps(uppers + first, _mm256_add_ps(raised, _mm256_set1_ps(kSketchTiny)));
}

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kSketchGroupBytes;
  const std::size_t count = (blocks.rows + kSketchBlockRows - 1) / kSketchBlockRows;
  const __m256i offset = _mm256_set1_epi32((blocks.fine == nullptr ? 3 : 15) * item.limb_sum);
  for (std::size_t block = 0; block < count; ++block) {
    __m256i sums[2], lower[2];
    block_sums(blocks.coarse + block * block_bytes, blocks.groups, item.limb, sums);
    if (blocks.fine != nullptr) {
      block_sums(blocks.fine + block * block_bytes, blocks.groups, item.limb, lower);
      for (std::size_t half = 0; half < 2; ++half) {
        sums[half] = _mm256_add_epi32(_mm256_slli_epi32(sums[half], 2), lower[half]);
      }
    }
    for (std::size_t half = 0; half < 2; ++half) {
      const __m256i dot = _mm256_sub_epi32(_mm256_slli_epi32(sums[half], 1), offset);
      finish_half(dot, blocks, block * kSketchBlockRows + half * kHalf, item, estimates, uppers);
    }
  }
}

}  // namespace

void fill_sketch_avx2(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels

// What the sketch kernels of AVX-512 share; instantiated in files of one instruction set each, hence in no namespace
// that another file could see.
#pragma once

#include "kernels/planes_avx512.hpp"
#include "kernels/sketch.hpp"

namespace fllm::kernels {

namespace {

// How far ahead of the loads memory is asked for: measured; without it the full codes come a tenth slower.
constexpr std::uintptr_t kCodesAhead = 1536;
constexpr std::uintptr_t kFactorsAhead = 512;

inline __m512 widen_lanes(const std::uint16_t* factors) {
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(factors));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

// Writes the estimates and bounds of one block from the integer products of its codes, as the scalar kernel defines.
inline void finish_block(__m512i dot, const SketchBlocks& blocks, std::size_t block, const SketchItem& item,
                         float* estimates, float* uppers) {
  const std::uint16_t* factors = blocks.factors + block * blocks.parts * kPlaneRows;
  prefetch_ahead(factors, kFactorsAhead);
  const __m512 scale = widen_lanes(factors);
  __m512 slack = _mm512_add_ps(_mm512_mul_ps(scale, _mm512_set1_ps(item.rounding)),
                               _mm512_mul_ps(widen_lanes(factors + kPlaneRows), _mm512_set1_ps(item.inner)));
  if (blocks.parts == 3) {
    const __m512 outer = widen_lanes(factors + 2 * kPlaneRows);
    slack = _mm512_add_ps(slack, _mm512_mul_ps(outer, _mm512_set1_ps(item.outer)));
  }
  __m512 estimate = _mm512_mul_ps(scale, _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(item.scale)));
  const std::size_t first = block * kPlaneRows;
  if (blocks.bias != nullptr) {
    const std::size_t left = blocks.rows - first;
    const __mmask16 present = left >= kPlaneRows ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
    const __m512 bias = _mm512_maskz_loadu_ps(present, blocks.bias + first);
    estimate = _mm512_mask_add_ps(estimate, present, estimate, bias);
  }
  const __m512 size = _mm512_add_ps(_mm512_abs_ps(estimate), slack);
  const __m512 raise = _mm512_mul_ps(size, _mm512_set1_ps(kSketchRaise));
  const __m512 raised = _mm512_add_ps(_mm512_add_ps(estimate, slack), raise);
  _mm512_storeu_ps(estimates + first, estimate);
  _mm512_storeu_ps(uppers + first, _mm512_add_ps(raised, _mm512_set1_ps(kSketchTiny)));
}

// `Level::sums` gives the 16 rows' sums of two-bit numbers times limbs.
template <typename Level>
inline void bound_blocks(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kPlaneBytes;
  const std::size_t count = (blocks.rows + kPlaneRows - 1) / kPlaneRows;
  const __m512i offset = _mm512_set1_epi32((blocks.fine == nullptr ? 3 : 15) * item.limb_sum);
  for (std::size_t block = 0; block < count; ++block) {
    __m512i sum[1], lower[1];
    Level::template sums<1, kCodesAhead>(blocks.coarse + block * block_bytes, blocks.groups, {item.limb}, sum);
    if (blocks.fine != nullptr) {
      Level::template sums<1, kCodesAhead>(blocks.fine + block * block_bytes, blocks.groups, {item.limb}, lower);
      sum[0] = _mm512_add_epi32(_mm512_slli_epi32(sum[0], 2), lower[0]);
    }
    const __m512i dot = _mm512_sub_epi32(_mm512_slli_epi32(sum[0], 1), offset);
    finish_block(dot, blocks, block, item, estimates, uppers);
  }
}

}  // namespace

}  // namespace fllm::kernels

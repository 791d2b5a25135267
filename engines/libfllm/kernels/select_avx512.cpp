// Scores, hits, denominators and noise with AVX-512 (F, BW, VL, DQ).
#include "kernels/gumbel_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_avx512.hpp"
#include "kernels/reach_lanes.hpp"
#include "kernels/select_lanes.hpp"
#include "kernels/tile_reach.hpp"

namespace fllm::kernels {

namespace {

// Multiplications and additions apart, as the reference rounds them.
struct ExactScores {
  static constexpr std::size_t kCount = 8;

  static void scores(const std::int32_t* high, const std::int32_t* low, const float* scales, const float* bias,
                     double item_scale, float* out) {
    const __m512d sum = _mm512_add_pd(_mm512_mul_pd(numbers(high), _mm512_set1_pd(128.0)), numbers(low));
    const __m512d scale = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(scales)), _mm512_set1_pd(item_scale));
    const __m512d added = bias == nullptr ? _mm512_setzero_pd() : _mm512_cvtps_pd(_mm256_loadu_ps(bias));
    _mm256_storeu_ps(out, _mm512_cvtpd_ps(_mm512_add_pd(_mm512_mul_pd(sum, scale), added)));
  }

 private:
  static __m512d numbers(const std::int32_t* p) {
    return _mm512_cvtepi32_pd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// Sixteen comparisons at a time without a branch on what they find.
std::size_t not_below_compressed(const float* values, std::size_t n, float threshold, std::uint16_t* indices) {
  const __m512 limit = _mm512_set1_ps(threshold);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  std::size_t count = 0, i = 0;
  for (; i + kItemLanes <= n; i += kItemLanes) {
    const __mmask16 found = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), limit, _CMP_NLT_UQ);
    const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(i)));
    // All lanes are written: no more indices are before `count` than values before i.
    const __m256i written = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(found, at));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(indices + count), written);
    count += static_cast<std::size_t>(__builtin_popcount(found));
  }
  for (; i < n; ++i) {
    if (!(values[i] < threshold)) indices[count++] = static_cast<std::uint16_t>(i);
  }
  return count;
}

}  // namespace

void fill_select_avx512(Kernels& kernels) {
  fill_select<Lanes, ExactScores>(kernels);
  kernels.not_below = not_below_compressed;
  kernels.tile_reach = tile_reach;
  kernels.gumbel = gumbel<WideLanes>;
  kernels.may_reach = may_reach<WideLanes>;
}

}  // namespace fllm::kernels

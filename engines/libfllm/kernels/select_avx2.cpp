// Scores, hits, denominators and noise with AVX2 and FMA.
#include "kernels/gumbel_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_avx2.hpp"
#include "kernels/reach_lanes.hpp"
#include "kernels/select_lanes.hpp"
#include "kernels/tile_reach.hpp"

namespace fllm::kernels {

namespace {

// Multiplications and additions apart, as the reference rounds them.
struct ExactScores {
  static constexpr std::size_t kCount = 4;

  static void scores(const std::int32_t* high, const std::int32_t* low, const float* scales, const float* bias,
                     double item_scale, float* out) {
    const __m256d sum = _mm256_add_pd(_mm256_mul_pd(numbers(high), _mm256_set1_pd(128.0)), numbers(low));
    const __m256d scale = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(scales)), _mm256_set1_pd(item_scale));
    const __m256d added = bias == nullptr ? _mm256_setzero_pd() : _mm256_cvtps_pd(_mm_loadu_ps(bias));
    _mm_storeu_ps(out, _mm256_cvtpd_ps(_mm256_add_pd(_mm256_mul_pd(sum, scale), added)));
  }

 private:
  static __m256d numbers(const std::int32_t* p) {
    return _mm256_cvtepi32_pd(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
};

}  // namespace

void fill_select_avx2(Kernels& kernels) {
  fill_select<Lanes, ExactScores>(kernels);
  kernels.tile_reach = tile_reach;
  kernels.gumbel = gumbel<WideLanes>;
  kernels.may_reach = may_reach<WideLanes>;
}

}  // namespace fllm::kernels

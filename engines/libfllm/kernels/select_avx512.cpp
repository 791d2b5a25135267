// Scores, hits, denominators and noise with AVX-512 (F, BW, VL, DQ).
#include "kernels/gumbel_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_avx512.hpp"
#include "kernels/select_lanes.hpp"

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

}  // namespace

void fill_select_avx512(Kernels& kernels) {
  fill_select<Lanes, ExactScores>(kernels);
  kernels.gumbel = gumbel<WideLanes>;
}

}  // namespace fllm::kernels

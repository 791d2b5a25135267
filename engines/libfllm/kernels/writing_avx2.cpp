// Writing a table with AVX2 and FMA.
#include <immintrin.h>
#include <cstddef>

namespace fllm::kernels {

namespace {

// Products and sums of integers below 2^53 are exact, so that a fused multiply-add gives no other result.
struct Wide {
  using Vector = __m256d;
  static constexpr std::size_t kLanes = 4, kRows = 3;
  static Vector zero() { return _mm256_setzero_pd(); }
  static Vector all(double value) { return _mm256_set1_pd(value); }
  static Vector load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Vector v) { _mm256_storeu_pd(p, v); }
  static Vector widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static void narrow(float* p, Vector v) { _mm_storeu_ps(p, _mm256_cvtpd_ps(v)); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
  static Vector multiply(Vector a, Vector b) { return _mm256_mul_pd(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
};

}  // namespace

}  // namespace fllm::kernels

#include "kernels/kernels.hpp"
#include "kernels/writing_lanes.hpp"

namespace fllm::kernels {

void fill_writing_avx2(Kernels& kernels) { fill_writing(kernels.writing); }

}  // namespace fllm::kernels

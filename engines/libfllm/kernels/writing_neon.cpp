// Writing a table with NEON.
#include <arm_neon.h>
#include <cstddef>

namespace fllm::kernels {

namespace {

// Products and sums of integers below 2^53 are exact, so that a fused multiply-add gives no other result.
struct Wide {
  using Vector = float64x2_t;
  static constexpr std::size_t kLanes = 2, kRows = 3;
  static Vector zero() { return vdupq_n_f64(0); }
  static Vector all(double value) { return vdupq_n_f64(value); }
  static Vector load(const double* p) { return vld1q_f64(p); }
  static void store(double* p, Vector v) { vst1q_f64(p, v); }
  static Vector widen(const float* p) { return vcvt_f64_f32(vld1_f32(p)); }
  static void narrow(float* p, Vector v) { vst1_f32(p, vcvt_f32_f64(v)); }
  static Vector add(Vector a, Vector b) { return vaddq_f64(a, b); }
  static Vector multiply(Vector a, Vector b) { return vmulq_f64(a, b); }
  static Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f64(c, a, b); }
};

}  // namespace

}  // namespace fllm::kernels

#include "kernels/kernels.hpp"
#include "kernels/writing_lanes.hpp"

namespace fllm::kernels {

void fill_writing_neon(Kernels& kernels) { fill_writing(kernels.writing); }

}  // namespace fllm::kernels

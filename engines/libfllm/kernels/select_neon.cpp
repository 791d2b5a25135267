// Scores, hits and denominators with NEON; noise, and what it may reach, are the scalar level's.
#include "kernels/kernels.hpp"
#include "kernels/lanes_neon.hpp"
#include "kernels/select_lanes.hpp"
#include "kernels/tile_reach.hpp"

namespace fllm::kernels {

namespace {

// Multiplications and additions apart, as the reference rounds them.
struct ExactScores {
  static constexpr std::size_t kCount = 2;

  static void scores(const std::int32_t* high, const std::int32_t* low, const float* scales, const float* bias,
                     double item_scale, float* out) {
    const float64x2_t sum = vaddq_f64(vmulq_f64(numbers(high), vdupq_n_f64(128.0)), numbers(low));
    const float64x2_t scale = vmulq_f64(vcvt_f64_f32(vld1_f32(scales)), vdupq_n_f64(item_scale));
    const float64x2_t added = bias == nullptr ? vdupq_n_f64(0.0) : vcvt_f64_f32(vld1_f32(bias));
    vst1_f32(out, vcvt_f32_f64(vaddq_f64(vmulq_f64(sum, scale), added)));
  }

 private:
  static float64x2_t numbers(const std::int32_t* p) { return vcvtq_f64_s64(vmovl_s32(vld1_s32(p))); }
};

}  // namespace

void fill_select_neon(Kernels& kernels) {
  fill_select<Lanes, ExactScores>(kernels);
  kernels.tile_reach = tile_reach;
}

}  // namespace fllm::kernels

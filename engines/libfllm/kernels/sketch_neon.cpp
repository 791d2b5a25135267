// The sketch kernel of NEON with its dot-product instructions: a block in four quarters of four rows.
#include "kernels/kernels.hpp"
#include "kernels/planes_neon.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kQuarter = 4;

inline float32x4_t widen_lanes(const std::uint16_t* factors) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(factors), 16));
}

// The biases of four rows, zeros where there are none.
inline float32x4_t bias_lanes(const SketchBlocks& blocks, std::size_t first) {
  if (first + kQuarter <= blocks.rows) return vld1q_f32(blocks.bias + first);
  float lanes[kQuarter] = {};
  for (std::size_t r = first; r < blocks.rows; ++r) lanes[r - first] = blocks.bias[r];
  return vld1q_f32(lanes);
}

// Writes the estimates and bounds of four rows from the integer products of their codes.
inline void finish_quarter(int32x4_t dot, const SketchBlocks& blocks, std::size_t first, const SketchItem& item,
                           float* estimates, float* uppers) {
  const std::size_t block = first / kPlaneRows;
  const std::uint16_t* factors = blocks.factors + block * blocks.parts * kPlaneRows + first % kPlaneRows;
  const float32x4_t scale = widen_lanes(factors);
  float32x4_t slack =
      vaddq_f32(vmulq_n_f32(scale, item.rounding), vmulq_n_f32(widen_lanes(factors + kPlaneRows), item.inner));
  if (blocks.parts == 3) {
    slack = vaddq_f32(slack, vmulq_n_f32(widen_lanes(factors + 2 * kPlaneRows), item.outer));
  }
  float32x4_t estimate = vmulq_f32(scale, vmulq_n_f32(vcvtq_f32_s32(dot), item.scale));
  if (blocks.bias != nullptr) estimate = vaddq_f32(estimate, bias_lanes(blocks, first));
  const float32x4_t size = vaddq_f32(vabsq_f32(estimate), slack);
  const float32x4_t raised = vaddq_f32(vaddq_f32(estimate, slack), vmulq_n_f32(size, kSketchRaise));
  vst1q_f32(estimates + first, estimate);
  vst1q_f32(uppers + first, vaddq_f32(raised, vdupq_n_f32(kSketchTiny)));
}

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kPlaneBytes;
  const std::size_t count = (blocks.rows + kPlaneRows - 1) / kPlaneRows;
  const int32x4_t offset = vdupq_n_s32((blocks.fine == nullptr ? 3 : 15) * item.limb_sum);
  for (std::size_t block = 0; block < count; ++block) {
    int32x4_t coarse[1][4], fine[1][4];
    plane_sums<1>(blocks.coarse + block * block_bytes, blocks.groups, {item.limb}, coarse);
    auto& sums = coarse[0];
    if (blocks.fine != nullptr) {
      plane_sums<1>(blocks.fine + block * block_bytes, blocks.groups, {item.limb}, fine);
      for (std::size_t quarter = 0; quarter < 4; ++quarter) {
        sums[quarter] = vaddq_s32(vshlq_n_s32(sums[quarter], 2), fine[0][quarter]);
      }
    }
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const int32x4_t dot = vsubq_s32(vshlq_n_s32(sums[quarter], 1), offset);
      finish_quarter(dot, blocks, block * kPlaneRows + quarter * kQuarter, item, estimates, uppers);
    }
  }
}

}  // namespace

void fill_sketch_neon(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels

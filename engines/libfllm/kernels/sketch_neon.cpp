// The sketch kernel of NEON with its dot-product instructions: a block in four quarters of four rows.
#include <arm_neon.h>

#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

constexpr std::size_t kQuarter = 4;

inline float32x4_t widen_lanes(const std::uint16_t* factors) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(factors), 16));
}

// Adds the products of 16 dimensions of four rows; two-bit numbers are non-negative, so they may pass as signed.
inline int32x4_t add_group(int32x4_t sums, uint8x16_t packed, int8x16_t limb) {
  const uint8x16_t low_bits = vdupq_n_u8(3);
  sums = vdotq_laneq_s32(sums, vreinterpretq_s8_u8(vandq_u8(packed, low_bits)), limb, 0);
  sums = vdotq_laneq_s32(sums, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 2), low_bits)), limb, 1);
  sums = vdotq_laneq_s32(sums, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(packed, 4), low_bits)), limb, 2);
  return vdotq_laneq_s32(sums, vreinterpretq_s8_u8(vshrq_n_u8(packed, 6)), limb, 3);
}

// The sums of two-bit numbers times the limb, of the block's 16 rows.
inline void block_sums(const std::uint8_t* block, std::size_t groups, const std::int8_t* limb, int32x4_t* sums) {
  for (std::size_t quarter = 0; quarter < 4; ++quarter) sums[quarter] = vdupq_n_s32(0);
  for (std::size_t g = 0; g < groups; ++g) {
    const int8x16_t part = vld1q_s8(limb + g * kSketchGroupDims);
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const uint8x16_t packed = vld1q_u8(block + g * kSketchGroupBytes + 16 * quarter);
      sums[quarter] = add_group(sums[quarter], packed, part);
    }
  }
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
  const std::size_t block = first / kSketchBlockRows;
  const std::uint16_t* factors = blocks.factors + block * blocks.parts * kSketchBlockRows + first % kSketchBlockRows;
  const float32x4_t scale = widen_lanes(factors);
  float32x4_t slack =
      vaddq_f32(vmulq_n_f32(scale, item.rounding), vmulq_n_f32(widen_lanes(factors + kSketchBlockRows), item.inner));
  if (blocks.parts == 3) {
    slack = vaddq_f32(slack, vmulq_n_f32(widen_lanes(factors + 2 * kSketchBlockRows), item.outer));
  }
  float32x4_t estimate = vmulq_f32(scale, vmulq_n_f32(vcvtq_f32_s32(dot), item.scale));
  if (blocks.bias != nullptr) estimate = vaddq_f32(estimate, bias_lanes(blocks, first));
  const float32x4_t size = vaddq_f32(vabsq_f32(estimate), slack);
  const float32x4_t raised = vaddq_f32(vaddq_f32(estimate, slack), vmulq_n_f32(size, kSketchRaise));
  vst1q_f32(estimates + first, estimate);
  vst1q_f32(uppers + first, vaddq_f32(raised, vdupq_n_f32(kSketchTiny)));
}

void bounds(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers) {
  const std::size_t block_bytes = blocks.groups * kSketchGroupBytes;
  const std::size_t count = (blocks.rows + kSketchBlockRows - 1) / kSketchBlockRows;
  const int32x4_t offset = vdupq_n_s32((blocks.fine == nullptr ? 3 : 15) * item.limb_sum);
  for (std::size_t block = 0; block < count; ++block) {
    int32x4_t sums[4], lower[4];
    block_sums(blocks.coarse + block * block_bytes, blocks.groups, item.limb, sums);
    if (blocks.fine != nullptr) {
      block_sums(blocks.fine + block * block_bytes, blocks.groups, item.limb, lower);
      for (std::size_t quarter = 0; quarter < 4; ++quarter) {
        sums[quarter] = vaddq_s32(vshlq_n_s32(sums[quarter], 2), lower[quarter]);
      }
    }
    for (std::size_t quarter = 0; quarter < 4; ++quarter) {
      const int32x4_t dot = vsubq_s32(vshlq_n_s32(sums[quarter], 1), offset);
      finish_quarter(dot, blocks, block * kSketchBlockRows + quarter * kQuarter, item, estimates, uppers);
    }
  }
}

}  // namespace

void fill_sketch_neon(Kernels& kernels) { kernels.sketch_bounds = bounds; }

}  // namespace fllm::kernels

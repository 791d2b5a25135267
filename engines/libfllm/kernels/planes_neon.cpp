// The kernels of rows in bit planes of NEON.
#include "kernels/planes_neon.hpp"
#include "kernels/int8_layout.hpp"
#include "kernels/kernels.hpp"

namespace fllm::kernels {

namespace {

// How far ahead of a block its successors are asked for: the hardware's prefetchers stop at each page of 4 KiB.
constexpr std::uintptr_t kAhead = 2048;

inline void prefetch(const std::uint8_t* block, std::size_t bytes) {
  const std::uintptr_t from = reinterpret_cast<std::uintptr_t>(block) + kAhead;
  for (std::size_t at = 0; at < bytes; at += kPlaneBytes) __builtin_prefetch(reinterpret_cast<const void*>(from + at));
}

void one(const PlaneBlocks& blocks, const void* packed_high, const void* packed_low, std::int32_t* high,
         std::int32_t* low) {
  const std::int8_t* const limbs[2] = {limb_of(packed_high), limb_of(packed_low)};
  std::int32_t* const out[2] = {high, low};
  const std::int32_t largest = largest_value(blocks.bits);
  const std::int32_t offsets[2] = {largest * limb_sum(packed_high), largest * limb_sum(packed_low)};
  for (std::size_t b = 0; b < blocks.count; ++b) {
    const std::uint8_t* block = block_of(blocks, b);
    prefetch(block, block_bytes(blocks));
    int32x4_t sums[2][4], lower[2][4];
    if (blocks.bits == 1) {
      plane_sums<2, true>(block, blocks.groups, limbs, sums);
    } else {
      plane_sums<2>(block, blocks.groups, limbs, sums);
    }
    if (blocks.bits == 4) plane_sums<2>(block + plane_bytes(blocks), blocks.groups, limbs, lower);
    for (int l = 0; l < 2; ++l) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        int32x4_t sum = sums[l][quarter];
        if (blocks.bits == 4) sum = vaddq_s32(vshlq_n_s32(sum, 2), lower[l][quarter]);
        const int32x4_t dot = vsubq_s32(vshlq_n_s32(sum, 1), vdupq_n_s32(offsets[l]));
        vst1q_s32(out[l] + b * kPlaneRows + 4 * quarter, dot);
      }
    }
  }
}

// The values of 16 dimensions of four rows, four dimensions a vector, written row by row.
inline void write_rows(const int8x16_t (&dims)[4], std::size_t stride, std::int8_t* values) {
  int32x4_t quads[4];
  for (int s = 0; s < 4; ++s) quads[s] = vreinterpretq_s32_s8(dims[s]);
  const int32x4x2_t first = vzipq_s32(quads[0], quads[2]), last = vzipq_s32(quads[1], quads[3]);
  const int32x4x2_t early = vzipq_s32(first.val[0], last.val[0]), late = vzipq_s32(first.val[1], last.val[1]);
  vst1q_s8(values, vreinterpretq_s8_s32(early.val[0]));
  vst1q_s8(values + stride, vreinterpretq_s8_s32(early.val[1]));
  vst1q_s8(values + 2 * stride, vreinterpretq_s8_s32(late.val[0]));
  vst1q_s8(values + 3 * stride, vreinterpretq_s8_s32(late.val[1]));
}

void unpack(const PlaneBlocks& blocks, std::int8_t* values) {
  const std::size_t dims = blocks.groups * kPlaneDims;
  const bool one_bit = blocks.bits == 1;
  const int8x16_t largest = vdupq_n_s8(static_cast<std::int8_t>(largest_value(blocks.bits)));
  for (std::size_t b = 0; b < blocks.count; ++b) {
    for (std::size_t place = 0; place < 4 * blocks.groups; ++place) {
      const std::size_t g = place / 4, quarter = place % 4;
      const std::uint8_t* packed = block_of(blocks, b) + (one_bit ? g / 2 : g) * kPlaneBytes + 16 * quarter;
      const uint8x16_t bits = vld1q_u8(packed);
      int8x16_t levels[4], lower[4];
      unpack_quarter(one_bit && g % 2 == 1 ? vshrq_n_u8(bits, 1) : bits, one_bit ? 1 : 3, levels);
      if (blocks.bits == 4) {
        unpack_quarter(vld1q_u8(packed + plane_bytes(blocks)), 3, lower);
        for (int s = 0; s < 4; ++s) levels[s] = vaddq_s8(vshlq_n_s8(levels[s], 2), lower[s]);
      }
      for (int8x16_t& each : levels) each = vsubq_s8(vaddq_s8(each, each), largest);
      write_rows(levels, dims, values + (b * kPlaneRows + 4 * quarter) * dims + g * kPlaneDims);
    }
  }
}

}  // namespace

void fill_planes_neon(Kernels& kernels) {
  kernels.planes_one = one;
  kernels.planes_unpack = unpack;
}

}  // namespace fllm::kernels

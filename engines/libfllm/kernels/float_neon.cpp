// Decoding and float32 sums with NEON.
#include "kernels/float_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_neon.hpp"

namespace fllm::kernels {

namespace {

float32x4_t four_halves(uint16x4_t bits) { return vcvt_f32_f16(vreinterpret_f16_u16(bits)); }

Lanes::Float halves(uint16x8_t low, uint16x8_t high) {
  return {{four_halves(vget_low_u16(low)), four_halves(vget_high_u16(low)), four_halves(vget_low_u16(high)),
           four_halves(vget_high_u16(high))}};
}

float32x4_t four_integers(int16x4_t integers) { return vcvtq_f32_s32(vmovl_s16(integers)); }

struct Fp32 {
  static constexpr std::size_t kBits = 32;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, const Lanes::Float&) {
    return Lanes::each([p](int i) { return vreinterpretq_f32_u8(vld1q_u8(p + 16 * i)); });
  }
};

struct Fp16 {
  static constexpr std::size_t kBits = 16;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, const Lanes::Float&) {
    return halves(vreinterpretq_u16_u8(vld1q_u8(p)), vreinterpretq_u16_u8(vld1q_u8(p + 16)));
  }
};

// An e4m3 number with its fields at their place in a half is 2^8 too small, subnormals included; NaN, whose exponent
// is an ordinary one there, gets the half's largest exponent.
struct Fp8 {
  static constexpr std::size_t kBits = 8;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, const Lanes::Float&) {
    const uint8x16_t bytes = vld1q_u8(p);
    const Lanes::Float small = halves(half(vget_low_u8(bytes)), half(vget_high_u8(bytes)));
    return Lanes::multiply(small, Lanes::broadcast(256.0f));
  }

 private:
  static uint16x8_t half(uint8x8_t bytes) {
    const uint16x8_t wide = vmovl_u8(bytes), seven = vdupq_n_u16(0x7f);
    const int16x8_t fields = vshrq_n_s16(vreinterpretq_s16_u16(vshlq_n_u16(wide, 8)), 1);
    const uint16x8_t nan = vandq_u16(vceqq_u16(vandq_u16(wide, seven), seven), vdupq_n_u16(0x7e00));
    return vorrq_u16(vandq_u16(vreinterpretq_u16_s16(fields), vdupq_n_u16(0xbf80)), nan);
  }
};

struct Int4 {
  static constexpr std::size_t kBits = 4;
  static constexpr bool kGrouped = true;
  static Lanes::Float load(const std::uint8_t* p, const Lanes::Float& multiplier) {
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x8x2_t nibbles = vzip_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    const int16x8_t low = numbers(nibbles.val[0]), high = numbers(nibbles.val[1]);
    const Lanes::Float values = {{four_integers(vget_low_s16(low)), four_integers(vget_high_s16(low)),
                                  four_integers(vget_low_s16(high)), four_integers(vget_high_s16(high))}};
    return Lanes::multiply(values, multiplier);
  }

 private:
  static int16x8_t numbers(uint8x8_t nibbles) { return vmovl_s8(vsub_s8(vreinterpret_s8_u8(nibbles), vdup_n_s8(8))); }
};

}  // namespace

void fill_float_neon(Kernels& kernels) {
  fill_sums<Lanes>(kernels);
  kernels.decode_fp32 = decode<Lanes, Fp32>;
  kernels.decode_fp16 = decode<Lanes, Fp16>;
  kernels.decode_fp8 = decode<Lanes, Fp8>;
  kernels.decode_int4 = decode<Lanes, Int4>;
}

}  // namespace fllm::kernels

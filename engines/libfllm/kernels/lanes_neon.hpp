// Sixteen float32 lanes as four NEON registers (see lanes_avx512.hpp).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

namespace {

struct Lanes {
  static constexpr int kParts = 4;
  struct Float {
    float32x4_t part[kParts];
  };
  struct Flags {
    uint32x4_t part[kParts];
  };

  static Float zero() { return broadcast(0.0f); }
  static Float broadcast(float x) {
    return each([x](int) { return vdupq_n_f32(x); });
  }
  static Float load(const float* p) {
    return each([p](int i) { return vld1q_f32(p + 4 * i); });
  }
  static void store(float* p, const Float& x) {
    for (int i = 0; i < kParts; ++i) vst1q_f32(p + 4 * i, x.part[i]);
  }
  static Float integers(const std::int32_t* p) {
    return each([p](int i) { return vcvtq_f32_s32(vld1q_s32(p + 4 * i)); });
  }
  static Float first(const Float& x, std::size_t count) {  // zeros after the first `count` < 16 lanes
    const uint32x4_t lane = {0, 1, 2, 3};
    const uint32x4_t limit = vdupq_n_u32(static_cast<std::uint32_t>(count));
    return each([&](int i) {
      const uint32x4_t kept = vcltq_u32(vaddq_u32(lane, vdupq_n_u32(static_cast<std::uint32_t>(4 * i))), limit);
      return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x.part[i]), kept));
    });
  }

  static Float add(const Float& a, const Float& b) {
    return each([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
  }
  static Float subtract(const Float& a, const Float& b) {
    return each([&](int i) { return vsubq_f32(a.part[i], b.part[i]); });
  }
  static Float multiply(const Float& a, const Float& b) {
    return each([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
  }
  static Float fma(const Float& a, const Float& b, const Float& c) {
    return each([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
  }
  static Float fnma(const Float& a, const Float& b, const Float& c) {
    return each([&](int i) { return vfmsq_f32(c.part[i], a.part[i], b.part[i]); });
  }
  static Float larger(const Float& a, const Float& b) {  // b where a is not a number
    return each([&](int i) { return vmaxnmq_f32(a.part[i], b.part[i]); });
  }
  static Float smaller(const Float& a, const Float& b) {
    return each([&](int i) { return vminq_f32(a.part[i], b.part[i]); });
  }
  static Float nearest(const Float& x) {
    return each([&](int i) { return vrndnq_f32(x.part[i]); });
  }
  static Float times_power(const Float& x, const Float& shifted) {  // x * 2^n, n the low bits of `shifted`
    return each([&](int i) {
      const uint32x4_t n = vshlq_n_u32(vreinterpretq_u32_f32(shifted.part[i]), 23);
      return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(x.part[i]), n));
    });
  }
  static float sum(const Float& x) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(x.part[0], x.part[1]), vaddq_f32(x.part[2], x.part[3])));
  }
  static float largest(const Float& x) {
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.part[0], x.part[1]), vmaxnmq_f32(x.part[2], x.part[3])));
  }

  static Flags all() {
    return flags([](int) { return vdupq_n_u32(0xffffffff); });
  }
  static Flags less(const Flags& among, const Float& a, const Float& b) {
    return flags([&](int i) { return vandq_u32(among.part[i], vcltq_f32(a.part[i], b.part[i])); });
  }
  static bool every(const Flags& x) {
    return vminvq_u32(vandq_u32(vandq_u32(x.part[0], x.part[1]), vandq_u32(x.part[2], x.part[3]))) != 0;
  }
  static std::uint32_t bits(const Flags& x) {
    const uint32x4_t weights = {1, 2, 4, 8};
    std::uint32_t bits = 0;
    for (int i = 0; i < kParts; ++i) bits |= vaddvq_u32(vandq_u32(x.part[i], weights)) << (4 * i);
    return bits;
  }
  static Float choose(const Flags& flags, const Float& yes, const Float& no) {
    return each([&](int i) { return vbslq_f32(flags.part[i], yes.part[i], no.part[i]); });
  }
  static std::uint32_t not_below(const Float& a, const Float& b) {
    return bits(flags([&](int i) { return vmvnq_u32(vcltq_f32(a.part[i], b.part[i])); }));
  }

  static constexpr std::size_t kDotRows = 4;  // rows whose sums are taken together
  static void store_sums(const Float (&rows)[kDotRows], float* sums) {
    for (std::size_t r = 0; r < kDotRows; ++r) sums[r] = sum(rows[r]);
  }

  static constexpr std::size_t kTileRows = 4;  // of float_many: rows by groups of items whose sums stay in registers
  static constexpr std::size_t kTileGroups = 1;

  template <class Part>
  static Float each(Part part) {
    return {{part(0), part(1), part(2), part(3)}};
  }
  template <class Part>
  static Flags flags(Part part) {
    return {{part(0), part(1), part(2), part(3)}};
  }
};

}  // namespace

}  // namespace fllm::kernels

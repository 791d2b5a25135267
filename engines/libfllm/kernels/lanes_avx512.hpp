// Sixteen float32 lanes, and eight of 64 bits, as AVX-512 registers.
//
// The lanes_*.hpp files offer the same names for each instruction set; *_lanes.hpp are loops written over them. All of
// it lives in anonymous namespaces, so that each file of one instruction set keeps its own copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

namespace {

struct Lanes {
  using Float = __m512;
  using Flags = __mmask16;

  static Float zero() { return _mm512_setzero_ps(); }
  static Float broadcast(float x) { return _mm512_set1_ps(x); }
  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static Float integers(const std::int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
  static Float first(Float x, std::size_t count) {  // zeros after the first `count` < 16 lanes
    return _mm512_maskz_mov_ps(static_cast<__mmask16>((1u << count) - 1), x);
  }

  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
  static Float larger(Float a, Float b) { return _mm512_max_ps(a, b); }  // b where a is not a number
  static Float smaller(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float nearest(Float x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Float times_power(Float x, Float shifted) {  // x * 2^n, n the low bits of `shifted`
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), n));
  }
  static float sum(Float x) { return _mm512_reduce_add_ps(x); }
  static float largest(Float x) { return _mm512_reduce_max_ps(x); }

  static Flags all() { return 0xffff; }
  static Flags less(Flags among, Float a, Float b) { return _mm512_mask_cmp_ps_mask(among, a, b, _CMP_LT_OQ); }
  static bool every(Flags flags) { return _mm512_kortestc(flags, flags) != 0; }
  static std::uint32_t bits(Flags flags) { return flags; }
  static Float choose(Flags flags, Float yes, Float no) { return _mm512_mask_mov_ps(no, flags, yes); }
  static std::uint32_t not_below(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }

  static constexpr std::size_t kDotRows = 8;  // rows whose sums are taken together
  static void store_sums(const Float (&rows)[kDotRows], float* sums) {
    __m256 folded[kDotRows];
    for (std::size_t r = 0; r < kDotRows; ++r)
      folded[r] = _mm256_add_ps(_mm512_castps512_ps256(rows[r]), _mm512_extractf32x8_ps(rows[r], 1));
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(folded[0], folded[1]), _mm256_hadd_ps(folded[2], folded[3]));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(folded[4], folded[5]), _mm256_hadd_ps(folded[6], folded[7]));
    _mm256_storeu_ps(sums,
                     _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
  }

  static constexpr std::size_t kTileRows = 8;  // of float_many: rows by groups of items whose sums stay in registers
  static constexpr std::size_t kTileGroups = 2;
};

struct WideLanes {
  using Word = __m512i;
  using Double = __m512d;
  static constexpr std::size_t kCount = 8;

  static Word broadcast(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
  static Word load(const std::int64_t* p) { return _mm512_loadu_si512(p); }
  static Word multiply_low(Word a, Word b) { return _mm512_mul_epu32(a, b); }  // of the low 32 bits
  static Word shift_right(Word a, int count) { return _mm512_srli_epi64(a, static_cast<unsigned>(count)); }
  static Word shift_left(Word a, int count) { return _mm512_slli_epi64(a, static_cast<unsigned>(count)); }
  static Word exclusive_or(Word a, Word b, Word c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static Word both(Word a, Word b) { return _mm512_and_si512(a, b); }
  static Word either(Word a, Word b) { return _mm512_or_si512(a, b); }

  static Double broadcast(double x) { return _mm512_set1_pd(x); }
  static Double widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static void store(double* p, Double x) { _mm512_storeu_pd(p, x); }
  static Word bits(Double x) { return _mm512_castpd_si512(x); }
  static Double number(Word x) { return _mm512_castsi512_pd(x); }
  static Double add(Double a, Double b) { return _mm512_add_pd(a, b); }
  static Double subtract(Double a, Double b) { return _mm512_sub_pd(a, b); }
  static Double multiply(Double a, Double b) { return _mm512_mul_pd(a, b); }
  static Double divide(Double a, Double b) { return _mm512_div_pd(a, b); }
  static Double negative(Double a) { return _mm512_xor_pd(a, _mm512_set1_pd(-0.0)); }
  static Double if_less(Double a, Double b, Double yes, Double no) {
    return _mm512_mask_mov_pd(no, _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ), yes);
  }
  // A bit for each lane.
  static unsigned not_above(Double a, Double b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
};

}  // namespace

}  // namespace fllm::kernels

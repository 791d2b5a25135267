// Sixteen float32 lanes as two AVX2 registers, and four lanes of 64 bits (see lanes_avx512.hpp).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace fllm::kernels {

namespace {

struct Lanes {
  struct Float {
    __m256 a, b;
  };
  using Flags = Float;

  static Float zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Float broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Float load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, Float x) {
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
  }
  static Float integers(const std::int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
  }
  static Float first(Float x, std::size_t count) {  // zeros after the first `count` < 16 lanes
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i a = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
    const __m256i b = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count) - 8), lane);
    return {_mm256_and_ps(x.a, _mm256_castsi256_ps(a)), _mm256_and_ps(x.b, _mm256_castsi256_ps(b))};
  }

  static Float add(Float x, Float y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static Float subtract(Float x, Float y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static Float multiply(Float x, Float y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static Float fma(Float x, Float y, Float z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static Float fnma(Float x, Float y, Float z) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
  }
  static Float larger(Float x, Float y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }  // y if x is NaN
  static Float smaller(Float x, Float y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
  static Float nearest(Float x) {
    return {_mm256_round_ps(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
            _mm256_round_ps(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Float times_power(Float x, Float shifted) {  // x * 2^n, n the low bits of `shifted`
    return {times_power(x.a, shifted.a), times_power(x.b, shifted.b)};
  }
  static float sum(Float x) {
    const __m256 y = _mm256_add_ps(x.a, x.b);
    const __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    const __m128 w = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(w, _mm_movehdup_ps(w)));
  }
  static float largest(Float x) {
    const __m256 y = _mm256_max_ps(x.a, x.b);
    const __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    const __m128 w = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(w, _mm_movehdup_ps(w)));
  }

  static Flags all() {
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return {ones, ones};
  }
  static Flags less(Flags among, Float x, Float y) {
    return {_mm256_and_ps(among.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_and_ps(among.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
  }
  static bool every(Flags flags) { return _mm256_movemask_ps(_mm256_and_ps(flags.a, flags.b)) == 0xff; }
  static std::uint32_t bits(Flags flags) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(flags.a) | (_mm256_movemask_ps(flags.b) << 8));
  }
  static Float choose(Flags flags, Float yes, Float no) {
    return {_mm256_blendv_ps(no.a, yes.a, flags.a), _mm256_blendv_ps(no.b, yes.b, flags.b)};
  }
  static std::uint32_t not_below(Float x, Float y) {
    return bits({_mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ), _mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ)});
  }

  static constexpr std::size_t kDotRows = 4;  // rows whose sums are taken together
  static void store_sums(const Float (&rows)[kDotRows], float* sums) {
    __m256 folded[kDotRows];
    for (std::size_t r = 0; r < kDotRows; ++r) folded[r] = _mm256_add_ps(rows[r].a, rows[r].b);
    const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(folded[0], folded[1]), _mm256_hadd_ps(folded[2], folded[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
  }

  static constexpr std::size_t kTileRows = 4;  // of float_many: rows by groups of items whose sums stay in registers
  static constexpr std::size_t kTileGroups = 1;

 private:
  static __m256 times_power(__m256 x, __m256 shifted) {
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), n));
  }
};

struct WideLanes {
  using Word = __m256i;
  using Double = __m256d;
  static constexpr std::size_t kCount = 4;

  static Word broadcast(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
  static Word load(const std::int64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Word multiply_low(Word a, Word b) { return _mm256_mul_epu32(a, b); }  // of the low 32 bits
  static Word shift_right(Word a, int count) { return _mm256_srli_epi64(a, count); }
  static Word shift_left(Word a, int count) { return _mm256_slli_epi64(a, count); }
  static Word exclusive_or(Word a, Word b, Word c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static Word both(Word a, Word b) { return _mm256_and_si256(a, b); }
  static Word either(Word a, Word b) { return _mm256_or_si256(a, b); }

  static Double broadcast(double x) { return _mm256_set1_pd(x); }
  static Double widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static void store(double* p, Double x) { _mm256_storeu_pd(p, x); }
  static Word bits(Double x) { return _mm256_castpd_si256(x); }
  static Double number(Word x) { return _mm256_castsi256_pd(x); }
  static Double add(Double a, Double b) { return _mm256_add_pd(a, b); }
  static Double subtract(Double a, Double b) { return _mm256_sub_pd(a, b); }
  static Double multiply(Double a, Double b) { return _mm256_mul_pd(a, b); }
  static Double divide(Double a, Double b) { return _mm256_div_pd(a, b); }
  static Double negative(Double a) { return _mm256_xor_pd(a, _mm256_set1_pd(-0.0)); }
  static Double if_less(Double a, Double b, Double yes, Double no) {
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(a, b, _CMP_LT_OQ));
  }
  // A bit for each lane.
  static unsigned not_above(Double a, Double b) {
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_LE_OQ)));
  }
};

}  // namespace

}  // namespace fllm::kernels

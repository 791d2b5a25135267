// Decoding and float32 sums with AVX2, FMA and F16C.
#include "kernels/float_lanes.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lanes_avx2.hpp"

namespace fllm::kernels {

namespace {

Lanes::Float halves(__m256i bits) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)), _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
}

struct Fp32 {
  static constexpr std::size_t kBits = 32;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, Lanes::Float) {
    return Lanes::load(reinterpret_cast<const float*>(p));
  }
};

struct Fp16 {
  static constexpr std::size_t kBits = 16;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, Lanes::Float) {
    return halves(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};

// An e4m3 number with its fields at their place in a half is 2^8 too small, subnormals included; NaN, whose exponent
// is an ordinary one there, gets the half's largest exponent.
struct Fp8 {
  static constexpr std::size_t kBits = 8;
  static constexpr bool kGrouped = false;
  static Lanes::Float load(const std::uint8_t* p, Lanes::Float) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i fields = _mm256_srai_epi16(_mm256_slli_epi16(wide, 8), 1);
    const __m256i half = _mm256_and_si256(fields, _mm256_set1_epi16(static_cast<short>(0xbf80)));
    const __m256i seven = _mm256_set1_epi16(0x7f);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(wide, seven), seven);
    const __m256i marked = _mm256_or_si256(half, _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00)));
    return Lanes::multiply(halves(marked), Lanes::broadcast(256.0f));
  }
};

struct Int4 {
  static constexpr std::size_t kBits = 4;
  static constexpr bool kGrouped = true;
  static Lanes::Float load(const std::uint8_t* p, Lanes::Float multiplier) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i even = _mm_and_si128(bytes, nibble), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    const __m128i numbers = _mm_sub_epi8(_mm_unpacklo_epi8(even, odd), _mm_set1_epi8(8));
    const __m256i low = _mm256_cvtepi8_epi32(numbers), high = _mm256_cvtepi8_epi32(_mm_srli_si128(numbers, 8));
    return Lanes::multiply({_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)}, multiplier);
  }
};

}  // namespace

void fill_float_avx2(Kernels& kernels) {
  fill_sums<Lanes>(kernels);
  kernels.decode_fp32 = decode<Lanes, Fp32>;
  kernels.decode_fp16 = decode<Lanes, Fp16>;
  kernels.decode_fp8 = decode<Lanes, Fp8>;
  kernels.decode_int4 = decode<Lanes, Int4>;
}

}  // namespace fllm::kernels

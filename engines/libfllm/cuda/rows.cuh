// How the rows of each codec meet an item in a scan for one: what a lane takes of them and of the item, the sum, and
// the score.
#pragma once

#include "cuda/device.hpp"
#include "cuda/e4m3.cuh"
#include "cuda/planes.cuh"
#include "cuda/score.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kRowsAhead = 4;  // pieces of sixteen bytes of a lane that are on their way together

// Rows whose sums with both limbs are whole numbers, so that every score is exact.
struct IntegerRows {
  __device__ static float score(Sums sum, double row_scale, const Item& item, double bias) {
    return exact_score(128.0 * sum.high + sum.low, row_scale, item.scale, bias);
  }
  template <bool kSample>
  __device__ static void consider_row(const Wave& wave, const Item& item, const Candidates& out, float threshold,
                                      std::uint64_t row, float score) {
    consider<kSample>(wave, item, out, threshold, row, score);
  }
};

// int8 codes and both limbs.
struct Int8Rows : IntegerRows {
  using Sum = Sums;
  struct Part {
    int4 high, low;
  };

  __device__ static Part part(const Item& item, unsigned piece, bool inside) {
    if (!inside) return {int4{0, 0, 0, 0}, int4{0, 0, 0, 0}};
    return {reinterpret_cast<const int4*>(item.high)[piece], reinterpret_cast<const int4*>(item.low)[piece]};
  }
  __device__ __forceinline__ static void multiply(Sum& sum, int4 codes, const Part& with) {
    sum.high = __dp4a(codes.x, with.high.x, __dp4a(codes.y, with.high.y, sum.high));
    sum.low = __dp4a(codes.x, with.low.x, __dp4a(codes.y, with.low.y, sum.low));
    sum.high = __dp4a(codes.z, with.high.z, __dp4a(codes.w, with.high.w, sum.high));
    sum.low = __dp4a(codes.z, with.low.z, __dp4a(codes.w, with.low.w, sum.low));
  }
  __device__ __forceinline__ static void join(Sum& sum, int mask) {
    sum.high += __shfl_xor_sync(kAllLanes, sum.high, mask);
    sum.low += __shfl_xor_sync(kAllLanes, sum.low, mask);
  }
};

// e4m3 codes and the item's whole numbers in float32. The sum is rounded; what may reach the threshold is scored
// exactly.
struct Fp8Rows {
  using Sum = float;
  struct Part {
    float4 values[4];
  };

  __device__ static Part part(const Item& item, unsigned piece, bool inside) {
    const float4* const from = reinterpret_cast<const float4*>(item.whole) + 4 * piece;
    const float4 none{0.0f, 0.0f, 0.0f, 0.0f};
    if (!inside) return {{none, none, none, none}};
    return {{from[0], from[1], from[2], from[3]}};
  }
  __device__ __forceinline__ static void multiply(Sum& sum, int4 codes, const Part& with) {
    multiply_word(sum, codes.x, with.values[0]);
    multiply_word(sum, codes.y, with.values[1]);
    multiply_word(sum, codes.z, with.values[2]);
    multiply_word(sum, codes.w, with.values[3]);
  }
  __device__ __forceinline__ static void join(Sum& sum, int mask) { sum += __shfl_xor_sync(kAllLanes, sum, mask); }

  // float32's halves of e4m3 numbers are 2^-8 of them: both formats' exponents begin after the sign.
  __device__ static float score(Sum sum, double row_scale, const Item& item, double bias) {
    return exact_score(256.0 * sum, row_scale, item.scale, bias);
  }
  template <bool kSample>
  __device__ static void consider_row(const Wave& wave, const Item& item, const Candidates& out, float threshold,
                                      std::uint64_t row, float score) {
    constexpr double kMostNoise = 37.0;  // no noise of 52 random bits exceeds it
    const double bias = wave.bias == nullptr ? 0.0 : wave.bias[row], scale = wave.scales[row] * item.scale;
    const double rounding = 0x1p-22 * (fabs(static_cast<double>(score)) + fabs(bias));
    const double upper = score + scale * item.error + rounding + (kSample ? kMostNoise : 0.0);
    if (!(upper >= threshold) || !is_allowed(wave, item, row)) return;
    const double sum = exact_sum(wave.codes + row * wave.dim, item, wave.dim);
    consider<kSample>(wave, item, out, threshold, row, exact_score(sum, wave.scales[row], item.scale, bias));
  }

 private:
  // A byte of e4m3 in the upper half of a 16-bit float, its exponent's and mantissa's bits one place to the right.
  __device__ __forceinline__ static float half_of(unsigned bits) {
    return half_bits_to_float((bits & 0x8000u) | (bits & 0x7F00u) >> 1);
  }
  __device__ __forceinline__ static void multiply_word(Sum& sum, int codes, const float4& with) {
    const auto word = static_cast<unsigned>(codes);
    sum = fmaf(half_of(word << 8), with.x, sum);
    sum = fmaf(half_of(word), with.y, sum);
    sum = fmaf(half_of(word >> 8), with.z, sum);
    sum = fmaf(half_of(word >> 16), with.w, sum);
  }
  __device__ static double exact_sum(const std::int8_t* row, const Item& item, unsigned dim) {
    long long sum = 0;
    for (unsigned j = 0; j < dim; ++j) {
      const int code = whole_of_e4m3(static_cast<std::uint8_t>(row[j]));
      sum += static_cast<long long>(code) * (128 * item.high[j] + item.low[j]);
    }
    return static_cast<double>(sum) * kE4m3Unit;
  }
};

// Rows of codes that follow each other: kLanes lanes share a row, a piece of sixteen bytes each. Rows whose length is a
// multiple of sixteen lie on boundaries of sixteen; others are read byte by byte.
template <class CodeRows, unsigned kLanes, bool kAligned>
struct RowByRow : CodeRows {
  static constexpr unsigned kRows = kWarpLanes / kLanes;  // of a warp at once
  static constexpr unsigned kAhead = kRowsAhead;          // such times that its loads are on their way together
  using Sum = typename CodeRows::Sum;
  using Part = typename CodeRows::Part;
  using Codes = int4;

  __device__ static unsigned steps(unsigned dim) { return (pieces(dim) + kLanes - 1) / kLanes; }

  __device__ static Sum start(const Item&) { return {}; }

  __device__ __forceinline__ static Codes load(const Wave& wave, std::uint64_t first, unsigned step, unsigned lane) {
    const std::uint64_t row = first + row_of(lane);
    const unsigned byte = piece_of(step, lane) * kPieceBytes;
    if (row >= wave.rows || byte >= wave.dim) return int4{0, 0, 0, 0};
    const std::int8_t* const codes = wave.codes + row * wave.dim;
    if (kAligned) return __ldcs(reinterpret_cast<const int4*>(codes + byte));
    return int4{four_codes(codes, byte, wave.dim), four_codes(codes, byte + 4, wave.dim),
                four_codes(codes, byte + 8, wave.dim), four_codes(codes, byte + 12, wave.dim)};
  }
  __device__ __forceinline__ static Part part(const Item& item, unsigned dim, unsigned step, unsigned lane) {
    const unsigned piece = piece_of(step, lane);
    return CodeRows::part(item, piece, piece < pieces(dim));
  }

  // All lanes of a row hold its sums; they take turns at the rows, so that the tail is shared as well.
  __device__ __forceinline__ static Sum total(Sum sum, unsigned) {
    FLLM_UNROLL
    for (unsigned mask = kLanes / 2; mask > 0; mask /= 2) CodeRows::join(sum, static_cast<int>(mask));
    return sum;
  }
  __device__ static unsigned row_of(unsigned lane) { return lane / kLanes; }
  __device__ static bool takes(unsigned lane, unsigned ahead) { return lane % kLanes == ahead % kLanes; }

 private:
  __device__ static unsigned pieces(unsigned dim) { return (dim + kPieceBytes - 1) / kPieceBytes; }
  __device__ static unsigned piece_of(unsigned step, unsigned lane) { return step * kLanes + lane % kLanes; }

  __device__ __forceinline__ static int four_codes(const std::int8_t* row, unsigned first, unsigned dim) {
    unsigned word = 0;
    for (unsigned byte = 0; byte < 4 && first + byte < dim; ++byte) {
      word |= static_cast<unsigned>(static_cast<std::uint8_t>(row[first + byte])) << (8 * byte);
    }
    return static_cast<int>(word);
  }
};

// Rows in planes of two bits: a warp takes a slab of them, and tensor cores multiply. Of the eight columns of a tile
// the even ones are the item's high limb and the odd ones its low limb, so that every lane finds the sums of four rows
// and takes one of them.
template <unsigned kPlanes>
struct PlaneRows : IntegerRows {
  static constexpr unsigned kRows = kSlabRows;
  static constexpr unsigned kAhead = kRowsAhead / kPlanes;
  struct Sum {
    int tiles[2][4];
  };
  using Codes = typename Planes<kPlanes>::Words;
  using Part = int4;

  __device__ static unsigned steps(unsigned dim) { return (dim + kStepDims - 1) / kStepDims; }

  __device__ __forceinline__ static Sum start(const Item& item) {
    const int low = Planes<kPlanes>::offset(item);
    return {{{0, low, 0, low}, {0, low, 0, low}}};
  }

  __device__ __forceinline__ static Codes load(const Wave& wave, std::uint64_t first, unsigned step, unsigned lane) {
    Codes codes;
    FLLM_UNROLL
    for (unsigned plane = 0; plane < kPlanes; ++plane) {
      const std::int8_t* const from = Planes<kPlanes>::source(wave, first, step, plane, lane);
      codes.planes[plane] = from == nullptr ? int4{0, 0, 0, 0} : __ldcs(reinterpret_cast<const int4*>(from));
    }
    return codes;
  }
  __device__ __forceinline__ static Part part(const Item& item, unsigned dim, unsigned step, unsigned lane) {
    const unsigned piece = step * kStepGroups + lane % 4;
    if (piece * kPieceBytes >= dim) return int4{0, 0, 0, 0};
    return reinterpret_cast<const int4*>(lane / 4 % 2 == 0 ? item.high : item.low)[piece];
  }
  __device__ __forceinline__ static void multiply(Sum& sum, const Codes& codes, const Part& with) {
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m) {
      unsigned rows[4];
      Planes<kPlanes>::fragment(codes, m, 0, rows);
      multiply_tile(sum.tiles[m], rows, static_cast<unsigned>(with.x), static_cast<unsigned>(with.y));
      Planes<kPlanes>::fragment(codes, m, 1, rows);
      multiply_tile(sum.tiles[m], rows, static_cast<unsigned>(with.z), static_cast<unsigned>(with.w));
    }
  }

  // Of the lane's four rows the one whose number in the slab is the lane's.
  __device__ __forceinline__ static Sums total(const Sum& sum, unsigned lane) {
    const int (&first)[4] = sum.tiles[0], (&second)[4] = sum.tiles[1];
    const bool upper = lane / 2 % 2 != 0, odd = lane % 2 != 0;
    return {upper ? (odd ? second[2] : second[0]) : (odd ? first[2] : first[0]),
            upper ? (odd ? second[3] : second[1]) : (odd ? first[3] : first[1])};
  }
  __device__ static unsigned row_of(unsigned lane) { return lane; }
  __device__ static bool takes(unsigned, unsigned) { return true; }
};

}  // namespace fllm::cuda

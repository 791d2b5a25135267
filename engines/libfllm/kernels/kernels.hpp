// The inner loops, one table of functions per instruction set. Everything here is plain data and plain pointers, so
// that the files compiled for one instruction set share no inline code with the rest of the library.
//
// Common words: a *block* is a few rows of one tile (at most kBlockRows); *items* are query columns, padded to a
// multiple of kItemLanes; a *hit* is a (row, item) pair whose score may reach the item's threshold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/planes.hpp"
#include "kernels/sketch.hpp"
#include "kernels/writing.hpp"

namespace fllm::kernels {

inline constexpr std::size_t kBlockRows = 64;
inline constexpr std::size_t kItemLanes = 16;
inline constexpr std::size_t kAlign = 64;  // every packed query, sum and score buffer starts on this boundary

struct Hit {
  std::uint16_t row;   // within the block
  std::uint16_t item;  // column
};

// What turns the sums of a block into scores: score = sum * (scales[row] * item_scales[item]) + bias[row], in float32.
// A pair is a hit when score + row_errors[row] * item_errors[item] >= thresholds[item]; the caller chooses the errors
// so that no row of the exact ranking can be missed, and scores the hits again exactly. A sum that is not a number
// counts as a hit (float32 values may overflow where their exact score does not); a threshold of +infinity has no hits.
// How far rounding may take the score: select_scalar.cpp.
struct Block {
  std::size_t rows;
  const float* scales;      // [rows]
  const float* row_errors;  // [rows], at least 0
  const float* bias;        // [rows], or null
};

struct Items {
  std::size_t count;        // padded to kItemLanes; padding has scale 0 and threshold +infinity
  const float* scales;      // [count]
  const float* errors;      // [count], at least 0
  const float* thresholds;  // [count]; -infinity while fewer than K users are known
};

// The largest score that powers are taken of: the sum of a block of fourth powers stays within float32.
inline constexpr float kLargestScore = 0x1p30f;

// The softmax denominator of a block: sums[item] += exp(score - references[item]). A reference is raised, and the sum
// rescaled, when a score exceeds it by more than 4; it starts at -infinity and then is an integer near a score.
// With an exponent from 1 to 4, sums[item] += max(score, 0)^exponent, scores above kLargestScore being that, and the
// references are not used. Padding items are accumulated too and ignored by the caller. Relative error of sums: at most
// 1e-6 a block.
struct Denominator {
  float* references;  // [items]
  float* sums;        // [items]
  int exponent;       // 0: exponentials
};

// What a sampled row must reach: ln w(score) + noise >= threshold, w being exp(score) or, with an exponent from 1 to 4,
// 1 + max(score, 0)^exponent, scores above kLargestScore being that.
struct Reach {
  float threshold;
  int exponent;  // 0: exponentials
};

// What bounds of tiles take of items: norms, and what float32 may make of a product with a tile's direction.
struct TileItems {
  std::size_t count;
  const double* norms;  // [count]
  const double* lost;   // [count]
};

// Turns rows of a codec into float32 values [rows, padded dim], padded with zeros to a multiple of 16; `groups` holds
// what belongs to them of a codec that has groups. norms[r] is at least the Euclidean norm of the values (rounded up):
// +infinity when that is beyond float32, NaN when a value is.
using Decode = void (*)(const void* codes, const std::uint8_t* groups, std::size_t rows, std::size_t dim, float* values,
                        float* norms);

struct Kernels {
  const char* isa;  // the level's name, such as "avx2"

  // ---- int8: exact integer dot products of int8 codes [rows, dim] (row stride = dim bytes, no padding; nothing
  // outside rows * dim bytes is read) with query limbs in [-64, 63].

  // Bytes of one packed limb of `items` queries, and the packing itself. `limb` is int8 [items, dim] row-major, items
  // not padded; the packed form covers the padded count. For a single item and int8_one, items = 1.
  std::size_t (*int8_one_bytes)(std::size_t dim);
  void (*int8_one_pack)(const std::int8_t* limb, std::size_t dim, void* packed);
  std::size_t (*int8_many_bytes)(std::size_t items, std::size_t dim);
  void (*int8_many_pack)(const std::int8_t* limb, std::size_t items, std::size_t dim, void* packed);
  // Packs `count` columns of a packed limb once more, as items 0 .. count - 1.
  void (*int8_many_gather)(const void* packed, const std::uint32_t* columns, std::size_t count, std::size_t dim,
                           void* out);

  // One item: high[r] = sum_j codes[r, j] * high_limb[j], low alike. rows <= kBlockRows. Bound by memory: prefetches.
  void (*int8_one)(const std::int8_t* codes, std::size_t rows, std::size_t dim, const void* packed_high,
                   const void* packed_low, std::int32_t* high, std::int32_t* low);

  // Many items: high[r * items + i], low alike; low and packed_low may be null together (first limb only).
  // `items` is the padded count. rows <= kBlockRows.
  void (*int8_many)(const std::int8_t* codes, std::size_t rows, std::size_t dim, std::size_t items,
                    const void* packed_high, const void* packed_low, std::int32_t* high, std::int32_t* low);

  // ---- codecs in bit planes (planes.hpp): exact integer dot products of their values, which fit int8.

  // One item, with limbs as int8_one_pack makes them: high[r] and low alike of all rows of the blocks, at most
  // kBlockRows. Bound by memory: prefetches.
  void (*planes_one)(const PlaneBlocks& blocks, const void* packed_high, const void* packed_low, std::int32_t* high,
                     std::int32_t* low);
  // Writes the values [16 blocks, 16 groups] as int8 codes.
  void (*planes_unpack)(const PlaneBlocks& blocks, std::int8_t* values);

  // ---- other codecs
  Decode decode_fp32;
  Decode decode_fp16;
  Decode decode_fp8;
  Decode decode_int4;
  // sums[r] of one query [padded dim]; sums[r * items + i] of many, packed as [padded dim, items].
  // |error| <= float_error(dim) * norm(row) * norm(query).
  void (*float_one)(const float* values, std::size_t rows, std::size_t padded_dim, const float* query, float* sums);
  void (*float_many)(const float* values, std::size_t rows, std::size_t padded_dim, std::size_t items,
                     const float* packed, float* sums);

  // ---- selection
  // One int8 item, exactly the reference's definition: scores[r] =
  // float32((128 high[r] + low[r]) * (double(scales[r]) * item_scale) + bias[r]), product and sum rounded in double.
  void (*finish_int8_one)(const std::int32_t* high, const std::int32_t* low, const Block& block, double item_scale,
                          float* scores);
  // One item of another codec: scores[r] in float32, and uppers[r] = score + row_errors[r] * item_error; +infinity
  // where that is not a number.
  void (*finish_float_one)(const float* sums, const Block& block, float item_scale, float item_error, float* scores,
                           float* uppers);
  // Indices of values[0..n) that are not below threshold, those that are no numbers among them, ascending; returns how
  // many; `indices` has room for n, at most 65,536.
  std::size_t (*not_below)(const float* values, std::size_t n, float threshold, std::uint16_t* indices);
  // Adds exp(scores[i] - reference) over n <= kBlockRows scores, by the rules of Denominator for a single item.
  void (*accumulate_one)(const float* scores, std::size_t n, float* reference, float* sum);
  // The same of powers: returns the sum of max(score, 0)^exponent.
  float (*powers_one)(const float* scores, std::size_t n, int exponent);
  // Many items: hits of a block in row order, then item order; returns how many (out has room for rows * items).
  // sum = 128 high + low (low may be null: 128 high). `denominator` may be null.
  std::size_t (*select_int8_many)(const std::int32_t* high, const std::int32_t* low, const Block& block,
                                  const Items& items, const Denominator* denominator, Hit* out);
  std::size_t (*select_float_many)(const float* sums, const Block& block, const Items& items,
                                   const Denominator* denominator, Hit* out);

  // ---- bounds of tiles
  // Of one tile with its four extents and its direction's product with each item: what no score of its rows exceeds,
  // rounded up, and how promising it is; +infinity where that is not known. The same bits on every level.
  void (*tile_reach)(const float* products, const float* extents, const TileItems& items, float* uppers,
                     float* promises);

  // ---- the sketch pass (sketch.hpp)
  SketchBounds sketch_bounds;

  // Gumbel noise, the same bits as fllm::gumbel on every level.
  void (*gumbel)(std::uint64_t seed, const std::int64_t* ids, std::size_t n, double* noise);
  // Indices of the rows whose logit plus noise may reach a threshold, ascending: all that do, and few others. Returns
  // how many; n <= kBlockRows. No logarithm is taken (reach_lanes.hpp).
  std::size_t (*may_reach)(std::uint64_t seed, const std::int64_t* ids, const float* scores, std::size_t n,
                           const Reach& reach, std::uint16_t* indices);

  // ---- writing a table (writing.hpp)
  Writing writing;
};

// The relative error bound of float_one and float_many (any order of summation, with or without fused multiply-add).
static inline double float_error(std::size_t dim) { return (static_cast<double>(dim) + 8.0) * 0x1p-24; }

// The kernels of a level by name, or null when this build or this machine lacks it. For an empty name the level that
// the environment variable FLLM_ISA names, and Status::hardware when it is lacking; the best level of this machine
// when FLLM_ISA is unset or empty. Safe to call from any thread.
const Kernels* find(const char* isa);

}  // namespace fllm::kernels

// What a kernel is given: rows that lie in device memory, the item, and where candidates go.
#pragma once

#include <cstdint>

namespace fllm::cuda {

constexpr unsigned kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr unsigned kMaxDim = 16384;
constexpr unsigned kPieceBytes = 16;  // of a row's codes, that a lane loads at once

enum class Codes : std::uint32_t { int8, fp8, int2, int4row };  // fp8 is e4m3

// The rows of a *wave*: those that are scored between two looks at the thresholds.
struct Wave {
  const std::int8_t* codes;  // [rows, dim]; of int2 and int4row the blocks of kernels/planes.hpp, of all rows
  const float* scales;       // [rows]
  const float* bias;         // [rows], or null
  const std::int64_t* ids;   // [rows], or null: the id of a row is first_id + row
  std::int64_t first_id;
  std::uint64_t first_row;  // the number of the wave's first row in the table
  std::uint64_t rows;
  std::uint32_t dim;  // at most kMaxDim
  float most_bias;    // the largest magnitude of a bias
  Codes kind;
};

// An item vector, scale * (128 high + low), limbs in [-64, 63].
struct Item {
  const std::int8_t* high;       // [dim], and zeros up to a multiple of kPieceBytes; on a boundary of as many bytes
  const std::int8_t* low;        // the same
  const float* whole;            // [dim], and as many zeros: 128 high + low
  const std::uint32_t* allowed;  // a bit for each row of the table, from the lowest of the first word on; null: all
  double scale;
  float error;           // of a float32 sum of fp8 codes' products with the integers, at most
  float error_together;  // of tensor cores' sum of their products with both limbs, at most
  std::uint64_t seed;    // of the noise; sampling only
  std::uint32_t* peak;   // the largest score that a scan for one item has met, as order.cuh writes it
  std::int32_t sum;      // of the integers 128 high + low; int2 and int4row only
};

// The best users of an item so far, and those that may displace them; in no order.
struct Candidates {
  float* keys;           // [capacity]
  float* scores;         // [capacity]
  std::int64_t* ids;     // [capacity]
  std::uint32_t* count;  // how many were offered; beyond the capacity they are counted and not kept
  std::uint32_t* kept;   // how many the last pruning left, which lie first
  float* threshold;      // what a key must reach: that of the K-th best, or -infinity
  std::uint32_t capacity;
  std::uint32_t k;  // less than the capacity
};

// A share of the softmax denominator: the largest score m, and the sum l of exp(score - m).
struct Share {
  float m;
  double l;
};

// Items that share a scan.
struct ItemBatch {
  const Item* items;             // [count], in device memory, as all of this
  const Candidates* candidates;  // [count]
  Share* shares;                 // [count, stride], or null where no denominator is wanted
  std::uint32_t count, stride;
};

}  // namespace fllm::cuda

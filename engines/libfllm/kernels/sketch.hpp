// The inner loop of the sketch pass, whose function Kernels::sketch_bounds is: estimates and upper bounds of the scores
// of rows from two or four bits a number (docs/internals/sketch.md). Plain data and plain pointers, as in kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/planes.hpp"

namespace fllm::kernels {

struct SketchBlocks {
  std::size_t rows;              // the last block may be cut short; its lanes exist in every tensor but bias
  std::size_t groups;            // dimensions of the sketch / 16
  std::size_t parts;             // 3 when rows have outer norms, 2 otherwise
  const std::uint8_t* coarse;    // [blocks, groups, 64], the upper two bits of each level
  const std::uint8_t* fine;      // the lower two bits, or null: coarse codes alone
  const std::uint16_t* factors;  // bfloat16 [blocks, parts, 16] of the codes that are read: scale, inner, outer norm
  const float* bias;             // [rows], or null
};

struct SketchItem {
  const std::int8_t* limb;  // [16 * groups], in [-127, 127]
  std::int32_t limb_sum;
  float scale;     // of the limb
  float rounding;  // multiplies the scales of rows: what rounding the query may have moved a score by
  float inner;     // multiplies inner norms
  float outer;     // multiplies outer norms
};

// code = 2 * upper - 3, or 2 * (4 * upper + lower) - 15 with fine bits;
// estimates[r] = scale * (code . limb * item.scale) + bias;
// uppers[r] = estimate + scale * item.rounding + inner * item.inner + outer * item.outer, raised by what the last
// additions may have rounded away. Both hold room for whole blocks; every level writes the same bits.
using SketchBounds = void (*)(const SketchBlocks& blocks, const SketchItem& item, float* estimates, float* uppers);

// Upper bounds are raised by this part of themselves, and by this much.
inline constexpr float kSketchRaise = 0x1p-22f;
inline constexpr float kSketchTiny = 0x1p-120f;

}  // namespace fllm::kernels

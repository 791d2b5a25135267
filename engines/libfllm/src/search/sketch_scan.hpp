// The sketch pass of one item: which rows may be among the best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/sketch.hpp"
#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "search/query.hpp"

namespace fllm {

class SketchScan {
 public:
  // So few that their codes are still coming in while the rows before them are sifted.
  static constexpr std::size_t kChunkRows = 256;

  // Proving bounds when the column's search wants the exact answer, statistical ones otherwise.
  SketchScan(const Table& table, const kernels::Kernels& kernels, const Column& column);

  // The rows of [first, first + rows) of a tile, at most kChunkRows, whose upper bound reaches `threshold`, counted
  // from `first`; `bias` has one for each of them, or is null, and `out` has room for them all.
  std::size_t survivors(const Tile& tile, std::size_t first, std::size_t rows, const float* bias, float threshold,
                        std::uint16_t* out);

  // The upper bound of a row of the last call.
  float upper(std::size_t row) const { return uppers_[row]; }

 private:
  const kernels::Kernels& kernels_;
  bool exact_;
  std::vector<SketchQuery> queries_;        // one a basis
  std::vector<kernels::SketchItem> items_;  // what the kernel reads of each
  std::vector<float> estimates_, uppers_;
};

}  // namespace fllm

#include "search/sketch_scan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fllm {

namespace {

constexpr double kDeviations =
    3.5;  // of the statistical bounds; docs/internals/sketch.md has the recall that this gives

}  // namespace

SketchScan::SketchScan(const Table& table, const kernels::Kernels& kernels, const Column& column)
    : kernels_(kernels), exact_(column.search->exact), estimates_(kChunkRows), uppers_(kChunkRows) {
  const Layout& layout = table.layout();
  const std::vector<double> values = as_scored(layout.codec, column.search->z + column.item * layout.dim, layout.dim);
  for (const Sketch& sketch : table.sketches()) {
    if (sketch.basis_number == queries_.size()) queries_.emplace_back(sketch, values.data());
  }
  for (const SketchQuery& query : queries_) {
    items_.push_back(exact_ ? query.proving(true) : query.estimating(false, kDeviations));
  }
}

std::size_t SketchScan::survivors(const Tile& tile, std::size_t first, std::size_t rows, const float* bias,
                                  float threshold, std::uint16_t* out) {
  const std::size_t number = tile.sketch->basis_number;
  if (queries_[number].usable()) {
    kernels_.sketch_bounds(tile.sketch->blocks(tile.sketch_row + first, rows, bias, exact_), items_[number],
                           estimates_.data(), uppers_.data());
  } else {
    std::fill_n(estimates_.begin(), rows, 0.0f);
    std::fill_n(uppers_.begin(), rows, std::numeric_limits<float>::infinity());
  }
  return kernels_.not_below(uppers_.data(), rows, threshold, out);
}

}  // namespace fllm

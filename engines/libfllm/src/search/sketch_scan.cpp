#include "search/sketch_scan.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fllm {

namespace {

constexpr double kDeviations =
    3.5;  // of the statistical bounds; docs/internals/sketch.md has the recall that this gives
constexpr float kNothing = -1e30f;  // the logarithm of what a row adds that is scored exactly instead

}  // namespace

SketchScan::SketchScan(const Table& table, const kernels::Kernels& kernels, const Column& column)
    : kernels_(kernels),
      exact_(column.search->exact),
      estimates_(kChunkRows),
      uppers_(kChunkRows),
      expected_(kChunkRows) {
  const Layout& layout = table.layout();
  const std::vector<double> values = as_scored(layout.codec, column.search->z + column.item * layout.dim, layout.dim);
  for (const Sketch& sketch : table.sketches()) {
    if (sketch.basis_number == queries_.size()) queries_.emplace_back(sketch, values.data());
  }
  for (const SketchQuery& query : queries_) {
    items_.push_back(exact_ ? query.proving(true) : query.estimating(false, kDeviations));
  }
  shrink_ = exact_ ? 1.0f : static_cast<float>(1.0 / SketchQuery::kCoarseUnbiased);
  spread_ = static_cast<float>(exact_ ? 1.0 / std::sqrt(static_cast<double>(layout.sketch_dims)) : 1.0 / kDeviations);
}

std::size_t SketchScan::survivors(const Tile& tile, std::size_t first, std::size_t rows, const float* bias,
                                  float threshold, LogSumExp* denominator, std::uint16_t* out) {
  const std::size_t number = tile.sketch->basis_number;
  if (queries_[number].usable()) {
    kernels_.sketch_bounds(tile.sketch->blocks(tile.sketch_row + first, rows, bias, exact_), items_[number],
                           estimates_.data(), uppers_.data());
  } else {
    std::fill_n(estimates_.begin(), rows, 0.0f);
    std::fill_n(uppers_.begin(), rows, std::numeric_limits<float>::infinity());
  }
  const std::size_t found = kernels_.not_below(uppers_.data(), rows, threshold, out);
  if (denominator == nullptr) return found;
  expect(bias, rows);
  for (std::size_t i = 0; i < found; ++i) expected_[out[i]] = kNothing;
  for (std::size_t at = 0; at < rows; at += kernels::kBlockRows) {
    float reference = -std::numeric_limits<float>::infinity(), sum = 0.0f;
    kernels_.accumulate_one(expected_.data() + at, std::min(kernels::kBlockRows, rows - at), &reference, &sum);
    denominator->add(reference, sum);
  }
  return found;
}

void SketchScan::expect(const float* bias, std::size_t rows) {
  for (std::size_t r = 0; r < rows; ++r) {
    const float shift = bias == nullptr ? 0.0f : bias[r];
    const float deviation = (uppers_[r] - estimates_[r]) * spread_;
    expected_[r] = std::min((estimates_[r] - shift) * shrink_ + shift + 0.5f * deviation * deviation, uppers_[r]);
  }
}

}  // namespace fllm

#include "changes/tile_order.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "write/parallel.hpp"
#include "write/row_order.hpp"
#include "write/tiling.hpp"

namespace fllm::changes {

namespace {

constexpr std::size_t kSampleRows = 2048;
constexpr int kRounds = 4;

// Rows [directions, dim] that are made orthonormal one after the other, zeros where nothing is left (Gram and Schmidt,
// twice: once is not enough where rows are nearly parallel).
void make_orthonormal(std::vector<double>& directions, std::size_t dim) {
  for (std::size_t row = 0; row < directions.size() / dim; ++row) {
    double* each = directions.data() + row * dim;
    for (std::size_t before = 0; before < 2 * row; ++before) {
      const double* known = directions.data() + before % row * dim;
      double along = 0;
      for (std::size_t j = 0; j < dim; ++j) along += each[j] * known[j];
      for (std::size_t j = 0; j < dim; ++j) each[j] -= along * known[j];
    }
    double squares = 0;
    for (std::size_t j = 0; j < dim; ++j) squares += each[j] * each[j];
    const double factor = squares > 1e-24 ? 1 / std::sqrt(squares) : 0.0;
    for (std::size_t j = 0; j < dim; ++j) each[j] *= factor;
  }
}

// The rows of `directions` times the second moment of `sample` [n, dim], without making that matrix.
std::vector<double> turned(const std::vector<float>& sample, const std::vector<double>& directions, std::size_t dim) {
  std::vector<double> sums(directions.size());
  for (std::size_t at = 0; at < sample.size(); at += dim) {
    for (std::size_t first = 0; first < directions.size(); first += dim) {
      double along = 0;
      for (std::size_t j = 0; j < dim; ++j) along += static_cast<double>(sample[at + j]) * directions[first + j];
      for (std::size_t j = 0; j < dim; ++j) sums[first + j] += along * static_cast<double>(sample[at + j]);
    }
  }
  return sums;
}

// At most kernels::kFeatures directions in which rows are longest: subspace iteration from the first rows' own.
std::vector<float> principal_directions(const StoredRows& rows, std::size_t dim) {
  const std::size_t sampled = std::min(rows.size(), kSampleRows), count = std::min(dim, kernels::kFeatures);
  std::vector<float> sample;
  sample.reserve(sampled * dim);
  float peak = 0;
  for (std::size_t i = 0; i < sampled; ++i) {
    const std::size_t row = i * rows.size() / sampled;
    for (const float number : rows.decoded(row, row + 1)) {
      sample.push_back(number);
      peak = std::max(peak, std::abs(number));
    }
  }
  if (peak > 0) {
    for (float& number : sample) number /= peak;  // lengths far from 1 would leave float64's range
  }
  std::vector<double> directions(count * dim);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j < dim; ++j) directions[i * dim + j] = static_cast<double>(sample[i % sampled * dim + j]);
    directions[i * dim + i] += 1;  // not all of them parallel
  }
  for (int round = 0; round < kRounds; ++round) {
    make_orthonormal(directions, dim);
    directions = turned(sample, directions, dim);
  }
  make_orthonormal(directions, dim);
  return {directions.begin(), directions.end()};
}

}  // namespace

TileOrder tile_order(const StoredRows& rows, const Layout& layout, bool uneven) {
  const std::size_t n = rows.size(), dim = layout.dim;
  const std::vector<float> directions = principal_directions(rows, dim);
  const std::size_t count = directions.size() / dim;
  const writing::Weights weights(directions.data(), count, dim);
  const kernels::Writing& kernels = kernels::find("")->writing;
  std::vector<float> points(n * kernels::kPointFloats);
  writing::for_parts(n, writing::rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
    const std::vector<float> part = rows.decoded(start, stop);
    writing::write_points(kernels, weights, part.data(), stop - start, dim, count,
                          points.data() + start * kernels::kPointFloats);
  });
  std::vector<std::int64_t> order(n);
  TileOrder found;
  const auto tile = static_cast<std::size_t>(layout.tile_rows);
  if (uneven) {
    found.ends = writing::tile_rows_of(kernels, points.data(), n, tile, order.data());
  } else {
    writing::order_rows(kernels, points.data(), n, tile, order.data());
  }
  found.rows.assign(order.begin(), order.end());
  return found;
}

}  // namespace fllm::changes

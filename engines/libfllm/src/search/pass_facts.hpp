// What the workers of a pass share.
#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <vector>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "search/query.hpp"
#include "search/search.hpp"

namespace fllm {

// Rows of one tile that one thread scores together.
struct Span {
  const Tile* tile;
  std::size_t first, rows;
  std::size_t live;  // rows that are not deleted, at least 1
};

// The greatest number that any thread knows of a column, such as its K-th best key: a row below that cannot be among
// the K best.
class SharedThresholds {
 public:
  explicit SharedThresholds(std::size_t columns) : known_(columns) {
    for (std::atomic<float>& threshold : known_) threshold.store(-std::numeric_limits<float>::infinity());
  }

  float of(std::size_t column) const { return known_[column].load(std::memory_order_relaxed); }

  void raise(std::size_t column, float threshold) {
    float known = of(column);
    while (threshold > known && !known_[column].compare_exchange_weak(known, threshold, std::memory_order_relaxed)) {
    }
  }

 private:
  std::vector<std::atomic<float>> known_;
};

struct PassFacts {
  const Table& table;
  const kernels::Kernels& kernels;
  Link link;
  std::vector<Column> columns;
  bool wants_denominator;  // rows are summed up as they are scored
  bool samples;
  std::size_t sketch_columns;  // spans that at most so many columns want are read by the sketch; 0: none is
  Queries queries;
  SharedThresholds thresholds;
  // With denominators: a tile none of whose scores exceeds this adds a negligible share, and may be left out.
  SharedThresholds negligible;
  float negligible_share;  // the logarithm of what all that is left out may add, relative to the mean row's share
};

}  // namespace fllm

// Rows of one item that a sketch did not rule out, waiting to be scored.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "search/pass_facts.hpp"

namespace fllm {

// Scores of the rows whose bounds are greatest set a threshold that spares most of the others, and the longer the
// others wait, the higher it is.
class Backlog {
 public:
  struct Row {
    const Span* span;   // outlives the pass
    std::uint32_t row;  // of the span
    float upper;        // no score exceeds it, or none is likely to

    std::size_t in_tile() const { return span->first + row; }
  };

  void add(const Row& row) { rows_.push_back(row); }
  bool empty() const { return rows_.empty(); }
  std::size_t size() const { return rows_.size(); }

  // Counts rows that were looked at, and says whether there are twice as many as when it last said so.
  bool doubled(std::size_t rows) {
    seen_ += rows;
    if (seen_ < due_) return false;
    due_ = 2 * seen_;
    return true;
  }

  // Drops rows whose bounds lie below `threshold` and moves the `count` greatest of the others to `out`, in the order
  // in which they came; more than `count` when bounds are equal.
  void take(std::size_t count, float threshold, std::vector<Row>& out) {
    out.clear();
    std::erase_if(rows_, [threshold](const Row& row) { return !(row.upper >= threshold); });
    if (count >= rows_.size()) return out.swap(rows_);
    uppers_.clear();
    for (const Row& row : rows_) uppers_.push_back(row.upper);
    const auto last = uppers_.begin() + static_cast<std::ptrdiff_t>(count - 1);
    std::nth_element(uppers_.begin(), last, uppers_.end(), std::greater<>());
    std::erase_if(rows_, [&out, least = *last](const Row& row) {
      if (row.upper >= least) out.push_back(row);
      return row.upper >= least;
    });
  }

 private:
  std::vector<Row> rows_;
  std::vector<float> uppers_;
  std::size_t seen_ = 0, due_ = 1;
};

}  // namespace fllm

// The K best users seen so far.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "search/search.hpp"

namespace fllm {

// Collects candidates in a buffer somewhat larger than K and cuts it back to the K best when it is full, so that an
// addition costs a few comparisons on average, for K = 1 as for K = 100,000.
class Best {
 public:
  explicit Best(std::size_t k) : k_(k) { buffer_.reserve(std::min<std::size_t>(capacity(), 1024)); }

  // A key below this cannot be among the K best; -infinity while fewer than K are known.
  float threshold() const { return threshold_; }

  void add(const Candidate& candidate) {
    buffer_.push_back(candidate);
    if (buffer_.size() >= capacity()) cut();
  }

  const std::vector<Candidate>& candidates() const { return buffer_; }

 private:
  std::size_t capacity() const { return k_ + std::max<std::size_t>(k_ / 2, 16); }

  void cut() {
    const auto kth = buffer_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
    std::nth_element(buffer_.begin(), kth, buffer_.end(), ranks_before);
    buffer_.resize(k_);
    threshold_ = buffer_.back().key;
  }

  std::size_t k_;
  float threshold_ = -std::numeric_limits<float>::infinity();
  std::vector<Candidate> buffer_;
};

}  // namespace fllm

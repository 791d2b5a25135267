// What makes passes over a table: the CPU's threads, or GPUs.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "link.hpp"
#include "search/denominator.hpp"
#include "search/query.hpp"
#include "search/search.hpp"

namespace fllm {

class Engine {
 public:
  virtual ~Engine() = default;

  // Whether searches may share a pass: they want the same mode, kind of log-probabilities and exactness.
  virtual bool alike(const Search& a, const Search& b) const;

  // One pass for columns of searches that are alike; the answers in their order.
  // A search that was cancelled has incomplete ones. One call at a time.
  virtual std::vector<ItemAnswer> scan(std::vector<Column> columns) = 0;

  // Of a pass; more would not be cheaper together.
  virtual std::size_t most_columns() const = 0;

  // What an item takes while its K best users are sought.
  virtual std::size_t candidate_bytes(std::size_t k) const = 0;

  // Throws Error (Status::usage) for a search that this engine cannot make.
  virtual void check(const Search&) const {}

  // The instruction set, or the kind of GPU.
  virtual const std::string& level() const = 0;
};

// Whether a search of some columns still wants more: none does once all are cancelled or their time is over.
bool any_goes_on(const std::vector<Column>& columns);

// The k best of some candidates, ranked.
ItemAnswer ranked(std::vector<Candidate> users, std::size_t k);

// The logarithm of a denominator that float32 scores make up. The users found are scored exactly: of a distribution
// that these make up almost alone, their own sum is the better part of the truth, and no probability may exceed 1.
double at_least_of(const std::vector<Candidate>& users, const LogSumExp& denominator, const Link& link = {});

}  // namespace fllm

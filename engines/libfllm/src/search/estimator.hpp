// Estimates the softmax denominators of a pass that left rows unread, and bounds their errors
// (docs/internals/log_probabilities.md). fllm_export.engines.estimator is the definition.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "machine/pool.hpp"
#include "search/denominator.hpp"
#include "search/panel.hpp"
#include "search/pass_facts.hpp"
#include "search/tile_bounds.hpp"

namespace fllm {

class Estimator {
 public:
  // `bounds` are those of the pass, or null.
  Estimator(const PassFacts& pass, const Panel& panel, const TileBounds* bounds);

  // Gives the answers, one a column, their logsumexp and its error.
  void estimate(std::vector<ItemAnswer>& answers, Pool& pool);

 private:
  class Scorer;

  // Sums over rows drawn: of weights w(score), and of their variance within blocks.
  struct Drawn {
    LogSumExp sum, variance;
  };
  // What is known of a column before rows are scored.
  struct Known {
    std::vector<std::size_t> tiles;       // that are read in full, ascending
    std::vector<std::uint32_t> excluded;  // slots of the panel whose rows are counted apart, ascending
    LogSumExp sum;                        // of the rows counted apart
  };

  void prepare(std::size_t column, const ItemAnswer& answer);
  bool is_read(const Known& known, std::uint64_t row) const;
  void work(std::atomic<std::size_t>& next);
  void finish(std::size_t column, ItemAnswer& answer);
  double ceiling(std::size_t column, const ItemAnswer& answer) const;
  // The most that all rows may add up to, relative to exp(m); +infinity as soon as it exceeds `enough`.
  double upper_sum(std::size_t column, double known, double m, double ceiling, double enough) const;
  bool proves_ceiling(std::size_t column, const ItemAnswer& answer) const;

  const PassFacts& pass_;
  const Panel& panel_;
  const TileBounds* bounds_;
  std::size_t tiles_read_, chunks_;
  std::vector<Known> known_;     // [columns]
  std::vector<Drawn> drawn_;     // [chunks, columns]
  std::vector<LogSumExp> read_;  // [columns, tiles read]
};

}  // namespace fllm

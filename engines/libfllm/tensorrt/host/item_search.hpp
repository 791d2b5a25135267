// What a pass has learnt about one item: rows that the plan proposes, those of them that were scored exactly, and the
// denominator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "exact_rows.hpp"
#include "plan_table.hpp"
#include "search/denominator.hpp"
#include "search/search.hpp"
#include "whole_item.hpp"

namespace fllm::tensorrt {

// One item's share of what a plan found in a block.
struct ItemFound {
  const float* scores;       // [K]
  const std::int64_t* rows;  // [K]
  std::size_t k;
  float m, l;
};

class ItemSearch {
 public:
  ItemSearch(const WholeItem& item, std::size_t k, const ExactRows& rows) : item_(&item), k_(k), rows_(&rows) {}

  const WholeItem& item() const { return *item_; }

  // Takes in what the plan found. Returns what no row that it left out scores more than: -infinity when it left none
  // out, +infinity when nothing is known.
  double take(const Block& block, const RowBounds& bounds, const ItemFound& found);

  // Scores the proposals exactly that may be among the K best.
  void rescore();

  // The K-th best exact score so far, or -infinity.
  float threshold() const { return threshold_; }
  // Whether rows that score at most this may be left out. An equal score may win by its id.
  bool rules_out(double upper) const { return upper < threshold_ || upper == -kInfinity; }

  // Adds a share of the denominator; false when it is no number that can be added.
  bool add(float m, float l);

  // Scores all rows of a block, and adds their share of the denominator when `sum`.
  void score_all(const Block& block, bool sum);

  // The K best so far, in no order.
  std::vector<Candidate> best() const;
  const LogSumExp& denominator() const { return denominator_; }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  struct Proposal {
    std::uint64_t row;
    double lower, upper;  // of the exact score
  };

  struct Scored {
    Candidate user;
    std::uint64_t row;
  };

  void prune();
  void offer(std::uint64_t row, const Candidate& user);
  void cut();

  const WholeItem* item_;
  std::size_t k_;
  const ExactRows* rows_;
  std::vector<Proposal> proposals_;
  double least_ = -kInfinity;      // proposals that cannot reach it need not be kept
  std::vector<Scored> best_;       // and some more, among which a row may be twice
  std::optional<Candidate> last_;  // the K-th best of them, when they were cut last
  float threshold_ = -std::numeric_limits<float>::infinity();
  LogSumExp denominator_;
};

}  // namespace fllm::tensorrt

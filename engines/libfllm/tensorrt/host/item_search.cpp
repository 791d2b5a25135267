#include "item_search.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace fllm::tensorrt {

namespace {

constexpr std::size_t kLeastKept = 1024;  // proposals, before any are dropped

// Tells places that hold a row of a block, each row once. Rows that a plan chose by their scores differ; where padding
// was chosen too, nothing is said of what else stands beside a score of -infinity.
class Rows {
 public:
  Rows(const Block& block, std::size_t k) : valid_(block.valid), plain_(block.valid > k) {}

  bool takes(std::int64_t row) {
    if (static_cast<std::uint64_t>(row) >= valid_) return false;  // negative ones too
    return plain_ || seen_.insert(row).second;
  }

 private:
  std::uint64_t valid_;
  bool plain_;
  std::unordered_set<std::int64_t> seen_;
};

}  // namespace

double ItemSearch::take(const Block& block, const RowBounds& bounds, const ItemFound& found) {
  const double allowed = allowance(*item_, bounds.reach);
  double left_out = kInfinity;
  bool all_known = true;
  std::size_t taken = 0;
  Rows rows(block, found.k);
  for (std::size_t place = 0; place < found.k; ++place) {
    if (!rows.takes(found.rows[place])) continue;
    const double score = found.scores[place];
    const std::uint64_t row = block.first + static_cast<std::uint64_t>(found.rows[place]);
    const double margin = allowed + kRounding * (std::abs(score) + bounds.bias);
    const bool known = std::isfinite(score) && std::isfinite(margin);
    const double lower = known ? score - margin : -kInfinity, upper = known ? score + margin : kInfinity;
    // The lowest place bounds all that was left out: bounds rise with the scores.
    left_out = std::min(left_out, upper);
    all_known = all_known && known;
    ++taken;
    if (upper >= least_) proposals_.push_back({row, lower, upper});
  }
  if (proposals_.size() > std::max(kLeastKept, 4 * std::max(k_, found.k))) prune();
  if (taken == block.valid) return -kInfinity;
  return taken == found.k && all_known ? left_out : kInfinity;
}

// Drops proposals that K others are certain to be better than.
void ItemSearch::prune() {
  if (proposals_.size() <= k_) return;
  const auto kth = proposals_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
  std::nth_element(proposals_.begin(), kth, proposals_.end(),
                   [](const Proposal& a, const Proposal& b) { return a.lower > b.lower; });
  least_ = std::max(least_, kth->lower);
  std::erase_if(proposals_, [&](const Proposal& proposal) { return proposal.upper < least_; });
}

void ItemSearch::rescore() {
  prune();
  for (const Proposal& proposal : proposals_) {
    if (proposal.upper >= threshold_) offer(proposal.row, rows_->score(proposal.row, *item_));
  }
  proposals_.clear();
  cut();
}

void ItemSearch::offer(std::uint64_t row, const Candidate& user) {
  if (std::isnan(user.score) || (last_ && !ranks_before(user, *last_))) return;
  best_.push_back({user, row});
  if (best_.size() > 2 * k_ + kLeastKept) cut();
}

// Blocks are scored again: a row may come twice.
void ItemSearch::cut() {
  std::sort(best_.begin(), best_.end(), [](const Scored& a, const Scored& b) {
    return ranks_before(a.user, b.user) || (!ranks_before(b.user, a.user) && a.row < b.row);
  });
  const auto twice = [](const Scored& a, const Scored& b) { return a.row == b.row; };
  best_.erase(std::unique(best_.begin(), best_.end(), twice), best_.end());
  if (best_.size() < k_) return;
  best_.resize(k_);
  last_ = best_.back().user;
  threshold_ = last_->score;
}

std::vector<Candidate> ItemSearch::best() const {
  std::vector<Candidate> users;
  for (const Scored& scored : best_) users.push_back(scored.user);
  return users;
}

bool ItemSearch::add(float m, float l) {
  if (!std::isfinite(m) || !std::isfinite(l) || !item_->is_plain()) return false;
  denominator_.add(m, l);
  return true;
}

void ItemSearch::score_all(const Block& block, bool sum) {
  std::vector<float> scores;
  rows_->score_all(block.first, block.first + block.valid, *item_, [&](std::uint64_t row, const Candidate& user) {
    offer(row, user);
    if (sum) scores.push_back(user.score);
  });
  cut();
  if (scores.empty()) return;
  const double m = *std::max_element(scores.begin(), scores.end());
  double l = 0;
  for (const float score : scores) l += std::exp(score - m);
  denominator_.add(m, l);
}

}  // namespace fllm::tensorrt

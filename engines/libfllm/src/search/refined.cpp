#include "search/refined.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "format/refinement.hpp"
#include "machine/aligned.hpp"
#include "search/engine.hpp"
#include "search/gumbel.hpp"
#include "search/rows.hpp"

namespace fllm {

namespace {

using kernels::kBlockRows;

constexpr std::size_t kRowsAhead = 24;  // memory takes as long as the copying of so many rows
constexpr std::size_t kLineBytes = 64;

std::vector<float> leading(const Search& search, std::size_t whole, std::size_t dim) {
  std::vector<float> vectors(search.items * dim);
  for (std::size_t i = 0; i < search.items; ++i) std::copy_n(search.z + i * whole, dim, vectors.data() + i * dim);
  return vectors;
}

// Scores refinement rows that lie apart: gathers them to blocks.
class Scorer {
 public:
  Scorer(const Refinement& refinement, const kernels::Kernels& kernels, const Search& search, std::size_t item)
      : refinement_(refinement),
        layout_(refinement.layout()),
        queries_(layout_, kernels, {{&search, item}}, false),
        rows_((facts_of(layout_.codec).decode != nullptr ? make_decoded_rows : make_int8_rows)(layout_, kernels,
                                                                                               queries_)),
        codes_(kBlockRows * refinement.row_bytes()),
        scales_(kBlockRows),
        bias_(kBlockRows),
        scores_(kBlockRows) {}

  // Puts their scores in the place of those that the candidates have.
  void score(std::vector<Candidate>& users) {
    std::vector<std::uint64_t> numbers(users.size());
    std::transform(users.begin(), users.end(), numbers.begin(), [](const Candidate& user) { return user.row; });
    refinement_.prefetch(numbers);
    for (std::size_t first = 0; first < users.size(); first += kBlockRows) {
      score_block(users, numbers, first, std::min(kBlockRows, users.size() - first));
    }
  }

 private:
  void score_block(std::vector<Candidate>& users, const std::vector<std::uint64_t>& numbers, std::size_t first,
                   std::size_t count) {
    for (std::size_t r = 0; r < count; ++r) {
      if (first + r + kRowsAhead < numbers.size()) fetch(refinement_.row(numbers[first + r + kRowsAhead]));
      gather(refinement_.row(numbers[first + r]), r);
    }
    Tile tile;
    tile.rows = count;
    tile.codes = codes_.data();
    tile.scales = scales_.data();
    tile.bias = layout_.bias ? bias_.data() : nullptr;
    const RowBlock block = rows_->take(tile, 0, count);
    const bool exact = rows_->score_one(block, 0, scores_.data()) == scores_.data();
    for (std::size_t r = 0; r < count; ++r) {
      users[first + r].score = exact ? scores_[r] : rows_->exact_score(block, r, 0);
    }
  }

  void fetch(const Refinement::Row& row) const {
    for (std::size_t byte = 0; byte < refinement_.row_bytes(); byte += kLineBytes) __builtin_prefetch(row.codes + byte);
    __builtin_prefetch(row.scale);
  }

  void gather(const Refinement::Row& row, std::size_t at) {
    std::memcpy(codes_.data() + at * refinement_.row_bytes(), row.codes, refinement_.row_bytes());
    scales_[at] = *row.scale;
    if (row.bias != nullptr) bias_[at] = *row.bias;
  }

  const Refinement& refinement_;
  const Layout& layout_;
  Queries queries_;
  std::unique_ptr<Rows> rows_;
  Aligned<std::uint8_t> codes_;  // of the block: [rows, row bytes]; then [rows] each
  Aligned<float> scales_, bias_, scores_;
};

// The sum over all users in which candidates count by their new scores: log(exp(L) - sum w(old) + sum w(new)).
double corrected(double logsumexp, const std::vector<Candidate>& old, const std::vector<Candidate>& fresh,
                 const Link& link) {
  double reference = logsumexp;
  for (const Candidate& user : fresh) reference = std::max(reference, link.logit(user.score));
  double others = std::exp(logsumexp - reference), candidates = 0;
  for (const Candidate& user : old) others -= std::exp(link.logit(user.score) - reference);
  for (const Candidate& user : fresh) candidates += std::exp(link.logit(user.score) - reference);
  return reference + std::log(std::max(others, 0.0) + candidates);
}

void give_keys(std::vector<Candidate>& users, const Search& search, std::size_t item, const Link& link) {
  if (search.mode == Mode::topk) {
    for (Candidate& user : users) user.key = user.score;
    return;
  }
  const std::uint64_t seed = search.seeds == nullptr ? 0 : search.seeds[item];
  for (Candidate& user : users) {
    double noise;
    gumbel(seed, &user.id, 1, &noise);
    user.key = static_cast<float>(link.logit(user.score) + noise);
  }
}

void refine(ItemAnswer& answer, const Refinement& refinement, const kernels::Kernels& kernels, const Search& search,
            std::size_t item, const Link& link) {
  std::vector<Candidate> users = answer.users;
  Scorer(refinement, kernels, search, item).score(users);
  give_keys(users, search, item, link);
  if (search.wants_log_probs()) {
    const double scanned = answer.logsumexp;
    answer.logsumexp = corrected(scanned, answer.users, users, link);
    // The sum is off by as much as before, which is another share of it.
    const double off = std::expm1(static_cast<double>(answer.log_prob_error)) * std::exp(scanned - answer.logsumexp);
    answer.log_prob_error = static_cast<float>(std::log1p(off));
  }
  answer.log_probs_exact = false;
  answer.users = ranked(std::move(users), search.k).users;
}

// Tells what the refinement rows say of the users, and leaves the answer as it is.
void tell_refined_scores(ItemAnswer& answer, const Refinement& refinement, const kernels::Kernels& kernels,
                         const Search& search, std::size_t item) {
  std::vector<Candidate> users = answer.users;
  if (search.refine == 0) Scorer(refinement, kernels, search, item).score(users);
  answer.refined_scores.resize(users.size());
  std::transform(users.begin(), users.end(), answer.refined_scores.begin(),
                 [](const Candidate& user) { return user.score; });
}

}  // namespace

std::vector<ItemAnswer> search_refined(OpenTable& open, const kernels::Kernels& kernels, const Search& search) {
  const Layout& layout = open.table().layout();
  const Refinement* refinement = open.table().refinement();
  if (refinement == nullptr) return open.search(search);
  Search scanned = search;
  std::vector<float> vectors;
  if (layout.dim != layout.item_dim()) {
    vectors = leading(search, layout.item_dim(), layout.dim);
    scanned.z = vectors.data();
  }
  const auto rows = static_cast<std::size_t>(layout.rows);
  const std::size_t wanted = std::max<std::size_t>(search.refine, 1);
  scanned.k = search.k > rows / wanted ? rows : search.k * wanted;
  std::vector<ItemAnswer> answers = open.search(scanned);
  for (std::size_t item = 0; item < answers.size(); ++item) {
    if (search.refine > 0) refine(answers[item], *refinement, kernels, search, item, layout.link);
    if (search.refined_scores) tell_refined_scores(answers[item], *refinement, kernels, search, item);
  }
  return answers;
}

}  // namespace fllm

// One search: what is wanted, and where the answer goes.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "search/filter.hpp"

namespace fllm {

using Clock = std::chrono::steady_clock;

enum class Mode { topk, sample };
enum class LogProbs { exact, estimate, none, certified };

struct Search {
  const float* z = nullptr;  // [items, dim]; of a search that is not for one engine yet, [items, item_dim]
  std::size_t items = 0;
  std::size_t k = 0;
  Mode mode = Mode::topk;
  bool exact = true;
  std::size_t refine = 0;       // candidates per user wanted that refinement rows rank again; 0: none
  bool refined_scores = false;  // whether each user that is found also gets the score of its refinement row
  LogProbs log_probs = LogProbs::exact;
  const std::uint64_t* seeds = nullptr;  // [items], or null for zeros
  const UserFilter* filter = nullptr;
  std::optional<Clock::time_point> deadline;
  const volatile std::int32_t* cancelled = nullptr;

  bool expired() const { return deadline && Clock::now() >= *deadline; }
  bool wants_log_probs() const { return log_probs != LogProbs::none; }
  bool is_cancelled() const { return cancelled != nullptr && *cancelled != 0; }
};

// By how much float32 scores and sums put a logsumexp off at most, relative to it, or to 1 if that is more.
inline constexpr double kLogSumExpError = 1e-5;

// The K best users of one item and the softmax denominator, as far as rows were scored.
struct Candidate {
  float key;  // what the order is by: the score, or score plus noise
  float score;
  std::int64_t id;
  std::uint64_t row = 0;  // its number in the table, in scan order; the engine "native" alone knows it
};

// (key descending, id ascending): the one order of rankings.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.key > b.key || (a.key == b.key && a.id < b.id);
}

struct ItemAnswer {
  std::vector<Candidate> users;       // ranked, at most k
  std::vector<float> refined_scores;  // of these users by their refinement rows, if the search wants them
  double logsumexp = std::numeric_limits<double>::quiet_NaN();
  std::uint64_t rows_scored = 0;
  bool complete = false;
  bool log_probs_exact = false;
  float log_prob_error = std::numeric_limits<float>::quiet_NaN();  // the most by which logsumexp is off; NaN: unknown
  bool log_probs_certified = false;                                // whether that is proven, and not merely likely

  // Tells by how much the exact logsumexp may differ, rounding apart, and whether that is proven. An error without a
  // bound stays unknown.
  void tell_error(double error, bool proven) {
    if (!std::isfinite(error)) return;
    log_prob_error = static_cast<float>(error + kLogSumExpError * std::max(1.0, std::abs(logsumexp)));
    log_probs_certified = proven;
  }
};

}  // namespace fllm

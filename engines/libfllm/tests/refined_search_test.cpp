// Searches through the C++ header whose candidates are ranked again by refinement rows.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fllm/fllm.hpp>

#include "check.hpp"
#include "refinement_writer.hpp"

namespace {

using writer::kDim, writer::kRows;

// The users of an item by the scores of their refinement rows, computed in double from the definition.
std::vector<std::int64_t> ranked(const std::vector<std::int64_t>& users, const std::vector<float>& z) {
  float peak = 0;
  for (const float number : z) peak = std::max(peak, std::abs(number));
  const double scale = static_cast<double>(peak) / 8127;
  std::vector<std::pair<float, std::int64_t>> scored;
  for (const std::int64_t user : users) {
    const auto r = static_cast<std::uint64_t>(user / 3);
    double sum = 0;
    for (std::uint64_t j = 0; j < kDim; ++j) {
      sum += (static_cast<int>((r * 31 + j * 7) % 255) - 127) * std::nearbyint(static_cast<double>(z[j]) / scale);
    }
    scored.emplace_back(-static_cast<float>(sum * ((0.25 + static_cast<double>(r)) * scale)), user);
  }
  std::sort(scored.begin(), scored.end());
  std::vector<std::int64_t> ids;
  for (const auto& [score, id] : scored) ids.push_back(id);
  return ids;
}

void candidates_are_ranked_again() {
  const writer::Directory directory;
  writer::write_refined(directory);
  const fllm::Table table(directory.path());
  const fllm_table_info info = table.describe();
  CHECK(info.dim == kDim && std::string(info.refinement) == "int8" && info.bytes == 14);
  std::vector<float> z(kDim);
  for (std::size_t j = 0; j < kDim; ++j) z[j] = static_cast<float>(std::sin(static_cast<double>(j) * 1.7) * 3);
  fllm::SearchOptions options;
  options.log_probs = FLLM_LOG_PROBS_NONE;
  for (const std::uint32_t refine : {1, 3, 4, 1000}) {
    options.k = 20 * refine < kRows ? 20 * refine : kRows;
    options.refine = 0;
    const std::vector<std::int64_t> candidates = table.search(z, 1, options).user_ids;
    options.k = 20;
    options.refine = refine;
    const fllm::Answer answer = table.search(z, 1, options);
    const std::vector<std::int64_t> expected = ranked(candidates, z);
    CHECK(std::equal(answer.user_ids.begin(), answer.user_ids.end(), expected.begin()));
    CHECK(answer.complete[0] == 1 && answer.log_probs_exact[0] == 0 && answer.keys == answer.scores);
    options.refine.reset();
    if (refine == FLLM_REFINE_DEFAULT) CHECK(table.search(z, 1, options).user_ids == answer.user_ids);
  }
}

// What an application needs to rank candidates of several parts again: both scores of each, in the order of the scan.
void both_scores_of_candidates() {
  const writer::Directory directory;
  writer::write_refined(directory);
  const fllm::Table table(directory.path());
  const std::vector<float> z(kDim, 0.5f);
  fllm::SearchOptions options;
  options.k = 60;
  options.refine = 0;
  const fllm::Answer scanned = table.search(z, 1, options);
  std::vector<std::int64_t> ids(60);
  std::vector<float> scores(60), refined(60);
  fllm_answer out = FLLM_ANSWER_INIT;
  out.user_ids = ids.data();
  out.scores = scores.data();
  out.refined_scores = refined.data();
  table.search(z, 1, options, out);
  CHECK(ids == scanned.user_ids && scores == scanned.scores && refined != scores);
  std::vector<std::pair<float, std::int64_t>> again;
  for (std::size_t at = 0; at < ids.size(); ++at) again.emplace_back(-refined[at], ids[at]);
  std::sort(again.begin(), again.end());
  options.k = 20;
  options.refine = 3;
  out.refined_scores = refined.data();
  table.search(z, 1, options, out);
  for (std::size_t at = 0; at < options.k; ++at) {
    CHECK(ids[at] == again[at].second && scores[at] == -again[at].first && refined[at] == scores[at]);
  }
}

void no_user_has_a_refined_score() {
  const writer::Directory directory;
  writer::write_refined(directory);
  const fllm::Table table(directory.path());
  const std::vector<float> z(kDim, 0.5f);
  const std::vector<std::int64_t> allowed{3};
  const fllm::Filter filter = table.filter(allowed, FLLM_ALLOW);
  fllm::SearchOptions options;
  options.k = 2;
  options.refine = 0;
  options.filter = &filter;
  std::vector<std::int64_t> ids(2);
  std::vector<float> refined(2);
  fllm_answer out = FLLM_ANSWER_INIT;
  out.user_ids = ids.data();
  out.refined_scores = refined.data();
  table.search(z, 1, options, out);
  CHECK(ids[0] == 3 && ids[1] == -1 && std::isfinite(refined[0]) && std::isinf(refined[1]) && refined[1] < 0);
}

// A caller that was compiled before there were refinement rows gives a shorter struct.
void an_older_caller() {
  const writer::Directory directory;
  writer::write_refined(directory);
  const fllm::Table table(directory.path());
  const std::vector<float> z(kDim, 1.0f);
  std::vector<std::int64_t> found(20);
  fllm_search_options options = FLLM_SEARCH_OPTIONS_INIT;
  options.size = offsetof(fllm_search_options, refine);
  options.k = found.size();
  fllm_answer answer = FLLM_ANSWER_INIT;
  answer.user_ids = found.data();
  fllm_error error;
  CHECK(fllm_table_search(table.get(), z.data(), 1, &options, &answer, &error) == FLLM_OK);
  fllm::SearchOptions now;
  now.k = found.size();
  CHECK(table.search(z, 1, now).user_ids == found);
  answer.size = offsetof(fllm_answer, refined_scores);
  float untouched = 7;
  answer.refined_scores = &untouched;
  CHECK(fllm_table_search(table.get(), z.data(), 1, &options, &answer, &error) == FLLM_OK && untouched == 7);
}

void what_cannot_be_refined() {
  const writer::Directory directory;
  writer::write_table(directory, {300}, kDim, 256);
  const fllm::Table plain(directory.path());
  fllm::SearchOptions options;
  options.k = 5;
  options.refine = 2;
  std::string message;
  try {
    plain.search(std::vector<float>(kDim, 1.0f), 1, options);
  } catch (const fllm::Error& error) {
    message = error.what();
  }
  CHECK(message == "refine is 2, and the table has no refinement rows; expected 0, or a table with refinement rows.");
  std::vector<float> refined(5);
  fllm_answer out = FLLM_ANSWER_INIT;
  out.refined_scores = refined.data();
  options.refine = 0;
  try {
    plain.search(std::vector<float>(kDim, 1.0f), 1, options, out);
  } catch (const fllm::Error& error) {
    message = error.what();
  }
  CHECK(message ==
        "refined_scores is not NULL, and the table has no refinement rows; expected NULL, or a table with refinement "
        "rows.");
}

}  // namespace

int main() {
  candidates_are_ranked_again();
  both_scores_of_candidates();
  no_user_has_a_refined_score();
  an_older_caller();
  what_cannot_be_refined();
  return check::result();
}

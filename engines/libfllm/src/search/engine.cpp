#include "search/engine.hpp"

#include <algorithm>

namespace fllm {

bool Engine::alike(const Search& a, const Search& b) const {
  return a.mode == b.mode && a.log_probs == b.log_probs && a.exact == b.exact;
}

bool any_goes_on(const std::vector<Column>& columns) {
  return std::any_of(columns.begin(), columns.end(),
                     [](const Column& column) { return !column.search->is_cancelled() && !column.search->expired(); });
}

ItemAnswer ranked(std::vector<Candidate> users, std::size_t k) {
  const auto end = users.begin() + static_cast<std::ptrdiff_t>(std::min(k, users.size()));
  std::nth_element(users.begin(), end, users.end(), ranks_before);
  users.erase(end, users.end());
  std::sort(users.begin(), users.end(), ranks_before);
  ItemAnswer answer;
  answer.users = std::move(users);
  return answer;
}

double at_least_of(const std::vector<Candidate>& users, const LogSumExp& denominator, const Link& link) {
  LogSumExp sum;
  for (const Candidate& user : users) sum.add(link.logit(user.score), 1.0);
  return std::max(denominator.value(), sum.value());
}

}  // namespace fllm

// The order in which rows leave a backlog, and what is dropped.
#include "search/backlog.hpp"

#include <limits>
#include <vector>

#include "check.hpp"

namespace {

using fllm::Backlog;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<std::uint32_t> taken(Backlog& backlog, std::size_t count, float threshold) {
  std::vector<Backlog::Row> rows;
  backlog.take(count, threshold, rows);
  std::vector<std::uint32_t> numbers;
  for (const Backlog::Row& row : rows) numbers.push_back(row.row);
  return numbers;
}

Backlog backlog_of(const std::vector<float>& uppers) {
  Backlog backlog;
  for (std::uint32_t row = 0; row < uppers.size(); ++row) backlog.add({nullptr, row, uppers[row]});
  return backlog;
}

using Numbers = std::vector<std::uint32_t>;

void greatest_bounds_come_first_in_their_order() {
  Backlog backlog = backlog_of({1, 7, 3, 9, 5});
  CHECK((taken(backlog, 2, -kInfinity) == Numbers{1, 3}));
  CHECK(backlog.size() == 3);
  CHECK((taken(backlog, 9, -kInfinity) == Numbers{0, 2, 4}));
  CHECK(backlog.empty());
  CHECK(taken(backlog, 0, -kInfinity).empty());
}

void rows_below_the_threshold_are_dropped() {
  Backlog backlog = backlog_of({1, 7, 3, 9, 5});
  CHECK((taken(backlog, 1, 3) == Numbers{3}));
  CHECK((taken(backlog, 3, 3) == Numbers{1, 2, 4}));
  CHECK(backlog.empty());
}

void equal_bounds_are_not_torn_apart() {
  Backlog backlog = backlog_of({kInfinity, 2, kInfinity, kInfinity});
  CHECK((taken(backlog, 1, 0) == Numbers{0, 2, 3}));
  CHECK((taken(backlog, 1, 0) == Numbers{1}));
}

void it_tells_when_rows_have_doubled() {
  Backlog backlog;
  std::vector<int> told;
  for (int chunk = 1; chunk <= 16; ++chunk) {
    if (backlog.doubled(10)) told.push_back(chunk);
  }
  CHECK((told == std::vector<int>{1, 2, 4, 8, 16}));
}

}  // namespace

int main() {
  greatest_bounds_come_first_in_their_order();
  rows_below_the_threshold_are_dropped();
  equal_bounds_are_not_torn_apart();
  it_tells_when_rows_have_doubled();
  return check::result();
}

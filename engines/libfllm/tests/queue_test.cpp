// The queue where memory runs out: whoever's pass it was gets the failure, and searches after it are answered.
#include "search/queue.hpp"

#include <cstdlib>
#include <new>
#include <semaphore>
#include <stdexcept>
#include <thread>

#include "check.hpp"
#include "child.hpp"

namespace {

constexpr std::size_t kNever = SIZE_MAX;
thread_local std::size_t allocations_left = kNever;  // of this thread, until one fails

void* allocated(std::size_t bytes) {
  if (allocations_left != kNever && allocations_left-- == 0) {
    allocations_left = kNever;
    throw std::bad_alloc();
  }
  void* const found = std::malloc(bytes == 0 ? 1 : bytes);
  if (found == nullptr) throw std::bad_alloc();
  return found;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocated(bytes); }
void* operator new[](std::size_t bytes) { return allocated(bytes); }
void operator delete(void* pointer) noexcept { std::free(pointer); }
void operator delete[](void* pointer) noexcept { std::free(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { std::free(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { std::free(pointer); }

namespace {

// Answers with the number of the item as its logsumexp. One pass may be held.
class Counting : public fllm::Engine {
 public:
  std::vector<fllm::ItemAnswer> scan(std::vector<fllm::Column> columns) override {
    if (held) {
      held = false;
      entered.release();
      go_on.acquire();
    }
    std::vector<fllm::ItemAnswer> answers(columns.size());
    for (std::size_t i = 0; i < columns.size(); ++i) answers[i].logsumexp = static_cast<double>(columns[i].item);
    return answers;
  }
  std::size_t most_columns() const override { return 4; }
  std::size_t candidate_bytes(std::size_t k) const override { return 16 * k; }
  const std::string& level() const override { return level_; }

  bool held = false;
  std::binary_semaphore entered{0}, go_on{0};

 private:
  std::string level_ = "counting";
};

fllm::Search wanted(std::size_t items) {
  fllm::Search search;
  search.items = items;
  search.k = 1;
  return search;
}

bool right(const std::vector<fllm::ItemAnswer>& answers, std::size_t items) {
  if (answers.size() != items) return false;
  for (std::size_t i = 0; i < items; ++i) {
    if (answers[i].logsumexp != static_cast<double>(i)) return false;
  }
  return true;
}

// Whether a search fails when its allocation of this number does; false: it needed fewer.
bool fails_at(fllm::Queue& queue, std::size_t number) {
  const fllm::Search search = wanted(9);  // three passes
  bool failed = false;
  allocations_left = number;
  try {
    if (!right(queue.search(search), 9)) throw std::logic_error("a wrong answer");
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  allocations_left = kNever;
  return failed;
}

bool later_searches_are_answered() {
  fllm::Queue queue(std::make_unique<Counting>(), std::chrono::microseconds(0));
  std::size_t number = 0;
  while (fails_at(queue, number)) {
    if (!right(queue.search(wanted(2)), 2)) return false;
    ++number;
  }
  return number > 10;  // there was something to fail
}

// A search that shares a pass with one that lacks memory may fail with it; it ends.
bool ends(fllm::Queue& queue) {
  try {
    return right(queue.search(wanted(5)), 5);
  } catch (const std::bad_alloc&) {
    return true;
  }
}

// The second search lacks memory while a third waits behind it: the third is woken.
bool searches_that_wait_are_answered() {
  auto made = std::make_unique<Counting>();
  Counting& engine = *made;
  fllm::Queue queue(std::move(made), std::chrono::microseconds(0));
  for (std::size_t number = 0; number < 12; ++number) {
    engine.held = true;
    bool first = false, third = false;
    std::thread leads([&] { first = right(queue.search(wanted(1)), 1); });
    engine.entered.acquire();
    std::thread fails([&] { fails_at(queue, number); });
    std::thread waits([&] { third = ends(queue); });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    engine.go_on.release();
    leads.join(), fails.join(), waits.join();
    if (!first || !third || !right(queue.search(wanted(2)), 2)) return false;
  }
  return true;
}

}  // namespace

int main() {
  CHECK(child::holds(later_searches_are_answered));
  CHECK(child::holds(searches_that_wait_are_answered));
  return check::result();
}

// Children of a process that has a table open and searches it meanwhile: they search, open again and let go, on threads
// of their own. A GPU cannot follow into a child, which is an error there.
#include <atomic>
#include <cmath>
#include <fllm/fllm.hpp>
#include <functional>
#include <thread>

#include "check.hpp"
#include "child.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::uint64_t kRows = 20000, kDim = 16;

// Threads of the parent that search while it forks. AddressSanitizer's allocator, unlike the system's, does not hold
// its locks during a fork: a child would wait forever for one that a thread of the parent held.
#if defined(__SANITIZE_ADDRESS__)
constexpr int kParents = 0;
#else
constexpr int kParents = 3;
#endif

std::vector<float> item_vector() {
  std::vector<float> z(kDim);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  return z;
}

fllm::TableOptions on_threads(unsigned threads) {
  fllm::TableOptions options;
  options.threads = threads;
  return options;
}

bool by_many_threads(const fllm::Table& table, const std::vector<std::int64_t>& expected) {
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] { right += table.search(item_vector(), 1).user_ids == expected; });
  }
  for (std::thread& caller : callers) caller.join();
  return right == 4;
}

void children_search(const std::string& directory) {
  fllm::Table table(directory, on_threads(3));
  const std::vector<float> z = item_vector();
  const std::vector<std::int64_t> expected = table.search(z, 1).user_ids;
  const fllm::Filter filter = table.filter({expected.data(), 5}, FLLM_DENY);
  fllm::SearchOptions rest;
  rest.filter = &filter;
  const std::vector<std::int64_t> filtered = table.search(z, 1, rest).user_ids;
  std::atomic<bool> stop{false};
  std::vector<std::thread> parents;
  for (int caller = 0; caller < kParents; ++caller) {
    parents.emplace_back([&] {
      while (!stop) CHECK(table.search(z, 1).user_ids == expected);
    });
  }
  for (int round = 0; round < 12; ++round) {
    CHECK(child::holds([&] { return by_many_threads(table, expected); }));
    CHECK(child::holds([&] { return table.search(z, 1, rest).user_ids == filtered; }));
    CHECK(child::holds([&] {
      table.reopen();
      return table.search(z, 1).user_ids == expected;
    }));
    CHECK(child::holds([&] {
      const fllm::Table mine = std::move(table);
      return mine.describe().threads == 3;
    }));
  }
  CHECK(child::holds([&] {
    return by_many_threads(table, expected) && child::holds([&] { return by_many_threads(table, expected); });
  }));
  stop = true;
  for (std::thread& parent : parents) parent.join();
  CHECK(table.search(z, 1).user_ids == expected);
}

void children_have_no_gpu(const std::string& directory) {
  fllm::TableOptions options;
  options.engine = "cuda";
  fllm::Table table(directory, options);
  const auto refused = [](const std::function<void()>& call) { return child::refuses(call, FLLM_HARDWARE, "forked"); };
  CHECK(child::holds([&] {
    const bool right = refused([&] { (void)table.search(item_vector(), 1); }) && refused([&] { table.reopen(); }) &&
                       refused([&] { (void)fllm::Table(directory, options); });
    const fllm::Table gone = std::move(table);
    return right;
  }));
  CHECK(table.search(item_vector(), 1).complete[0] == 1);
}

}  // namespace

int main() {
  const writer::Directory directory;
  writer::write_table(directory, {kRows}, kDim, 4096);
  children_search(directory.path());
  children_have_no_gpu(directory.path());
  return check::result();
}

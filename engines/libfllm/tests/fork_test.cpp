// Children of a process that has a table open and searches it meanwhile: they search, open again and let go, on threads
// of their own. And what cannot follow into a child, or not be started at all, is an error.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <fllm/fllm.hpp>
#include <functional>
#include <thread>

#include "check.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::uint64_t kRows = 20000, kDim = 16;

// Whether `work` holds in a child, which is given 20 seconds.
bool holds_in_child(const std::function<bool()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool holds = false;
    try {
      holds = work();
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "in a child: %s\n", failure.what());
    }
    _exit(holds ? 0 : 1);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

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

bool is_refused(const std::function<void()>& call, fllm_status status, const std::string& words) {
  try {
    call();
  } catch (const fllm::Error& error) {
    return error.status() == status && std::string(error.what()).find(words) != std::string::npos;
  }
  return false;
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
  for (int caller = 0; caller < 3; ++caller) {
    parents.emplace_back([&] {
      while (!stop) CHECK(table.search(z, 1).user_ids == expected);
    });
  }
  for (int round = 0; round < 12; ++round) {
    CHECK(holds_in_child([&] { return by_many_threads(table, expected); }));
    CHECK(holds_in_child([&] { return table.search(z, 1, rest).user_ids == filtered; }));
    CHECK(holds_in_child([&] {
      table.reopen();
      return table.search(z, 1).user_ids == expected;
    }));
    CHECK(holds_in_child([&] {
      const fllm::Table mine = std::move(table);
      return mine.describe().threads == 3;
    }));
  }
  CHECK(holds_in_child([&] {
    return by_many_threads(table, expected) && holds_in_child([&] { return by_many_threads(table, expected); });
  }));
  stop = true;
  for (std::thread& parent : parents) parent.join();
  CHECK(table.search(z, 1).user_ids == expected);
}

void children_have_no_gpu(const std::string& directory) {
  fllm::TableOptions options;
  options.engine = "cuda";
  fllm::Table table(directory, options);
  const auto refused = [](const std::function<void()>& call) { return is_refused(call, FLLM_HARDWARE, "forked"); };
  CHECK(holds_in_child([&] {
    const bool right = refused([&] { (void)table.search(item_vector(), 1); }) && refused([&] { table.reopen(); }) &&
                       refused([&] { (void)fllm::Table(directory, options); });
    const fllm::Table gone = std::move(table);
    return right;
  }));
  CHECK(table.search(item_vector(), 1).complete[0] == 1);
}

// Root may start any number of threads, so that another limit stands in for it: of the address space for their stacks.
void a_thread_that_cannot_start_is_an_error(const std::string& directory) {
  CHECK(holds_in_child([&] {
    const rlimit limit{rlim_t{512} << 20, rlim_t{512} << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    const bool refused =
        is_refused([&] { (void)fllm::Table(directory, on_threads(500)); }, FLLM_MEMORY, "of 500 cannot be started");
    // Those that could start are gone again, and leave room.
    return refused && fllm::Table(directory, on_threads(20)).search(item_vector(), 1).complete[0] == 1;
  }));
}

}  // namespace

int main() {
  const writer::Directory directory;
  writer::write_table(directory, {kRows}, kDim, 4096);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they take more address space than the limit
  a_thread_that_cannot_start_is_an_error(directory.path());
#endif
  children_search(directory.path());
  children_have_no_gpu(directory.path());
  return check::result();
}

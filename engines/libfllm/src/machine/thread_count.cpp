#include "machine/thread_count.hpp"

#include <sched.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string>

#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kThreads = 1024;  // at most

std::size_t usable_cpus() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? static_cast<std::size_t>(CPU_COUNT(&allowed)) : 1;
}

}  // namespace

std::size_t thread_count(std::size_t asked) {
  if (asked > kThreads) {
    throw Error(Status::usage, sentence("threads is " + std::to_string(asked), "at most " + std::to_string(kThreads)));
  }
  if (asked != 0) return asked;
  const char* text = std::getenv("FLLM_NUM_THREADS");
  if (text == nullptr) return usable_cpus();
  std::size_t count = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, failure] = std::from_chars(text, end, count);
  if (failure != std::errc() || stop != end || count < 1 || count > kThreads) {
    throw Error(Status::usage, sentence("FLLM_NUM_THREADS is '" + std::string(text) + "'",
                                        "a whole number from 1 to " + std::to_string(kThreads)));
  }
  return count;
}

}  // namespace fllm

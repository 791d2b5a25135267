#include "machine/thread_count.hpp"

#include <sched.h>

#include <string>

#include "machine/environment.hpp"
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
  const std::uint64_t named = environment::number(environment::kThreads, kThreads);
  return named != 0 ? static_cast<std::size_t>(named) : usable_cpus();
}

}  // namespace fllm

#include "handle.hpp"

#include <sched.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cpu.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kThreads = 1024;  // at most

std::size_t usable_cpus() {
  cpu_set_t allowed;
  return sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? static_cast<std::size_t>(CPU_COUNT(&allowed)) : 1;
}

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

const kernels::Kernels& find_kernels(const std::string& isa) {
  const kernels::Kernels* found = kernels::find(isa.c_str());
  if (found != nullptr) return *found;
  std::string levels;
  for (const std::string& level : cpu_levels()) levels += (levels.empty() ? "" : ", ") + level;
  throw Error(Status::hardware, sentence("the instruction set '" + isa + "' is not to be had here", "one of " + levels));
}

}  // namespace

Handle::Handle(const std::string& directory, const HandleOptions& options)
    : options_(options),
      threads_(thread_count(options.threads)),
      kernels_(find_kernels(options.isa)),
      directory_(directory),
      engine_(open(directory)) {}

std::shared_ptr<Engine> Handle::engine() const {
  const std::lock_guard lock(mutex_);
  return engine_;
}

void Handle::reopen(const std::string& directory) {
  std::string next = directory;
  if (next.empty()) {
    const std::lock_guard lock(mutex_);
    next = directory_;
  }
  std::shared_ptr<Engine> opened = open(next);
  const std::lock_guard lock(mutex_);
  const std::size_t dim = engine_->table().layout().dim;
  if (opened->table().layout().dim != dim) {
    throw Error(Status::usage, sentence(next + " holds rows of " + std::to_string(opened->table().layout().dim) + " numbers",
                                        std::to_string(dim) + ", as the table in use"));
  }
  directory_ = next;
  // The old engine goes when its last search has returned, outside this lock.
  std::swap(engine_, opened);
}

std::shared_ptr<Engine> Handle::open(const std::string& directory) const {
  return std::make_shared<Engine>(directory, options_.residency, kernels_, threads_, options_.pin_threads,
                                  options_.batch_window);
}

}  // namespace fllm

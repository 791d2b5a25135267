#include "api/handle.hpp"

#include "machine/cpu.hpp"
#include "machine/environment.hpp"
#include "machine/fork.hpp"
#include "machine/thread_count.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr std::uint64_t kGpus = 1024;  // at most

const kernels::Kernels& find_kernels(const std::string& isa) {
  const kernels::Kernels* found = kernels::find(isa.c_str());
  if (found != nullptr) return *found;
  std::string levels;
  for (const std::string& level : cpu_levels()) levels += (levels.empty() ? "" : ", ") + level;
  throw Error(Status::hardware,
              sentence("the instruction set '" + isa + "' is not available here", "one of " + levels));
}

// What is left to this machine is decided once, for this opening and every later one.
HandleOptions decided(HandleOptions options, const EngineKind& kind) {
  kind.check(options.given);
  options.given.threads = thread_count(options.given.threads);
  options.given.kernels = &find_kernels(options.isa);
  if (options.given.gpus == 0)
    options.given.gpus = static_cast<std::uint32_t>(environment::number(environment::kGpus, kGpus));
  if (options.given.gpu_bytes == 0) options.given.gpu_bytes = environment::number(environment::kGpuBytes, UINT64_MAX);
  return options;
}

}  // namespace

Handle::Handle(const std::string& directory, HandleOptions options)
    : kind_(find_engine(options.engine)),
      options_(decided(std::move(options), kind_)),
      directory_(directory),
      current_(open(directory)) {}

std::shared_ptr<OpenTable> Handle::current() const {
  const std::lock_guard lock(handles_mutex());
  return current_;
}

std::shared_ptr<Handle::Turn> Handle::turn() {
  const std::lock_guard lock(handles_mutex());
  if (turn_ == nullptr || turn_->process != process_number()) turn_.reset(new Turn{process_number(), {}});
  return turn_;
}

void Handle::reopen(const std::string& directory) {
  const std::shared_ptr<Turn> mine = turn();
  const std::lock_guard one_at_a_time(mine->mutex);
  std::string next = directory;
  if (next.empty()) {
    const std::lock_guard lock(handles_mutex());
    next = directory_;
  }
  std::shared_ptr<OpenTable> opened = open(next);
  const std::lock_guard lock(handles_mutex());
  const std::size_t dim = current_->table().layout().item_dim(), found = opened->table().layout().item_dim();
  if (found != dim) {
    throw Error(Status::usage, sentence(next + " holds rows of dimension " + std::to_string(found),
                                        std::to_string(dim) + ", like the open table"));
  }
  const int exponent = current_->table().layout().link.exponent, now = opened->table().layout().link.exponent;
  if (now != exponent) {
    throw Error(Status::usage, sentence(next + " has a link of exponent " + std::to_string(now) + " (0: exponential)",
                                        std::to_string(exponent) + ", like the open table"));
  }
  directory_ = next;
  // The old table goes when its last search has returned, outside this lock.
  std::swap(current_, opened);
}

std::shared_ptr<OpenTable> Handle::open(const std::string& directory) const {
  // The open table may outlive this handle, and make its engine again after a fork.
  OpenTable::MakeEngine make = [&kind = kind_, given = options_.given](const Table& table) {
    return kind.open(table, given);
  };
  return std::make_shared<OpenTable>(directory, options_.residency, std::move(make), options_.batch_window);
}

}  // namespace fllm

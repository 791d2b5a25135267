// What a table handle of the C interface stands for: the options, and the open table that is current.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "search/engines.hpp"
#include "search/open_table.hpp"

namespace fllm {

struct HandleOptions {
  std::string engine;   // empty: the first of engine_kinds()
  EngineOptions given;  // threads 0: FLLM_NUM_THREADS, or every CPU that the process may use; kernels: those of `isa`
  std::string isa;      // empty: FLLM_ISA, or the best of this machine
  Residency residency;
  std::chrono::microseconds batch_window{0};
};

class Handle {
 public:
  Handle(const std::string& directory, HandleOptions options);

  // The open table that is current; it lives as long as the pointer is held, whatever reopen() does meanwhile.
  std::shared_ptr<OpenTable> current() const;
  std::size_t threads() const { return options_.given.threads; }
  const kernels::Kernels& kernels() const { return *options_.given.kernels; }
  const char* engine() const { return kind_.name; }

  // Opens `directory` (empty: the same as before) and makes it current. On failure nothing changes. Of several threads
  // one opens at a time, so that what was opened last is current.
  void reopen(const std::string& directory);

  void retain() { owners_.fetch_add(1, std::memory_order_relaxed); }
  // True for the last owner, who destroys the handle.
  bool release() { return owners_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

 private:
  // Whoever opens again holds it. After a fork it may be locked for ever, and another takes its place.
  struct Turn {
    const std::uint64_t process;
    std::mutex mutex;
  };

  std::shared_ptr<Turn> turn();
  std::shared_ptr<OpenTable> open(const std::string& directory) const;

  const EngineKind& kind_;
  HandleOptions options_;
  std::atomic<std::size_t> owners_{1};
  std::string directory_;  // this and the next two are guarded by handles_mutex()
  std::shared_ptr<OpenTable> current_;
  std::shared_ptr<Turn> turn_;
};

}  // namespace fllm

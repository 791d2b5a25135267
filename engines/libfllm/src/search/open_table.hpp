// An open table, and the engine that serves it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "format/table.hpp"
#include "search/queue.hpp"

namespace fllm {

// A child of a fork inherits the mapped files, but no thread: its first search makes an engine of its own for the same
// table, and what belongs to the parent's engine is never touched again.
class OpenTable {
 public:
  using MakeEngine = std::function<std::unique_ptr<Engine>(const Table&)>;

  OpenTable(const std::string& directory, Residency residency, MakeEngine make, std::chrono::microseconds window);
  ~OpenTable();
  OpenTable(const OpenTable&) = delete;
  OpenTable& operator=(const OpenTable&) = delete;

  const Table& table() const { return table_; }
  const Engine& engine() const { return serving().queue.engine(); }

  // Throws Error with Status::cancelled when the search was cancelled.
  std::vector<ItemAnswer> search(const Search& search) { return serving().queue.search(search); }

 private:
  // An engine and its queue, which one process alone can use.
  struct Serving {
    std::uint64_t process;
    Queue queue;
  };

  std::unique_ptr<Serving> make() const;
  Serving& serving() const;

  Table table_;
  MakeEngine make_engine_;
  std::chrono::microseconds window_;
  mutable std::atomic<Serving*> serving_;
};

}  // namespace fllm

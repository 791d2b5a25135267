#include "search/open_table.hpp"

#include <utility>

#include "machine/fork.hpp"

namespace fllm {

OpenTable::OpenTable(const std::string& directory, Residency residency, MakeEngine make,
                     std::chrono::microseconds window)
    : table_(directory, residency), make_engine_(std::move(make)), window_(window), serving_(this->make().release()) {}

OpenTable::~OpenTable() {
  // To destroy what the parent of a fork made would be to wait for its threads, which are not here.
  Serving* const last = serving_.load();
  if (last->process == process_number()) delete last;
}

std::unique_ptr<OpenTable::Serving> OpenTable::make() const {
  return std::unique_ptr<Serving>(new Serving{process_number(), {make_engine_(table_), window_}});
}

OpenTable::Serving& OpenTable::serving() const {
  Serving* current = serving_.load();
  if (current->process == process_number()) return *current;
  std::unique_ptr<Serving> fresh = make();
  // Another thread of this child may have been first.
  return serving_.compare_exchange_strong(current, fresh.get()) ? *fresh.release() : *current;
}

}  // namespace fllm

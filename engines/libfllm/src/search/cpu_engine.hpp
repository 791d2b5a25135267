// Passes over a table on the threads of a pool.
#pragma once

#include <optional>
#include <string>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "machine/pool.hpp"
#include "search/engine.hpp"
#include "search/panel.hpp"

namespace fllm {

class CpuEngine : public Engine {
 public:
  CpuEngine(const Table& table, const kernels::Kernels& kernels, std::size_t threads, bool pin_threads);

  bool alike(const Search& a, const Search& b) const override;
  std::vector<ItemAnswer> scan(std::vector<Column> columns) override;
  std::size_t most_columns() const override;
  std::size_t candidate_bytes(std::size_t k) const override;
  const std::string& level() const override { return level_; }

 private:
  const Table& table_;
  const kernels::Kernels& kernels_;
  Pool pool_;
  std::string level_;
  std::optional<Panel> panel_;  // made by the first scan that needs it
};

}  // namespace fllm

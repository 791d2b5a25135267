// Passes over a table on the threads of a pool.
#pragma once

#include <string>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "machine/pool.hpp"
#include "search/engine.hpp"

namespace fllm {

class CpuEngine : public Engine {
 public:
  CpuEngine(const Table& table, const kernels::Kernels& kernels, std::size_t threads, bool pin_threads);

  std::vector<ItemAnswer> scan(std::vector<Column> columns) override;
  std::size_t most_columns() const override;
  std::size_t candidate_bytes(std::size_t k) const override;
  const std::string& level() const override { return level_; }

 private:
  const Table& table_;
  const kernels::Kernels& kernels_;
  Pool pool_;
  std::string level_;
};

}  // namespace fllm

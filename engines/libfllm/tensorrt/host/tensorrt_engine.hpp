// Passes over a table by a TensorRT plan on a GPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "head_scan.hpp"
#include "search/engine.hpp"

namespace fllm::tensorrt {

class TensorRtEngine : public Engine {
 public:
  // Throws Error: Status::usage for a table that the plan is not for, Status::hardware when a library or the GPU is
  // missing or another than the plan's, Status::bundle for a damaged plan, Status::memory when memory does not suffice.
  TensorRtEngine(const cuda::Rows& table, const kernels::Kernels& kernels, const PlanOptions& options);

  std::vector<ItemAnswer> scan(std::vector<Column> columns) override;
  void check(const Search& search) const override;
  std::size_t most_columns() const override { return scan_.plan().most_batch(); }
  std::size_t candidate_bytes(std::size_t k) const override;
  const std::string& level() const override { return level_; }

 private:
  const Layout& layout_;
  HeadScan scan_;
  std::string level_;
};

}  // namespace fllm::tensorrt

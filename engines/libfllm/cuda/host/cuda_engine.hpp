// Passes over a table on one GPU or several.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device_scan.hpp"
#include "machine/pool.hpp"
#include "search/engine.hpp"

namespace fllm::cuda {

struct DeviceOptions {
  std::uint32_t devices = 0;  // that share the table; 0: one
  std::uint64_t bytes = 0;    // of each one's memory at most; 0: what is free
};

class CudaEngine : public Engine {
 public:
  // Throws Error: Status::usage for rows that are too long, Status::hardware when there are no such GPUs,
  // Status::memory when neither their memory nor the host's suffices.
  CudaEngine(const Rows& table, const DeviceOptions& options);

  std::vector<ItemAnswer> scan(std::vector<Column> columns) override;
  std::size_t most_columns() const override { return 256; }
  std::size_t candidate_bytes(std::size_t k) const override { return candidate_capacity(k) * kCandidateBytes; }
  const std::string& level() const override { return level_; }

  // Of rows that stay in the host's memory and are copied in every pass.
  std::uint64_t streamed_bytes() const;

 private:
  ItemAnswer merge(const Search& search, std::vector<std::vector<DeviceAnswer>>& found, std::size_t column) const;

  std::uint64_t rows_;
  std::vector<std::unique_ptr<DeviceScan>> scans_;
  std::unique_ptr<Pool> pool_;  // a thread a GPU
  std::string level_;
};

}  // namespace fllm::cuda

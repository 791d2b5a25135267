// How many rows a plan is given at once: as many as its profiles and the memory for its scores allow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "lane.hpp"
#include "plan.hpp"

namespace fllm::tensorrt {

class BlockSizes {
 public:
  // For a table of so many rows, of `row_bytes` each, when a plan may use `limit` bytes of the GPU's memory. Throws
  // Error (Status::memory) when it is too little for a block of any size.
  BlockSizes(const Plan& plan, const Lane& lane, std::uint64_t rows, std::uint64_t row_bytes, std::uint64_t limit);

  // Items that are scored together are padded to one of a few counts, so that there are few graphs.
  std::size_t batch_for(std::size_t items) const;

  std::uint64_t step() const { return step_; }
  // Rows of a resident block, in whole steps, for a batch of batch_for().
  std::uint64_t rows_for(std::size_t batch) const { return rows_.at(batch); }
  // Rows of a streamed block, for every batch.
  std::uint64_t streamed_rows() const { return streamed_rows_; }
  // What a plan needs on the way for any of these.
  std::size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  std::uint64_t rows_within(const Plan& plan, const Lane& lane, std::size_t batch, std::uint64_t most,
                            std::uint64_t limit);

  std::uint64_t step_, streamed_rows_;
  std::size_t scratch_bytes_ = 0;
  std::map<std::size_t, std::uint64_t> rows_;  // by batch
};

}  // namespace fllm::tensorrt

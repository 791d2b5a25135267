#include "block_sizes.hpp"

#include <algorithm>

#include "status.hpp"

namespace fllm::tensorrt {

namespace {

// Of a block: well below a millisecond of a large GPU, and fewer than the 2^31 elements that a tensor of TensorRT's
// holds.
constexpr std::uint64_t kScores = std::uint64_t{1} << 26, kCodes = std::uint64_t{1} << 30;
constexpr std::uint64_t kPlaceBytes = std::uint64_t{64} << 20;  // of a streamed block: long enough for full speed
constexpr std::uint64_t kScratchShare = 16, kPlaceShare = 8;    // of the memory

}  // namespace

BlockSizes::BlockSizes(const Plan& plan, const Lane& lane, std::uint64_t rows, std::uint64_t row_bytes,
                       std::uint64_t limit)
    : step_(plan.least_rows()) {
  // At least two blocks: one is copied and read while the other runs, and the K best of all rows seldom share a block,
  // which would have to be scored again in halves.
  const std::uint64_t half = std::max<std::uint64_t>(1, (rows + 2 * step_ - 1) / (2 * step_)) * step_;
  const std::uint64_t by_place = std::min(kPlaceBytes, limit / kPlaceShare) / row_bytes / step_ * step_;
  streamed_rows_ = std::max(by_place, step_);
  for (std::size_t batch = 1;; batch = std::min(2 * batch, plan.most_batch())) {
    const std::uint64_t allowed = plan.most_rows(batch);
    if (allowed > 0) {  // some profile takes such a batch
      const std::uint64_t few = std::min(kScores / batch, kCodes / plan.dim()) / step_ * step_;
      const std::uint64_t most = std::min({allowed, few, half});
      rows_[batch] = rows_within(plan, lane, batch, most, limit);
      streamed_rows_ = std::min(streamed_rows_, rows_[batch]);
    }
    if (batch == plan.most_batch()) break;
  }
  for (const auto& [batch, block_rows] : rows_) {
    scratch_bytes_ = std::max(scratch_bytes_, lane.scratch_bytes(batch, streamed_rows_));
  }
}

std::uint64_t BlockSizes::rows_within(const Plan& plan, const Lane& lane, std::size_t batch, std::uint64_t most,
                                      std::uint64_t limit) {
  std::uint64_t rows = std::max(most, step_);
  std::size_t bytes = lane.scratch_bytes(batch, rows);
  while (bytes > limit / kScratchShare && rows > step_) {
    rows = rows / step_ / 2 * step_;
    bytes = lane.scratch_bytes(batch, rows);
  }
  if (bytes > limit / 4) {
    throw Error(
        Status::memory,
        sentence(plan.device().name() + " has too little free memory: " + plan.path() + " needs " +
                     std::to_string(bytes) + " bytes for " + std::to_string(batch) + " items",
                 "at most a quarter of " + std::to_string(limit) + " bytes", "Free GPU memory, or raise gpu_bytes"));
  }
  scratch_bytes_ = std::max(scratch_bytes_, bytes);
  return rows;
}

std::size_t BlockSizes::batch_for(std::size_t items) const { return rows_.lower_bound(items)->first; }

}  // namespace fllm::tensorrt

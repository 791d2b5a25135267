// A stream with all that a plan needs to score one block on it: room for the items and for what is found, memory for
// what it computes on the way, and the graphs of the blocks that come in every pass.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cuda/host/device.hpp"
#include "plan.hpp"
#include "plan_context.hpp"
#include "plan_table.hpp"
#include "whole_item.hpp"

namespace fllm::tensorrt {

// What a plan found in a block, on the host: B items, K places each.
struct Found {
  const float* scores;       // [B, K]
  const std::int64_t* rows;  // [B, K], within the block
  const float* m;            // [B]
  const float* l;            // [B]
};

// One block is scored at a time: after run() comes finish().
class Lane {
 public:
  explicit Lane(const Plan& plan);

  const cuda::Stream& stream() const { return stream_; }

  // What a plan needs for such a block, on the way.
  std::size_t scratch_bytes(std::size_t batch, std::uint64_t rows) const;
  // Makes room for it.
  void reserve(std::size_t bytes);

  // Waits until nothing is under way any more. The items of what is run from now on; padded to `batch` with zeros.
  void set_items(const std::vector<const WholeItem*>& items, std::size_t batch);

  // Puts a block on the stream: the plan, and the copies of what it finds. A block that `comes_again` is captured in a
  // graph when it comes the second time, and launched from then on.
  void run(const BlockAddresses& addresses, const Block& block, bool comes_again);

  // Waits for it.
  Found finish() const;

 private:
  // A block by where it lies and how many of its rows are valid.
  using Key = std::pair<const void*, std::uint64_t>;
  struct Runs {
    bool settled = false;  // was run once, uncaptured
    cuda::Graph graph;
  };
  struct Work {
    PlanContext context;
    std::map<Key, Runs> runs;
  };

  Work& work_for(std::uint64_t rows);
  void bind(const PlanContext& context, const BlockAddresses& addresses) const;
  void put(const PlanContext& context) const;
  std::uint8_t* address(Tensor tensor) const;
  template <typename T>
  T* on_host(Tensor tensor) const {
    return reinterpret_cast<T*>(host_.data() + offsets_[static_cast<std::size_t>(tensor)]);
  }
  template <typename T>
  void fetch(Tensor tensor, std::size_t n) const;
  template <typename T>
  void send(Tensor tensor, std::size_t n) const;

  const Plan& plan_;
  cuda::Stream stream_;
  std::size_t batch_ = 0;
  std::array<std::size_t, kTensors> offsets_{};  // of items and results, in both blocks
  cuda::Memory host_, gpu_, scratch_;
  std::map<std::pair<std::size_t, std::uint64_t>, Work> work_;  // by batch and rows
};

}  // namespace fllm::tensorrt

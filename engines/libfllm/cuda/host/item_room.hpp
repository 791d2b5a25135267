// What one GPU holds of a pass's items: their limbs, their candidates, and their shares of the denominator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device.hpp"
#include "device_filters.hpp"
#include "search/denominator.hpp"
#include "search/query.hpp"

namespace fllm::cuda {

// The greatest K of a pass's columns.
std::size_t most_users(const std::vector<Column>& columns);

// Candidates an item of K users has room for: enough to prune rarely.
std::uint32_t candidate_capacity(std::size_t k);
inline constexpr std::size_t kCandidateBytes = 2 * sizeof(float) + sizeof(std::int64_t);

class ItemRoom {
 public:
  // `blocks` of a launch share the rows of a wave, and each keeps a share of the denominator.
  ItemRoom(const Device& device, unsigned blocks) : device_(device), blocks_(blocks) {}

  // Makes room for the columns of a pass in so many waves, and puts what kernels read of them on the stream.
  void begin(const std::vector<Column>& columns, std::size_t dim, std::size_t waves, DeviceFilters& filters,
             const Stream& stream);

  std::size_t count() const { return items_.size(); }
  const Item& item(std::size_t column) const { return items_[column]; }
  const Candidates& candidates(std::size_t column) const { return candidates_[column]; }
  const Candidates* all_candidates() const { return on_device<Candidates>(structs_); }
  // Items [first, first + count) as one batch.
  ItemBatch batch(std::size_t first, std::size_t count, bool denominator) const;
  // Takes offers and keeps none: for a denominator alone.
  Candidates no_candidates() const;
  // Whether float32 holds each item's scale with room to spare.
  bool has_plain_scales() const;
  Share* shares(std::size_t column) const { return on_device<Share>(shares_) + column * blocks_; }
  std::uint8_t* overflowed(std::size_t wave) const { return on_device<std::uint8_t>(overflowed_) + wave * count(); }

  // Brings states back, and waits for them. After that:
  void fetch_states(const Stream& stream);
  bool has_overflowed(std::size_t wave, std::size_t column) const {
    return on_host<std::uint8_t>(overflowed_)[wave * count() + column] != 0;
  }
  LogSumExp denominator(std::size_t column) const;
  // Forgets an item's shares.
  void clear_shares(std::size_t column, const Stream& stream);

  // Whether one item's candidates of a wave did not fit, after it was scored again.
  bool fetch_overflowed(std::size_t wave, std::size_t column, const Stream& stream);

  // Brings the candidates back, in no order, and waits for them.
  std::vector<std::vector<Candidate>> fetch_users(const Stream& stream);

 private:
  void lay_out(std::size_t items, std::size_t dim, std::size_t waves);
  void fill(const std::vector<Column>& columns, std::size_t dim, DeviceFilters& filters, const Stream& stream);

  template <typename T>
  T* on_device(std::size_t offset) const {
    return reinterpret_cast<T*>(device_block_.data() + offset);
  }
  template <typename T>
  T* on_host(std::size_t offset) const {
    return reinterpret_cast<T*>(host_block_.data() + offset);
  }

  const Device& device_;
  unsigned blocks_;
  std::size_t padded_dim_ = 0;
  std::uint32_t capacity_ = 0, most_users_ = 0;
  // Offsets in the block that both sides have, in order; from counts_ on it is also brought back.
  std::size_t limbs_ = 0, wholes_ = 0, structs_ = 0, item_structs_ = 0, none_ = 0, peaks_ = 0;
  std::size_t counts_ = 0, kept_ = 0, thresholds_ = 0, shares_ = 0, overflowed_ = 0, bytes_ = 0;
  Memory device_block_, found_;  // of the GPU
  Memory host_block_, fetched_;  // pinned
  std::vector<Item> items_;
  std::vector<Candidates> candidates_;
};

}  // namespace fllm::cuda

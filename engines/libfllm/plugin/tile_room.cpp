#include "plugin/tile_room.hpp"

#include <algorithm>

#include "cuda/host/item_error.hpp"
#include "cuda/host/packing.hpp"

namespace fllm::plugin {

namespace {

using namespace fllm::cuda;

constexpr std::uint64_t kFreeCandidates = std::uint64_t{1} << 22;  // of all items together: 48 MiB

// Rows of the first wave, and of later ones at least.
std::uint64_t short_wave(std::uint64_t k) { return std::max<std::uint64_t>(k, 4096); }

// Grows with each of the sizes, so that the workspace of the largest shape holds every smaller one.
std::uint64_t free_of_all(const TileShape& shape) {
  const std::uint64_t items = shape.items;
  return std::min(items * shape.rows, std::max(items * short_wave(shape.k), kFreeCandidates));
}

template <typename T>
T* at(std::uint8_t* workspace, std::size_t offset) {
  return reinterpret_cast<T*>(workspace + offset);
}

}  // namespace

TileRoom::TileRoom(const TileShape& shape)
    : shape_(shape),
      padded_dim_((shape.dim + kPieceBytes - 1) / kPieceBytes * kPieceBytes),
      free_(static_cast<std::uint32_t>(free_of_all(shape) / std::max<std::uint64_t>(1, shape.items))) {
  const std::size_t items = shape.items, room = items * shape.k + free_of_all(shape);
  Packing packing;
  tile_ = packing.add<TileFacts>(1);
  items_ = packing.add<Item>(items);
  candidates_ = packing.add<Candidates>(items);
  limbs_ = packing.add<std::int8_t>(2 * items * padded_dim_);
  wholes_ = packing.add<float>(items * padded_dim_);
  scores_ = packing.add<float>(room);
  rows_ = packing.add<std::int64_t>(room);
  counts_ = packing.add<std::uint32_t>(items);
  kept_ = packing.add<std::uint32_t>(items);
  peaks_ = packing.add<std::uint32_t>(items);
  thresholds_ = packing.add<float>(items);
  shares_ = packing.add<Share>(items * kMostBlocks);
  overflowed_ = packing.add<std::uint8_t>(items);
  again_ = packing.add<std::uint8_t>(items);
  bytes_ = packing.bytes();
}

// A wave has no more rows than there is room for candidates, so that none is ever given up. If rows come in no
// particular order, n more after N hold about K n / N that are among the K best so far: waves grow so that these are
// half a short wave, which prune takes little time for.
std::uint64_t TileRoom::rows_of_wave(std::uint64_t before) const {
  const std::uint64_t least = short_wave(shape_.k), k = shape_.k;
  const std::uint64_t grown = before < k ? least : std::max(least, before * least / (2 * k));
  return std::min({grown, std::uint64_t{free_}, shape_.rows - before});
}

Preparation TileRoom::preparation(const TileTensors& tensors, std::uint8_t* workspace) const {
  Preparation to{};
  to.vectors = tensors.item_vectors;
  to.valid_rows = tensors.valid_rows;
  to.tile_rows = shape_.rows;
  to.dim = shape_.dim;
  to.padded_dim = padded_dim_;
  to.capacity = shape_.k + free_;
  to.k = shape_.k;
  to.error_share_alone = cuda::error_share_alone(shape_.dim);
  to.error_share_together = cuda::error_share_together(shape_.dim);
  to.tile = tile(workspace);
  to.items = at<Item>(workspace, items_);
  to.candidates = at<Candidates>(workspace, candidates_);
  to.limbs = at<std::int8_t>(workspace, limbs_);
  to.wholes = at<float>(workspace, wholes_);
  to.scores = at<float>(workspace, scores_);
  to.rows = at<std::int64_t>(workspace, rows_);
  to.counts = at<std::uint32_t>(workspace, counts_);
  to.kept = at<std::uint32_t>(workspace, kept_);
  to.peaks = at<std::uint32_t>(workspace, peaks_);
  to.thresholds = at<float>(workspace, thresholds_);
  to.shares = at<Share>(workspace, shares_);
  to.stride = kMostBlocks;
  return to;
}

ItemBatch TileRoom::batch(std::uint8_t* workspace) const {
  return {at<Item>(workspace, items_), at<Candidates>(workspace, candidates_), at<Share>(workspace, shares_),
          shape_.items, kMostBlocks};
}

TileFacts* TileRoom::tile(std::uint8_t* workspace) const { return at<TileFacts>(workspace, tile_); }

}  // namespace fllm::plugin

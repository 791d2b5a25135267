// Many items against the rows of a wave: bound by arithmetic. Tensor cores multiply tiles of rows with all items
// (tiles.cuh, by the rows' codec), and the sums are judged where they are, in registers.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/score.cuh"
#include "cuda/tiles.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kManyThreads = 256;
constexpr unsigned kManyWarps = kManyThreads / kWarpLanes;
constexpr unsigned kLaneItems = 8;       // whose sums with four rows of every 32 a lane has
constexpr unsigned kMostManyDim = 1024;  // up to which int8's limbs have a sum together of 31 bits
constexpr unsigned kHits = 128;          // of a warp, that are settled together

// How a block's shared memory is laid out for kItemWarps x 32 items; the warps that are left share the rows.
template <class Tile, unsigned kItemWarps>
struct ManyLayout {
  static constexpr unsigned kItems = kItemWarps * kWarpItems;
  static constexpr unsigned kRowWarps = kManyWarps / kItemWarps;
  static constexpr unsigned kWarpRows = Tile::kRowTiles * 16;
  static constexpr unsigned kRows = kRowWarps * kWarpRows;
  // Chunks in shared memory: one in use, the others on their way. The more rows, the fewer, for two blocks to fit.
  static constexpr unsigned kStages = Tile::kRowTiles == 2 ? 4 : 3;
  static constexpr unsigned kJudgedBy = Tile::kExact ? 3 : 4;  // scales, thresholds, references, margins of items

  // Codes lie first. What depends on the rows' length lies last, so that the other places are known to the compiler.
  static constexpr unsigned kStageBytes = kRows * Tile::kRowPieces * kPieceBytes;
  static constexpr unsigned kScales = kStages * kStageBytes;
  static constexpr unsigned kBias = kScales + kStages * kRows * sizeof(float);
  static constexpr unsigned kJudged = kBias + kStages * kRows * sizeof(float);
  static constexpr unsigned kOffsets = kJudged + kJudgedBy * kItems * sizeof(float);
  static constexpr unsigned kExpSums = kOffsets + (Tile::kHasOffsets ? kItems * sizeof(int) : 0);
  static constexpr unsigned kSums = kExpSums + kLaneItems * kManyThreads * sizeof(float);
  static constexpr unsigned kHitPlaces = kSums + kRowWarps * kItems * sizeof(float);
  static constexpr unsigned kHitCounts = kHitPlaces + kManyWarps * kHits * sizeof(typename Tile::Hit);
  static constexpr unsigned kLimbs = kHitCounts + kManyWarps * sizeof(unsigned);

  // Bytes from an item's limb to the next one's: 16 more than all chunks, against bank conflicts.
  __host__ __device__ static unsigned limb_stride(unsigned dim) {
    return (dim + kChunkDims - 1) / kChunkDims * kChunkDims + kPieceBytes;
  }
  static std::size_t bytes(unsigned dim) { return kLimbs + std::size_t{2} * kItems * limb_stride(dim); }

  static_assert(kLimbs % kPieceBytes == 0);
};

template <class Tile, unsigned kItemWarps, bool kDenominator>
class ManyScan {
 public:
  using Layout = ManyLayout<Tile, kItemWarps>;

  __device__ ManyScan(const Wave& wave, const ItemBatch& batch)
      : wave_(wave),
        batch_(batch),
        limb_stride_(Layout::limb_stride(wave.dim)),
        memory_(dynamic_shared()),
        lane_(threadIdx.x % kWarpLanes),
        row_warp_(threadIdx.x / kWarpLanes / kItemWarps),
        item_warp_(threadIdx.x / kWarpLanes % kItemWarps),
        chunks_((wave.dim + kChunkDims - 1) / kChunkDims) {}

  __device__ void run() {
    load_items();
    const std::uint64_t tiles = (wave_.rows + Layout::kRows - 1) / Layout::kRows;
    const std::uint64_t own = blockIdx.x < tiles ? (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x : 0;
    for (unsigned ahead = 0; ahead + 1 < Layout::kStages; ++ahead) bring();
    unsigned stage = 0;
    for (unsigned tile = 0; tile < own; ++tile) {
      sums_.clear();
      for (unsigned chunk = 0; chunk < chunks_; ++chunk) {
        wait_groups<Layout::kStages - 2>();
        __syncthreads();  // the chunk is there for all, and all are through with the one before, whose place is next
        bring();
        multiply(stage, chunk);
        stage = (stage + 1) % Layout::kStages;
      }
      judge<0>(tile);
      if constexpr (Tile::kRowTiles == 4) judge<2>(tile);
    }
    wait_groups<0>();
    if (kDenominator) add_shares();
  }

 private:
  __device__ std::int8_t* codes(unsigned stage) const {
    return reinterpret_cast<std::int8_t*>(memory_) + stage * Layout::kStageBytes;
  }
  __device__ std::int8_t* limb(unsigned number, unsigned item) const {
    return reinterpret_cast<std::int8_t*>(memory_) + Layout::kLimbs + (number * Layout::kItems + item) * limb_stride_;
  }
  __device__ float* floats(std::size_t offset) const { return reinterpret_cast<float*>(memory_ + offset); }
  __device__ float* scales(unsigned tile) const { return row_floats(Layout::kScales, tile); }
  __device__ float* bias(unsigned tile) const { return row_floats(Layout::kBias, tile); }
  __device__ float* row_floats(std::size_t offset, unsigned tile) const {
    return floats(offset) + tile % Layout::kStages * Layout::kRows;
  }
  __device__ float* item_scales() const { return floats(Layout::kJudged); }
  __device__ float* thresholds() const { return floats(Layout::kJudged) + Layout::kItems; }
  __device__ float* references() const { return floats(Layout::kJudged) + 2 * Layout::kItems; }
  __device__ float* margins() const { return floats(Layout::kJudged) + 3 * Layout::kItems; }
  __device__ int* offsets() const { return reinterpret_cast<int*>(memory_ + Layout::kOffsets); }
  __device__ int offset(unsigned item) const { return Tile::kHasOffsets ? offsets()[item] : 0; }
  // The thread's own sums of exp(score - reference), [kLaneItems] at intervals of kManyThreads.
  __device__ float* exp_sums() const { return floats(Layout::kExpSums) + threadIdx.x; }
  __device__ typename Tile::Hit* hits() const {
    return reinterpret_cast<typename Tile::Hit*>(memory_ + Layout::kHitPlaces) + threadIdx.x / kWarpLanes * kHits;
  }
  __device__ unsigned* hit_count() const {
    return reinterpret_cast<unsigned*>(memory_ + Layout::kHitCounts) + threadIdx.x / kWarpLanes;
  }
  __device__ std::uint64_t tile_row(unsigned tile) const {
    return (blockIdx.x + std::uint64_t{tile} * gridDim.x) * Layout::kRows;
  }

  // Limbs, and what scores are judged by: a float32 score is never so far below the exact one that it falls below this
  // threshold when the exact one reaches the candidates'. At most five roundings, of sums that |score| + |bias| bounds.
  // Where the sum is not exact, the score has been raised before by the most that it may be off, a margin of the item
  // by the row's scale.
  __device__ void load_items() {
    constexpr float kSlack = 0x1p-21f;
    for (unsigned i = threadIdx.x; i < Layout::kItems; i += kManyThreads) {
      const bool there = i < batch_.count;
      const float exact = there ? *batch_.candidates[i].threshold : INFINITY;
      item_scales()[i] = there ? static_cast<float>(batch_.items[i].scale) * Tile::kUnit : 0.0f;
      thresholds()[i] = exact - kSlack * (fabsf(exact) + wave_.most_bias) - 0x1p-126f;
      references()[i] = there ? from_descending(*batch_.items[i].peak) : 0.0f;
      if constexpr (Tile::kHasOffsets) offsets()[i] = there ? Tile::offset(batch_.items[i]) : 0;
      if (Tile::kExact) continue;
      margins()[i] = there ? static_cast<float>(batch_.items[i].scale * batch_.items[i].error_together) : 0.0f;
    }
    // An item that is not there has no limbs: its score is the bias, and never reaches infinity.
    const unsigned pieces = chunks_ * kChunkPieces, all = 2 * Layout::kItems * pieces;
    for (unsigned i = threadIdx.x; i < all; i += kManyThreads) {
      const unsigned piece = i % pieces, item = i / pieces % Layout::kItems, number = i / pieces / Layout::kItems;
      int4 part{0, 0, 0, 0};
      if (item < batch_.count && piece * kPieceBytes < wave_.dim) {
        const std::int8_t* from = number == 0 ? batch_.items[item].high : batch_.items[item].low;
        part = reinterpret_cast<const int4*>(from)[piece];
      }
      Tile::put_limb(limb(number, item), piece, part);
    }
    for (unsigned column = 0; column < kLaneItems; ++column) exp_sums()[column * kManyThreads] = 0.0f;
    if (lane_ == 0) *hit_count() = 0;
    __syncthreads();
  }

  // Puts the next chunk of the block's rows on its way, with scales and biases when it is a tile's first.
  __device__ void bring() {
    const std::uint64_t first = tile_row(next_tile_), rows = wave_.rows;
    std::int8_t* const to = codes(next_stage_);
    FLLM_KEEP_LOOP
    for (unsigned i = threadIdx.x; i < Layout::kRows * Tile::kRowPieces; i += kManyThreads) {
      const std::int8_t* const from = Tile::source(wave_, first, next_chunk_, i);
      copy_16(to + Tile::place(i), from == nullptr ? wave_.codes : from, from != nullptr);
    }
    if (next_chunk_ == 0 && threadIdx.x < Layout::kRows && first + threadIdx.x < rows) {
      copy_4(scales(next_tile_) + threadIdx.x, wave_.scales + first + threadIdx.x);
      if (wave_.bias != nullptr) copy_4(bias(next_tile_) + threadIdx.x, wave_.bias + first + threadIdx.x);
    }
    end_group();
    next_stage_ = (next_stage_ + 1) % Layout::kStages;
    if (++next_chunk_ == chunks_) next_chunk_ = 0, ++next_tile_;
  }

  __device__ void multiply(unsigned stage, unsigned chunk) {
    const std::int8_t* const rows = codes(stage) + row_warp_ * Layout::kWarpRows * Tile::kRowPieces * kPieceBytes;
    const std::int8_t* const limbs = limb(0, item_warp_ * kWarpItems) + chunk * kChunkDims;
    sums_.multiply({rows, limbs, limb_stride_, Layout::kItems * limb_stride_}, lane_);
  }

  // A lane's sums are those of four rows of every 32 with eight items.
  __device__ unsigned row_of(unsigned m, unsigned i) const {
    return row_warp_ * Layout::kWarpRows + Tile::row_of(lane_, m, i);
  }
  __device__ unsigned item_of(unsigned n, unsigned i) const {
    return item_warp_ * kWarpItems + n * 8 + lane_ % 4 * 2 + i % 2;
  }

  // Adds the scores of 32 of the tile's rows to the denominators, and settles those that may reach a threshold.
  template <unsigned kFirst>  // of the row tiles
  __device__ void judge(unsigned tile) {
    constexpr float kLog2E = 0x1.715476p+0f;
    float scale[4], add[4];  // of the lane's rows
    FLLM_UNROLL
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = row_of(kFirst + r / 2, 2 * (r % 2));
      const bool there = tile_row(tile) + row < wave_.rows;
      scale[r] = there ? scales(tile)[row] : 0.0f;
      add[r] = !there ? -INFINITY : wave_.bias == nullptr ? 0.0f : bias(tile)[row];
    }
    unsigned reached = 0;  // a bit for each of the lane's 32 sums
    FLLM_UNROLL
    for (unsigned column = 0; column < kLaneItems; ++column) {
      const unsigned n = column / 2, item = item_of(n, column);
      float exp_sum = 0.0f;
      FLLM_UNROLL
      for (unsigned r = 0; r < 4; ++r) {
        const unsigned m = r / 2, i = 2 * (r % 2) + column % 2;
        const float sum = sums_.sum(kFirst + m, n, i, offset(item)) * item_scales()[item];
        const float score = fmaf(sum, scale[r], add[r]);
        const float most = Tile::kExact ? score : fmaf(sum + margins()[item], scale[r], add[r]);
        if (most >= thresholds()[item]) reached |= 1u << (m * 16 + n * 4 + i);
        if (kDenominator) exp_sum += fast_exp2((score - references()[item]) * kLog2E);
      }
      if (kDenominator) exp_sums()[column * kManyThreads] += exp_sum;
    }
    while (__any_sync(kAllLanes, reached != 0)) {
      reached = collect<kFirst>(reached);
      __syncwarp();
      settle(tile);
      __syncwarp();
      if (lane_ == 0) *hit_count() = 0;
      __syncwarp();
    }
  }

  // Writes down as many hits as there is room for, and returns those that are left.
  template <unsigned kFirst>
  __device__ unsigned collect(unsigned reached) {
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m) {
      FLLM_UNROLL
      for (unsigned n = 0; n < 4; ++n) {
        FLLM_UNROLL
        for (unsigned i = 0; i < 4; ++i) {
          const unsigned bit = 1u << (m * 16 + n * 4 + i);
          if ((reached & bit) == 0) continue;
          const unsigned at = atomicAdd(hit_count(), 1u);
          if (at >= kHits) continue;
          const unsigned item = item_of(n, i);
          hits()[at] = sums_.hit(row_of(kFirst + m, i), item, kFirst + m, n, i, offset(item));
          reached &= ~bit;
        }
      }
    }
    return reached;
  }

  // kHitLanes lanes a hit; all go round as often, since they may sum together.
  __device__ void settle(unsigned tile) {
    const unsigned count = *hit_count() < kHits ? *hit_count() : kHits;
    FLLM_KEEP_LOOP
    for (unsigned first = 0; first < count; first += kWarpLanes / Tile::kHitLanes) {
      const unsigned at = first + lane_ / Tile::kHitLanes, part = lane_ % Tile::kHitLanes;
      const typename Tile::Hit hit = hits()[at < count ? at : first];
      const std::uint64_t row = tile_row(tile) + hit.row;
      if (Tile::kHitLanes == 1 && at >= count) break;
      const bool there = at < count && row < wave_.rows && hit.item < batch_.count;
      const Item& item = batch_.items[there ? hit.item : 0];
      const bool counts = there && is_allowed(wave_, item, row);
      const double sum = Tile::exact_sum(hit, wave_, row, item, counts ? wave_.dim : 0, part);
      if (!counts || part != 0) continue;
      const Candidates out = batch_.candidates[hit.item];
      const double add = wave_.bias == nullptr ? 0.0 : bias(tile)[hit.row];
      const float score = exact_score(sum, scales(tile)[hit.row], item.scale, add);
      consider<false>(wave_, item, out, *out.threshold, row, score);
    }
  }

  // A block's sums become one an item, added in a fixed order, and join what the block knew before.
  __device__ void add_shares() {
    float* const sums = floats(Layout::kSums);
    FLLM_UNROLL
    for (unsigned column = 0; column < kLaneItems; ++column) {
      float sum = exp_sums()[column * kManyThreads];
      FLLM_UNROLL
      for (unsigned mask = 4; mask < kWarpLanes; mask *= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
      if (lane_ < 4) sums[row_warp_ * Layout::kItems + item_of(column / 2, column)] = sum;
    }
    __syncthreads();
    for (unsigned item = threadIdx.x; item < batch_.count; item += kManyThreads) {
      double sum = 0.0;
      for (unsigned warp = 0; warp < Layout::kRowWarps; ++warp) sum += sums[warp * Layout::kItems + item];
      Share& share = batch_.shares[std::uint64_t{item} * batch_.stride + blockIdx.x];
      share = joined(share, {references()[item], sum});
    }
  }

  const Wave& wave_;
  const ItemBatch& batch_;
  const unsigned limb_stride_;
  unsigned char* const memory_;
  const unsigned lane_, row_warp_, item_warp_, chunks_;
  unsigned next_stage_ = 0, next_chunk_ = 0, next_tile_ = 0;
  Tile sums_;
};

template <class Tile, unsigned kItemWarps, bool kDenominator>
__global__ void __launch_bounds__(kManyThreads, 2) scan_many(Wave wave, ItemBatch batch) {
  ManyScan<Tile, kItemWarps, kDenominator>(wave, batch).run();
}

}  // namespace fllm::cuda

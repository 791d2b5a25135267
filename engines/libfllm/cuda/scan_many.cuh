// Many items against the int8 rows of a wave: bound by arithmetic. Tensor cores multiply tiles of rows with all items,
// and the sums are judged where they are, in registers.
#pragma once

#include "cuda/device.hpp"
#include "cuda/order.cuh"
#include "cuda/score.cuh"
#include "cuda/tile.cuh"
#include "cuda/wave.hpp"

namespace fllm::cuda {

constexpr unsigned kManyThreads = 256;
constexpr unsigned kManyWarps = kManyThreads / kWarpLanes;
constexpr unsigned kWarpRows = 32, kWarpItems = 32;  // of a warp's tile: two and four tiles of the tensor cores
constexpr unsigned kLaneItems = 8;                   // whose sums with four rows a lane has
constexpr unsigned kChunkBytes = 64;                 // of each row, that are brought in together
constexpr unsigned kChunkPieces = kChunkBytes / kPieceBytes;
constexpr unsigned kStages = 4;                      // chunks in shared memory: one in use, the others on their way
constexpr unsigned kMostManyDim = 1024;              // up to which both limbs' sum together has 31 bits
constexpr unsigned kHits = 128;                      // of a warp, that are settled together

// A row that may reach an item's threshold, with its sums.
struct Hit {
  std::uint16_t row, item;  // of the block's tile
  int high, low;
};

// How a block's shared memory is laid out for kItemWarps x 32 items; the warps that are left share the rows.
template <unsigned kItemWarps>
struct ManyLayout {
  static constexpr unsigned kItems = kItemWarps * kWarpItems;
  static constexpr unsigned kRowWarps = kManyWarps / kItemWarps;
  static constexpr unsigned kRows = kRowWarps * kWarpRows;

  // Codes lie first. What depends on the rows' length lies last, so that the other places are known to the compiler.
  static constexpr unsigned kScales = kStages * kRows * kChunkBytes;
  static constexpr unsigned kBias = kScales + kStages * kRows * sizeof(float);
  static constexpr unsigned kJudged = kBias + kStages * kRows * sizeof(float);  // scales, thresholds, references of items
  static constexpr unsigned kExpSums = kJudged + 3 * kItems * sizeof(float);
  static constexpr unsigned kSums = kExpSums + kLaneItems * kManyThreads * sizeof(float);
  static constexpr unsigned kHitPlaces = kSums + kRowWarps * kItems * sizeof(float);
  static constexpr unsigned kHitCounts = kHitPlaces + kManyWarps * kHits * sizeof(Hit);
  static constexpr unsigned kLimbs = kHitCounts + kManyWarps * sizeof(unsigned);

  // Bytes from an item's limb to the next one's: 16 more than all chunks, against bank conflicts.
  __host__ __device__ static unsigned limb_stride(unsigned dim) {
    return (dim + kChunkBytes - 1) / kChunkBytes * kChunkBytes + kPieceBytes;
  }
  static std::size_t bytes(unsigned dim) { return kLimbs + std::size_t{2} * kItems * limb_stride(dim); }

  static_assert(kLimbs % kPieceBytes == 0);
};

template <unsigned kItemWarps, bool kDenominator>
class ManyScan {
 public:
  using Layout = ManyLayout<kItemWarps>;

  __device__ ManyScan(const Wave& wave, const ItemBatch& batch)
      : wave_(wave), batch_(batch), limb_stride_(Layout::limb_stride(wave.dim)), memory_(dynamic_shared()),
        lane_(threadIdx.x % kWarpLanes), row_warp_(threadIdx.x / kWarpLanes / kItemWarps), item_warp_(threadIdx.x / kWarpLanes % kItemWarps),
        chunks_((wave.dim + kChunkBytes - 1) / kChunkBytes) {}

  __device__ void run() {
    load_items();
    const std::uint64_t tiles = (rows_of(wave_) + Layout::kRows - 1) / Layout::kRows;
    const std::uint64_t own = blockIdx.x < tiles ? (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x : 0;
    const std::uint64_t steps = own * chunks_;
    for (unsigned stage = 0; stage + 1 < kStages; ++stage) bring();
    clear_sums();
    unsigned chunk = 0, tile = 0;
    for (std::uint64_t step = 0; step < steps; ++step) {
      wait_groups<kStages - 2>();
      __syncthreads();  // the chunk is there for all, and all are through with the one before, whose place is next
      bring();
      multiply_chunk(static_cast<unsigned>(step % kStages), chunk);
      if (++chunk < chunks_) continue;
      judge(tile);
      clear_sums();
      chunk = 0;
      ++tile;
    }
    wait_groups<0>();
    if (kDenominator) add_shares();
  }

 private:
  __device__ std::int8_t* codes(unsigned stage) const {
    return reinterpret_cast<std::int8_t*>(memory_) + stage * Layout::kRows * kChunkBytes;
  }
  __device__ const std::int8_t* limb(unsigned number, unsigned item) const {
    return reinterpret_cast<const std::int8_t*>(memory_) + Layout::kLimbs +
           (number * Layout::kItems + item) * limb_stride_;
  }
  __device__ float* floats(std::size_t offset) const { return reinterpret_cast<float*>(memory_ + offset); }
  __device__ float* scales(unsigned tile) const { return floats(Layout::kScales) + tile % kStages * Layout::kRows; }
  __device__ float* bias(unsigned tile) const { return floats(Layout::kBias) + tile % kStages * Layout::kRows; }
  __device__ float* item_scales() const { return floats(Layout::kJudged); }
  __device__ float* thresholds() const { return floats(Layout::kJudged) + Layout::kItems; }
  __device__ float* references() const { return floats(Layout::kJudged) + 2 * Layout::kItems; }
  // The thread's own sums of exp(score - reference), [kLaneItems] at intervals of kManyThreads.
  __device__ float* exp_sums() const { return floats(Layout::kExpSums) + threadIdx.x; }
  __device__ Hit* hits() const {
    return reinterpret_cast<Hit*>(memory_ + Layout::kHitPlaces) + threadIdx.x / kWarpLanes * kHits;
  }
  __device__ unsigned* hit_count() const {
    return reinterpret_cast<unsigned*>(memory_ + Layout::kHitCounts) +
           threadIdx.x / kWarpLanes;
  }
  // The k-th piece of a row's chunk lies where eight rows' pieces meet no bank twice.
  __device__ static unsigned place(unsigned row, unsigned piece) {
    return row * kChunkBytes + (piece ^ (row / 2 % kChunkPieces)) * kPieceBytes;
  }
  __device__ std::uint64_t tile_row(unsigned tile) const {
    return (blockIdx.x + std::uint64_t{tile} * gridDim.x) * Layout::kRows;
  }

  // Limbs, and what scores are judged by: a float32 score is never so far below the exact one that it falls below this
  // threshold when the exact one reaches the candidates'. Four roundings, of sums that |score| + |bias| bounds.
  __device__ void load_items() {
    constexpr float kSlack = 0x1p-21f;
    for (unsigned i = threadIdx.x; i < Layout::kItems; i += kManyThreads) {
      const bool there = i < batch_.count;
      const float exact = there ? *batch_.candidates[i].threshold : INFINITY;
      item_scales()[i] = there ? static_cast<float>(batch_.items[i].scale) : 0.0f;
      thresholds()[i] = exact - kSlack * (fabsf(exact) + most_bias_of(wave_)) - 0x1p-126f;
      references()[i] = there ? from_descending(*batch_.items[i].peak) : 0.0f;
    }
    // An item that is not there has no limbs: its score is the bias, and never reaches infinity.
    const unsigned pieces = limb_stride_ / kPieceBytes, all = 2 * Layout::kItems * pieces;
    for (unsigned i = threadIdx.x; i < all; i += kManyThreads) {
      const unsigned piece = i % pieces, item = i / pieces % Layout::kItems, number = i / pieces / Layout::kItems;
      int4 part{0, 0, 0, 0};
      if (item < batch_.count && piece * kPieceBytes < wave_.dim) {
        const std::int8_t* from = number == 0 ? batch_.items[item].high : batch_.items[item].low;
        part = reinterpret_cast<const int4*>(from)[piece];
      }
      *reinterpret_cast<int4*>(memory_ + Layout::kLimbs + (number * Layout::kItems + item) * limb_stride_ +
                               piece * kPieceBytes) = part;
    }
    for (unsigned column = 0; column < kLaneItems; ++column) exp_sums()[column * kManyThreads] = 0.0f;
    if (lane_ == 0) *hit_count() = 0;
    __syncthreads();
  }

  // Puts the next chunk of the block's rows on its way, with scales and biases when it is a tile's first.
  __device__ void bring() {
    const std::uint64_t first = tile_row(next_tile_), rows = rows_of(wave_);
    std::int8_t* const to = codes(next_stage_);
    FLLM_KEEP_LOOP
    for (unsigned i = threadIdx.x; i < Layout::kRows * kChunkPieces; i += kManyThreads) {
      const unsigned row = i / kChunkPieces, piece = i % kChunkPieces;
      const unsigned byte = next_chunk_ * kChunkBytes + piece * kPieceBytes;
      const bool there = first + row < rows && byte < wave_.dim;
      copy_16(to + place(row, piece), there ? wave_.codes + (first + row) * wave_.dim + byte : wave_.codes, there);
    }
    if (next_chunk_ == 0 && threadIdx.x < Layout::kRows && first + threadIdx.x < rows) {
      copy_4(scales(next_tile_) + threadIdx.x, wave_.scales + first + threadIdx.x);
      if (wave_.bias != nullptr) copy_4(bias(next_tile_) + threadIdx.x, wave_.bias + first + threadIdx.x);
    }
    end_group();
    next_stage_ = (next_stage_ + 1) % kStages;
    if (++next_chunk_ == chunks_) next_chunk_ = 0, ++next_tile_;
  }

  __device__ void clear_sums() {
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m)
      FLLM_UNROLL
      for (unsigned n = 0; n < 4; ++n)
        FLLM_UNROLL
        for (unsigned i = 0; i < 4; ++i) high_[m][n][i] = low_[m][n][i] = 0;
  }

  __device__ void multiply_chunk(unsigned stage, unsigned chunk) {
    const std::int8_t* const from = codes(stage);
    FLLM_UNROLL
    for (unsigned step = 0; step < kChunkBytes / 32; ++step) {
      unsigned rows[2][4];
      FLLM_UNROLL
      for (unsigned m = 0; m < 2; ++m) {
        const unsigned row = row_warp_ * kWarpRows + m * 16 + lane_ % 16;
        load_matrices(rows[m], from + place(row, 2 * step + lane_ / 16));
      }
      const unsigned byte = chunk * kChunkBytes + step * 32 + lane_ / 8 % 2 * kPieceBytes;
      FLLM_UNROLL
      for (unsigned pair = 0; pair < 2; ++pair) {
        const unsigned item = item_warp_ * kWarpItems + pair * 16 + lane_ / 16 * 8 + lane_ % 8;
        multiply_limb<0>(high_, rows, item, byte, pair);
        multiply_limb<1>(low_, rows, item, byte, pair);
      }
    }
  }

  template <unsigned kNumber>
  __device__ __forceinline__ void multiply_limb(int (&sums)[2][4][4], const unsigned (&rows)[2][4], unsigned item,
                                                unsigned byte, unsigned pair) {
    unsigned parts[4];
    load_matrices(parts, limb(kNumber, item) + byte);
    FLLM_UNROLL
    for (unsigned m = 0; m < 2; ++m) {
      FLLM_UNROLL
      for (unsigned n = 0; n < 2; ++n) multiply_tile(sums[m][2 * pair + n], rows[m], parts[2 * n], parts[2 * n + 1]);
    }
  }

  // A lane's sums are those of four rows with eight items.
  __device__ unsigned row_of(unsigned m, unsigned i) const {
    return row_warp_ * kWarpRows + m * 16 + i / 2 * 8 + lane_ / 4;
  }
  __device__ unsigned item_of(unsigned n, unsigned i) const {
    return item_warp_ * kWarpItems + n * 8 + lane_ % 4 * 2 + i % 2;
  }

  // Adds the tile's scores to the denominators, and settles those that may reach a threshold.
  __device__ void judge(unsigned tile) {
    constexpr float kLog2E = 0x1.715476p+0f;
    float scale[4], add[4];  // of the lane's rows
    FLLM_UNROLL
    for (unsigned r = 0; r < 4; ++r) {
      const unsigned row = row_of(r / 2, 2 * (r % 2));
      const bool there = tile_row(tile) + row < rows_of(wave_);
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
        const float sum = static_cast<float>(128 * high_[m][n][i] + low_[m][n][i]);
        const float score = fmaf(sum * item_scales()[item], scale[r], add[r]);
        if (score >= thresholds()[item]) reached |= 1u << (m * 16 + n * 4 + i);
        if (kDenominator) exp_sum += fast_exp2((score - references()[item]) * kLog2E);
      }
      if (kDenominator) exp_sums()[column * kManyThreads] += exp_sum;
    }
    while (__any_sync(kAllLanes, reached != 0)) {
      reached = collect(reached);
      __syncwarp();
      settle(tile);
      __syncwarp();
      if (lane_ == 0) *hit_count() = 0;
      __syncwarp();
    }
  }

  // Writes down as many hits as there is room for, and returns those that are left.
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
          hits()[at] = {static_cast<std::uint16_t>(row_of(m, i)), static_cast<std::uint16_t>(item_of(n, i)),
                        high_[m][n][i], low_[m][n][i]};
          reached &= ~bit;
        }
      }
    }
    return reached;
  }

  __device__ void settle(unsigned tile) {
    const unsigned count = *hit_count() < kHits ? *hit_count() : kHits;
    for (unsigned at = lane_; at < count; at += kWarpLanes) {
      const Hit hit = hits()[at];
      const std::uint64_t row = tile_row(tile) + hit.row;
      if (row >= rows_of(wave_) || hit.item >= batch_.count) continue;
      const Item item = batch_.items[hit.item];
      const Candidates out = batch_.candidates[hit.item];
      const double add = wave_.bias == nullptr ? 0.0 : bias(tile)[hit.row];
      const float score = exact_score(128.0 * hit.high + hit.low, scales(tile)[hit.row], item.scale, add);
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
  int high_[2][4][4], low_[2][4][4];  // [row tile, item tile, fragment]
};

template <unsigned kItemWarps, bool kDenominator>
__global__ void __launch_bounds__(kManyThreads, 2) scan_many(Wave wave, ItemBatch batch) {
  ManyScan<kItemWarps, kDenominator>(wave, batch).run();
}

}  // namespace fllm::cuda

// Where a tile's items, candidates and shares lie in the workspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/preparation.hpp"
#include "plugin/tile.hpp"

namespace fllm::plugin {

class TileRoom {
 public:
  // Blocks that share an item's rows, at most: two for each of 256 processors. A constant, because a workspace's size
  // is asked for when a plan is built, perhaps for another GPU.
  static constexpr std::uint32_t kMostBlocks = 512;

  explicit TileRoom(const TileShape& shape);

  // No smaller tile needs more.
  std::size_t bytes() const { return bytes_; }

  // Rows of the wave that begins after so many.
  std::uint64_t rows_of_wave(std::uint64_t before) const;

  // Candidates an item has room for beside its K best.
  std::uint32_t free() const { return free_; }

  // What `prepare` writes into a workspace.
  cuda::Preparation preparation(const TileTensors& tensors, std::uint8_t* workspace) const;
  cuda::ItemBatch batch(std::uint8_t* workspace) const;
  cuda::TileFacts* tile(std::uint8_t* workspace) const;
  std::uint8_t* overflowed(std::uint8_t* workspace) const { return workspace + overflowed_; }  // [items]
  std::uint8_t* again(std::uint8_t* workspace) const { return workspace + again_; }            // [items]

 private:
  TileShape shape_;
  std::uint32_t padded_dim_, free_;
  std::size_t tile_, items_, candidates_, limbs_, wholes_, scores_, rows_, counts_, kept_, peaks_, thresholds_, shares_,
      overflowed_, again_, bytes_;
};

}  // namespace fllm::plugin

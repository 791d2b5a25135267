// A table as tiles of a plan: its rows one after the other in the GPU's memory as far as they fit, the rest in pinned
// memory of the host, from where they stream through two places. Padded with zeros to whole steps.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/host/device_table.hpp"
#include "kernels/kernels.hpp"

namespace fllm::tensorrt {

// Rows that a plan scores at once. `rows` counts padding, which comes last.
struct Block {
  std::uint64_t first = 0, rows = 0, valid = 0;
};

// What bounds the scores of rows: the largest row scale * norm of the codes, and magnitude of a bias.
struct RowBounds {
  double reach = 0, bias = 0;
};

// Where a block lies in the GPU's memory; no bias: null.
struct BlockAddresses {
  std::uint8_t* codes = nullptr;
  std::uint8_t* scales = nullptr;
  std::uint8_t* bias = nullptr;
};

// How a table is cut.
struct TableCut {
  std::uint64_t step = 0;       // blocks hold a multiple of it
  std::uint64_t most_rows = 0;  // of a streamed block, a multiple of the step
  std::uint64_t bytes = 0;      // of the GPU's memory at most
};

class PlanTable {
 public:
  static constexpr std::size_t kPlaces = 2;

  // Reads all rows. Throws Error (Status::memory).
  PlanTable(const cuda::Device& device, const cuda::Rows& table, const kernels::Kernels& kernels, const TableCut& cut);

  std::uint64_t rows() const { return rows_; }
  std::uint64_t streamed_blocks() const { return pinned_.size(); }

  // All rows in scan order; a resident block has at most `most_rows`, in whole steps.
  std::vector<Block> blocks(std::uint64_t most_rows) const;

  RowBounds bounds(const Block& block) const;

  // Where a block or a part of one is found by what is put on the stream from now on. A streamed one is copied to a
  // place, which nothing else may use any more.
  BlockAddresses bring(const Block& block, std::size_t place, const cuda::Stream& stream) const;

 private:
  // Offsets of the arrays in a block of memory for so many rows.
  struct Arrays {
    std::size_t scales = 0, bias = 0, bytes = 0;
  };

  Arrays arrays_of(std::uint64_t rows) const;
  void place(const TableCut& cut);
  template <typename Copy>
  void fill(std::uint8_t* to, const Arrays& arrays, const Block& block, Copy&& copy);
  void measure(const Tile& tile, std::uint64_t first, std::uint64_t rows, std::uint64_t at);
  BlockAddresses addresses(std::uint8_t* memory, const Arrays& arrays, std::uint64_t first) const;

  const cuda::Device& device_;
  const cuda::Rows table_;
  const kernels::Kernels& kernels_;
  std::uint64_t rows_, step_, resident_rows_ = 0, streamed_rows_ = 0;  // resident, padding included; of each block
  cuda::Memory resident_, places_;
  std::vector<cuda::Memory> pinned_;
  std::vector<RowBounds> bounds_;  // one a step
};

}  // namespace fllm::tensorrt

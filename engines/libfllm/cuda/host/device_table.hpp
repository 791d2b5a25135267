// The part of a table that one GPU scans: in its memory as far as it fits, the rest in pinned memory of the host, from
// where it streams through two places in the GPU's memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device.hpp"
#include "format/table.hpp"

namespace fllm::cuda {

// Rows that lie together in the table. One block holds their codes, scales, biases and ids; ids that count up from the
// first one are left out. Pieces, and the waves of one, begin with a block of codes where rows lie in blocks.
struct Piece {
  std::uint64_t first_row = 0, rows = 0;
  std::int64_t first_id = 0;
  bool has_bias = false, has_ids = false;
  float most_bias = 0;                                   // the largest magnitude
  std::size_t scales = 0, bias = 0, ids = 0, bytes = 0;  // offsets in the block, and its size; codes lie first
  bool resident = false;                                 // in the GPU's memory; otherwise pinned
  Memory block;
};

// What is scanned: a Table's layout and tiles, or such as lie elsewhere in memory.
struct Rows {
  const Layout& layout;
  const std::vector<Tile>& tiles;
};

// Tiles [first, last) of a table.
struct TileRange {
  std::size_t first, last;
};

class DeviceTable {
 public:
  // Uses at most `bytes` of the GPU's memory; 0: what is free. Reads all rows. Throws Error (Status::memory).
  DeviceTable(const Device& device, const Rows& table, TileRange tiles, std::uint64_t bytes);

  // In scan order: those that are resident come first.
  const std::vector<Piece>& pieces() const { return pieces_; }
  std::size_t dim() const { return dim_; }
  // Rows whose codes lie together in a block; 1 where each row lies by itself.
  std::size_t rows_together() const { return rows_together_; }
  Codes kind() const { return kind_; }
  std::size_t resident_pieces() const { return resident_; }

  static constexpr std::size_t kPlaces = 2;
  // Where pieces are streamed to; place `number` of kPlaces.
  std::uint8_t* place(std::size_t number) const { return places_.data() + number * place_bytes_; }

  // Rows [first, first + rows) of a piece whose block lies at `block`; `first` is a multiple of rows_together().
  Wave wave(const Piece& piece, const std::uint8_t* block, std::uint64_t first, std::uint64_t rows) const;

 private:
  struct Run;
  std::vector<Run> cut_runs(const Rows& table, TileRange tiles) const;
  void place_runs(const std::vector<Run>& runs, std::uint64_t bytes);
  void add_resident(const Run& run, std::uint64_t first, std::uint64_t rows);
  void add_pinned(const Run& run, std::uint64_t first, std::uint64_t rows);
  template <typename Copy>
  void fill(const Piece& piece, const Run& run, std::uint64_t first, Copy&& copy) const;
  Piece lay_out(const Run& run, std::uint64_t first, std::uint64_t rows) const;
  std::uint64_t row_bytes(const Run& run) const;
  std::uint64_t fitting_rows(std::uint64_t bytes, std::uint64_t each) const;
  std::uint64_t whole_blocks(std::uint64_t rows) const;

  const Device& device_;
  std::size_t dim_, code_bytes_, rows_together_;  // bytes of a row's codes
  Codes kind_;
  std::vector<Piece> pieces_;
  std::size_t resident_ = 0, place_bytes_ = 0;
  Memory places_;
};

}  // namespace fllm::cuda

// From what is wanted to the kernel that was compiled for it.
#pragma once

#include "cuda/prune.cuh"
#include "cuda/scan_many.cuh"
#include "cuda/scan_one.cuh"

namespace fllm::cuda {

namespace detail {

template <class Rows>
void scan_one_of(const Wave& wave, const Item& item, const Candidates& out, Share* shares, bool sample, unsigned blocks,
                 Stream stream) {
  if (shares != nullptr) {
    launch(sample ? scan_one<Rows, true, true> : scan_one<Rows, true, false>, blocks, kScanThreads, stream, wave, item,
           out, shares);
  } else {
    launch(sample ? scan_one<Rows, false, true> : scan_one<Rows, false, false>, blocks, kScanThreads, stream, wave,
           item, out, shares);
  }
}

template <class Tile, unsigned kItemWarps>
void scan_many_of(const Wave& wave, const ItemBatch& batch, unsigned blocks, Stream stream) {
  const std::size_t bytes = ManyLayout<Tile, kItemWarps>::bytes(wave.dim);
  launch_shared(batch.shares != nullptr ? scan_many<Tile, kItemWarps, true> : scan_many<Tile, kItemWarps, false>,
                blocks, kManyThreads, bytes, stream, wave, batch);
}

// Wide for up to 128 items, Narrow for up to 64, whose blocks have more rows.
template <class Wide, class Narrow>
void scan_many_rows_of(const Wave& wave, const ItemBatch& batch, unsigned blocks, Stream stream) {
  if (batch.count <= 32) return scan_many_of<Narrow, 1>(wave, batch, blocks, stream);
  if (batch.count <= 64) return scan_many_of<Narrow, 2>(wave, batch, blocks, stream);
  scan_many_of<Wide, 4>(wave, batch, blocks, stream);
}

template <class Wide, class Narrow>
unsigned most_items_of(std::uint32_t dim, std::size_t shared_bytes) {
  if (ManyLayout<Wide, 4>::bytes(dim) <= shared_bytes) return 128;
  if (ManyLayout<Narrow, 2>::bytes(dim) <= shared_bytes) return 64;
  return ManyLayout<Narrow, 1>::bytes(dim) <= shared_bytes ? 32 : 0;
}

using WideFp8Tile = Fp8Tile<4>;
using NarrowFp8Tile = Fp8Tile<2>;

template <class CodeRows>
void scan_byte_rows_of(const Wave& wave, const Item& item, const Candidates& out, Share* shares, bool sample,
                       unsigned blocks, Stream stream) {
  if (wave.dim % kPieceBytes != 0) {
    return scan_one_of<RowByRow<CodeRows, 8, false>>(wave, item, out, shares, sample, blocks, stream);
  }
  switch (lanes_of_row(wave.dim)) {
    case 1: return scan_one_of<RowByRow<CodeRows, 1, true>>(wave, item, out, shares, sample, blocks, stream);
    case 2: return scan_one_of<RowByRow<CodeRows, 2, true>>(wave, item, out, shares, sample, blocks, stream);
    case 4: return scan_one_of<RowByRow<CodeRows, 4, true>>(wave, item, out, shares, sample, blocks, stream);
    case 8: return scan_one_of<RowByRow<CodeRows, 8, true>>(wave, item, out, shares, sample, blocks, stream);
    case 16: return scan_one_of<RowByRow<CodeRows, 16, true>>(wave, item, out, shares, sample, blocks, stream);
    default: return scan_one_of<RowByRow<CodeRows, 32, true>>(wave, item, out, shares, sample, blocks, stream);
  }
}

}  // namespace detail

// Scores the rows of a wave for one item. To `shares` [blocks] each block adds its share of the denominator; null where
// none is wanted. int8 and fp8 rows of other lengths than multiples of 16 are read byte by byte, which takes longer.
inline void launch_scan_one(const Wave& wave, const Item& item, const Candidates& out, Share* shares, bool sample,
                            unsigned blocks, Stream stream) {
  const auto scan = [&](auto* scan_of) { scan_of(wave, item, out, shares, sample, blocks, stream); };
  switch (wave.kind) {
    case Codes::int8: return scan(detail::scan_byte_rows_of<Int8Rows>);
    case Codes::fp8: return scan(detail::scan_byte_rows_of<Fp8Rows>);
    case Codes::int2: return scan(detail::scan_one_of<PlaneRows<1>>);
    case Codes::int4row: return scan(detail::scan_one_of<PlaneRows<2>>);
  }
}

// The most items that a block with so much shared memory scans together, at most 128; 0: rows of that length not at
// all.
inline unsigned most_items_together(Codes kind, std::uint32_t dim, std::size_t shared_bytes) {
  const bool in_planes = kind == Codes::int2 || kind == Codes::int4row;
  if ((dim % kPieceBytes != 0 && !in_planes) || dim > kMostManyDim) return 0;
  switch (kind) {
    case Codes::int8: return detail::most_items_of<Int8Tile, Int8Tile>(dim, shared_bytes);
    case Codes::fp8: return detail::most_items_of<detail::WideFp8Tile, detail::NarrowFp8Tile>(dim, shared_bytes);
    case Codes::int2: return detail::most_items_of<PlaneTile<1>, PlaneTile<1>>(dim, shared_bytes);
    case Codes::int4row: return detail::most_items_of<PlaneTile<2>, PlaneTile<2>>(dim, shared_bytes);
  }
  return 0;
}

// Scores the rows of a wave for up to most_items_together() items; the shares are added to as by launch_scan_one. A
// scan for one item must have gone before: its peaks are what exponentials are taken relative to. Where a score is far
// above that, the share becomes infinite.
inline void launch_scan_many(const Wave& wave, const ItemBatch& batch, unsigned blocks, Stream stream) {
  const auto scan = [&](auto* scan_of) { scan_of(wave, batch, blocks, stream); };
  switch (wave.kind) {
    case Codes::int8: return scan(detail::scan_many_rows_of<Int8Tile, Int8Tile>);
    case Codes::fp8: return scan(detail::scan_many_rows_of<detail::WideFp8Tile, detail::NarrowFp8Tile>);
    case Codes::int2: return scan(detail::scan_many_rows_of<PlaneTile<1>, PlaneTile<1>>);
    case Codes::int4row: return scan(detail::scan_many_rows_of<PlaneTile<2>, PlaneTile<2>>);
  }
}

// Leaves the K best candidates of each item, `items` [count] in device memory, raises the thresholds, and says in
// `overflowed` [count] whether the last wave's candidates did not fit and were given up.
inline void launch_prune(const Candidates* items, unsigned count, std::uint8_t* overflowed, Stream stream) {
  launch(prune, count, kPruneThreads, stream, items, overflowed);
}

}  // namespace fllm::cuda

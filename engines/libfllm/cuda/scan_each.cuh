// Several items of a batch against the rows of a wave, each as scan_one has it, in one launch: what one launch an item
// would be too slow for where waves are short, and where only the device knows the items.
#pragma once

#include <algorithm>

#include "cuda/scan_one.cuh"
#include "cuda/tile.cuh"

namespace fllm::cuda {

// `parts` blocks' work an item, at most the stride of shares. `wanted` [items] says which items are scanned; null: all.
template <class Rows, unsigned kLanes, bool kAligned>
__global__ void __launch_bounds__(kScanThreads, 2)
    scan_each(Wave whole, ItemBatch batch, unsigned parts, const std::uint8_t* wanted) {
  __shared__ Item item;  // which spares the threads' registers
  __shared__ Candidates out;
  Wave wave = whole;
  wave.rows = rows_of(whole);
  const std::uint64_t all = std::uint64_t{batch.count} * parts;
  for (std::uint64_t work = blockIdx.x; work < all; work += gridDim.x) {
    const auto number = static_cast<unsigned>(work / parts), part = static_cast<unsigned>(work % parts);
    if (wanted != nullptr && wanted[number] == 0) continue;
    if (threadIdx.x == 0) item = batch.items[number], out = batch.candidates[number];
    __syncthreads();
    const Share share = scan_rows<Rows, kLanes, kAligned, true, false>(wave, item, out, part, parts);
    write_share(share, batch.shares[std::uint64_t{number} * batch.stride + part], item.peak);
    __syncthreads();  // what is shared is the next item's from here on
  }
}

namespace detail {

template <class Rows, unsigned kLanes, bool kAligned>
void scan_each_of(const Wave& wave, const ItemBatch& batch, const std::uint8_t* wanted, unsigned blocks,
                  Stream stream) {
  constexpr std::uint64_t kRowsOfBlock = kScanWarps * (kWarpLanes / kLanes) * kRowsAhead;  // that it takes at once
  const std::uint64_t most = std::min(blocks, batch.stride);
  const std::uint64_t parts = std::clamp<std::uint64_t>((wave.rows + kRowsOfBlock - 1) / kRowsOfBlock, 1, most);
  launch(scan_each<Rows, kLanes, kAligned>, static_cast<unsigned>(std::min<std::uint64_t>(blocks, batch.count * parts)),
         kScanThreads, stream, wave, batch, static_cast<unsigned>(parts), wanted);
}

template <class Rows>
void scan_each_rows(const Wave& wave, const ItemBatch& batch, const std::uint8_t* wanted, unsigned blocks,
                    Stream stream) {
  if (wave.dim % kPieceBytes != 0) return scan_each_of<Rows, 8, false>(wave, batch, wanted, blocks, stream);
  switch (lanes_of_row(wave.dim)) {
    case 1: return scan_each_of<Rows, 1, true>(wave, batch, wanted, blocks, stream);
    case 2: return scan_each_of<Rows, 2, true>(wave, batch, wanted, blocks, stream);
    case 4: return scan_each_of<Rows, 4, true>(wave, batch, wanted, blocks, stream);
    case 8: return scan_each_of<Rows, 8, true>(wave, batch, wanted, blocks, stream);
    case 16: return scan_each_of<Rows, 16, true>(wave, batch, wanted, blocks, stream);
    default: return scan_each_of<Rows, 32, true>(wave, batch, wanted, blocks, stream);
  }
}

}  // namespace detail

// Scores the rows of a wave for the items of a batch, or for the wanted ones [count] where it is not null, and adds to
// their shares. The batch must want denominators.
inline void launch_scan_each(const Wave& wave, const ItemBatch& batch, const std::uint8_t* wanted, unsigned blocks,
                             Stream stream) {
  if (wave.kind == Codes::int8) return detail::scan_each_rows<Int8Rows>(wave, batch, wanted, blocks, stream);
  detail::scan_each_rows<Fp8Rows>(wave, batch, wanted, blocks, stream);
}

}  // namespace fllm::cuda

#include "plugin/tile_scan.hpp"

#include <algorithm>

#include "cuda/finish.cuh"
#include "cuda/launch.cuh"
#include "cuda/prepare.cuh"
#include "cuda/scan_each.cuh"
#include "plugin/tile_room.hpp"

namespace fllm::plugin {

namespace {

using namespace fllm::cuda;

constexpr unsigned kBlocksPerProcessor = 2;

struct Processors {
  unsigned blocks;    // of a launch
  unsigned together;  // items that scan_many takes; 0: none
};

int ask_device(const TileShape& shape, Codes kind, Processors& found) {
  int device = 0, processors = 0, shared_bytes = 0;
  if (const cudaError_t failed = cudaGetDevice(&device)) return failed;
  if (const cudaError_t failed = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) {
    return failed;
  }
  if (const cudaError_t failed =
          cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) {
    return failed;
  }
  found.blocks = std::min(static_cast<unsigned>(processors) * kBlocksPerProcessor, TileRoom::kMostBlocks);
  found.together = shape.items > 1 ? most_items_together(kind, shape.dim, static_cast<std::size_t>(shared_bytes)) : 0;
  return cudaSuccess;
}

class TileScan {
 public:
  TileScan(const TileShape& shape, const TileTensors& tensors, const Processors& processors, void* workspace,
           Stream stream)
      : shape_(shape),
        tensors_(tensors),
        processors_(processors),
        room_(shape),
        workspace_(static_cast<std::uint8_t*>(workspace)),
        batch_(room_.batch(workspace_)),
        stream_(stream) {}

  void run() {
    begin();
    for (std::uint64_t first = 0; first < shape_.rows;) {
      const std::uint64_t rows = room_.rows_of_wave(first);
      score(wave(first, rows));
      launch_prune(batch_.candidates, shape_.items, room_.overflowed(workspace_), stream_);
      first += rows;
    }
    if (processors_.together > 0 && shape_.rows > room_.rows_of_wave(0)) sum_again();
    const unsigned segments = (shape_.k + kFinishThreads - 1) / kFinishThreads;
    launch(finish, shape_.items * segments, kFinishThreads, stream_, batch_, room_.tile(workspace_), segments,
           Answers{tensors_.scores, tensors_.row_numbers, tensors_.m, tensors_.l});
  }

 private:
  void begin() {
    launch(prepare, shape_.items, kPrepareThreads, stream_, room_.preparation(tensors_, workspace_));
    if (processors_.together == 0) return;
    launch(find_most_bias, tensors_.bias == nullptr ? 1 : processors_.blocks, kPrepareThreads, stream_, tensors_.bias,
           batch_.items, shape_.items, room_.tile(workspace_));
  }

  Wave wave(std::uint64_t first, std::uint64_t rows) const {
    Wave wave{};
    wave.codes = tensors_.codes + first * shape_.dim;
    wave.scales = tensors_.scales + first;
    wave.bias = tensors_.bias == nullptr ? nullptr : tensors_.bias + first;
    wave.first_id = static_cast<std::int64_t>(first);
    wave.first_row = first;
    wave.rows = rows;
    wave.dim = shape_.dim;
    wave.kind = tensors_.kind;
    wave.tile = room_.tile(workspace_);
    return wave;
  }

  // The first wave takes every row as a candidate, and gives the peaks that scans for many start from.
  void score(const Wave& wave) {
    if (wave.first_row == 0 || processors_.together == 0) {
      return launch_scan_each(wave, batch_, nullptr, processors_.blocks, stream_);
    }
    for (unsigned first = 0; first < shape_.items; first += processors_.together) {
      ItemBatch some = batch_;
      some.items += first;
      some.candidates += first;
      some.shares += std::uint64_t{first} * batch_.stride;
      some.count = std::min(processors_.together, shape_.items - first);
      launch_scan_many(wave, some, processors_.blocks, stream_);
    }
  }

  // Items whose denominator a late score made infinite are summed once more, by a scan that keeps a running maximum.
  // Where there are none, this takes two launches that end at once.
  void sum_again() {
    std::uint8_t* const again = room_.again(workspace_);
    launch(mark_infinite, shape_.items, kFinishThreads, stream_, batch_, again);
    launch_scan_each(wave(0, shape_.rows), batch_, again, processors_.blocks, stream_);
  }

  TileShape shape_;
  TileTensors tensors_;
  Processors processors_;
  TileRoom room_;
  std::uint8_t* workspace_;
  ItemBatch batch_;
  Stream stream_;
};

}  // namespace

std::size_t workspace_bytes(const TileShape& shape) { return TileRoom(shape).bytes(); }

int scan_tile(const TileShape& shape, const TileTensors& tensors, void* workspace, void* stream) {
  if (shape.items == 0) return cudaSuccess;
  Processors processors{};
  if (const int failed = ask_device(shape, tensors.kind, processors)) return failed;
  TileScan(shape, tensors, processors, workspace, static_cast<Stream>(stream)).run();
  return cudaGetLastError();
}

const char* text_of(int cuda_error) { return cudaGetErrorString(static_cast<cudaError_t>(cuda_error)); }

}  // namespace fllm::plugin

// The engine `cuda` on rows that lie in memory, for benchmarks/gpu: one block of rows, taken several times over,
// with ids that count up.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/host/cuda_engine.hpp"

namespace {

template <typename Work>
int attempt(char* message, Work&& work) {
  try {
    work();
    return 0;
  } catch (const std::exception& failure) {
    std::snprintf(message, 512, "%s", failure.what());
    return 1;
  }
}

fllm::Codec codec_named(const std::string& name) {
  for (const fllm::CodecFacts& facts : fllm::kCodecs) {
    if (name == facts.name) return facts.codec;
  }
  throw std::invalid_argument("there is no codec " + name);
}

}  // namespace

extern "C" {

// codes [block_rows, dim] as the codec stores them, scales float32 [block_rows], ids int64 [blocks, block_rows]; null
// and `message` [512] on failure. Nothing is read after the call.
__attribute__((visibility("default"))) void* gpu_engine_open(const std::uint8_t* codes, const char* codec,
                                                             const float* scales, const std::int64_t* ids,
                                                             std::uint64_t block_rows, std::uint64_t blocks,
                                                             std::uint32_t dim, std::uint64_t gpu_bytes,
                                                             char* message) {
  std::unique_ptr<fllm::cuda::CudaEngine> engine;
  attempt(message, [&] {
    fllm::Layout layout;
    layout.codec = codec_named(codec);
    layout.dim = dim;
    layout.rows = block_rows * blocks;
    std::vector<fllm::Tile> tiles(blocks);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      tiles[block].rows = block_rows;
      tiles[block].first_row = block * block_rows;
      tiles[block].codes = codes;
      tiles[block].scales = scales;
      tiles[block].ids = ids + block * block_rows;
    }
    engine = std::make_unique<fllm::cuda::CudaEngine>(fllm::cuda::Rows{layout, tiles},
                                                      fllm::cuda::DeviceOptions{1, gpu_bytes});
  });
  return engine.release();
}

__attribute__((visibility("default"))) std::uint64_t gpu_engine_streamed_bytes(void* engine) {
  return static_cast<fllm::cuda::CudaEngine*>(engine)->streamed_bytes();
}

// z float32 [items, dim] in; ids int64 and scores float32 [items, k], logsumexp float64 [items] out.
__attribute__((visibility("default"))) int gpu_engine_search(void* engine, const float* z, std::uint64_t items,
                                                             std::uint64_t k, int log_probs, std::int64_t* ids,
                                                             float* scores, double* logsumexp, char* message) {
  return attempt(message, [&] {
    fllm::Search search;
    search.z = z;
    search.items = items;
    search.k = k;
    search.log_probs = log_probs != 0 ? fllm::LogProbs::exact : fllm::LogProbs::none;
    std::vector<fllm::Column> columns;
    for (std::uint64_t item = 0; item < items; ++item) columns.push_back({&search, item});
    const std::vector<fllm::ItemAnswer> answers = static_cast<fllm::cuda::CudaEngine*>(engine)->scan(columns);
    for (std::uint64_t item = 0; item < items; ++item) {
      logsumexp[item] = answers[item].logsumexp;
      for (std::uint64_t rank = 0; rank < k; ++rank) {
        ids[item * k + rank] = answers[item].users[rank].id;
        scores[item * k + rank] = answers[item].users[rank].score;
      }
    }
  });
}

__attribute__((visibility("default"))) void gpu_engine_close(void* engine) {
  delete static_cast<fllm::cuda::CudaEngine*>(engine);
}

}  // extern "C"

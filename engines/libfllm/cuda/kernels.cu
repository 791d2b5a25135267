// The kernels, compiled for GPUs.
#include "cuda/kernels.hpp"

#include "cuda/launch.cuh"

namespace fllm::cuda {

void scan_one_item(const Wave& wave, const Item& item, const Candidates& out, Share* shares, bool sample,
                   unsigned blocks, void* stream) {
  launch_scan_one(wave, item, out, shares, sample, blocks, static_cast<Stream>(stream));
}

void prune_candidates(const Candidates* items, unsigned count, unsigned k, void* stream) {
  launch_prune(items, count, k, static_cast<Stream>(stream));
}

}  // namespace fllm::cuda

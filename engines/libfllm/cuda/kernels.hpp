// The kernels as the host calls them; a stream is a cudaStream_t. cuda/launch.cuh says what they do.
#pragma once

#include "cuda/wave.hpp"

namespace fllm::cuda {

void scan_one_item(const Wave& wave, const Item& item, const Candidates& out, Share* shares, bool sample,
                   unsigned blocks, void* stream);

void prune_candidates(const Candidates* items, unsigned count, unsigned k, void* stream);

}  // namespace fllm::cuda

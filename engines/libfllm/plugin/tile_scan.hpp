// The scan of one tile, put on a stream: nothing waits for the host or asks it, so that it can be part of a CUDA graph.
#pragma once

#include <cstddef>

#include "plugin/tile.hpp"

namespace fllm::plugin {

// Device memory that a scan of a tile of these sizes, or of smaller ones, works in.
std::size_t workspace_bytes(const TileShape& shape);

// Puts the scan on a cudaStream_t of the calling thread's device, and returns a cudaError_t. Nothing in the workspace
// matters before or after; it begins on a boundary of 256 bytes, as codes do.
int scan_tile(const TileShape& shape, const TileTensors& tensors, void* workspace, void* stream);

const char* text_of(int cuda_error);

}  // namespace fllm::plugin

// What the kernels are compiled against: CUDA, or its emulation on the CPU.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>

#define FLLM_UNROLL _Pragma("unroll")

namespace fllm::cuda {

using Stream = cudaStream_t;

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, Stream stream, Arguments... arguments) {
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
}

}  // namespace fllm::cuda

#else

#include "cuda/emulation/cuda.hpp"

#define FLLM_UNROLL

#endif

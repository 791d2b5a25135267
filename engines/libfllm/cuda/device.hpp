// What the kernels are compiled against: CUDA, or its emulation on the CPU.
#pragma once

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <cstdint>

#define FLLM_UNROLL _Pragma("unroll")
#define FLLM_KEEP_LOOP _Pragma("unroll 1")  // where registers are dearer than turns

namespace fllm::cuda {

using Stream = cudaStream_t;

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, Stream stream, Arguments... arguments) {
  kernel<<<blocks, threads, 0, stream>>>(arguments...);
}

// With `bytes` of dynamic shared memory; what is wrong with them is told by the launch.
template <typename... Parameters, typename... Arguments>
void launch_shared(void (*kernel)(Parameters...), unsigned blocks, unsigned threads, std::size_t bytes, Stream stream,
                   Arguments... arguments) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  kernel<<<blocks, threads, bytes, stream>>>(arguments...);
}

}  // namespace fllm::cuda

#include "cuda/tensor_core.cuh"

#else

#include "cuda/emulation/cuda.hpp"
#include "cuda/emulation/tensor_core.hpp"

#define FLLM_UNROLL
#define FLLM_KEEP_LOOP

#endif

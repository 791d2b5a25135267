// Every environment variable that libfllm and libfllm_encoder read.
#pragma once

#include <cstdint>
#include <string>

namespace fllm::environment {

inline constexpr const char* kThreads = "FLLM_NUM_THREADS";
inline constexpr const char* kIsa = "FLLM_ISA";
inline constexpr const char* kGpus = "FLLM_GPUS";
inline constexpr const char* kGpuBytes = "FLLM_GPU_BYTES";
inline constexpr const char* kCudaLibrary = "FLLM_CUDA_LIBRARY";
inline constexpr const char* kTensorRtLibrary = "FLLM_TENSORRT_LIBRARY";
inline constexpr const char* kOnnxRuntime = "FLLM_ONNXRUNTIME";

// What the variable holds; empty where it is not set.
std::string text(const char* name);

// The integer that it holds, or 0 where it is not set or is empty. Throws Error (Status::usage) when that is not from 1
// to `most`.
std::uint64_t number(const char* name, std::uint64_t most);

}  // namespace fllm::environment

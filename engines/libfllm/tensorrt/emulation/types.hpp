// The plain types of TensorRT's interface, as far as they are used here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/emulation/runtime.hpp"

using cudaStream_t = fllm::cuda::Stream;

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kFP8 = 6, kINT64 = 8 };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const AsciiChar* message) noexcept = 0;
  virtual ~ILogger() = default;
};

}  // namespace nvinfer1

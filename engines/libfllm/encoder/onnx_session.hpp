// A model run by ONNX Runtime, whose library is opened at run time.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <memory>
#include <string>

#include "encoder/prompt.hpp"
#include "status.hpp"

namespace fllm {

// ONNX Runtime's C interface, from its shared library. The library stays loaded until the process ends.
class OnnxRuntime {
 public:
  // `path` may be empty: FLLM_ONNXRUNTIME, or the system's libonnxruntime.so.1.
  // Throws Error(Status::hardware): there is no such library, or it is too old.
  explicit OnnxRuntime(const std::string& path);

  const OrtApi& api() const { return *api_; }
  const char* version() const { return version_; }

  // Throws Error(cause) where the call failed; `what` begins the message.
  void check(OrtStatus* status, Status cause, const std::string& what) const;

 private:
  const OrtApi* api_ = nullptr;
  const char* version_ = "";
};

// Objects of ONNX Runtime and the function of its interface that releases them.
template <typename Object>
struct OrtRelease {
  void (*function)(Object*) = nullptr;
  void operator()(Object* object) const { function(object); }
};
template <typename Object>
using OrtOwned = std::unique_ptr<Object, OrtRelease<Object>>;

// Where a model runs.
struct OnnxPlace {
  std::size_t threads = 1;  // of the CPU
  bool cuda = false;        // by the CUDA execution provider; what has no kernel there, as shapes, stays on the CPU
  int gpu = 0;
};

// An exported encoder. Safe to use from many threads at once.
class OnnxSession {
 public:
  // Throws Error: Status::bundle when the model cannot be read, Status::hardware when the GPU cannot be used.
  OnnxSession(const OnnxRuntime& runtime, const std::string& model, const OnnxPlace& place);

  // Item vectors, float32 [batch.items, dim], in the rows that `z` begins.
  void run(const Prompt::Batch& batch, std::size_t dim, float* z) const;

 private:
  void open(const OrtSessionOptions* options, bool cuda);
  OrtOwned<OrtValue> input(const std::vector<std::int64_t>& numbers, const Prompt::Batch& batch) const;
  void check_shape(const OrtValue* output, std::size_t items, std::size_t dim) const;

  const OnnxRuntime& runtime_;
  std::string model_;
  OrtOwned<OrtEnv> env_;
  OrtOwned<OrtMemoryInfo> memory_;
  OrtOwned<OrtSession> session_;
};

}  // namespace fllm

// A bundle's encoder: token ids in, item vectors out.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "encoder/onnx_session.hpp"
#include "encoder/text_tokenizer.hpp"

namespace fllm {

// Immutable, safe to use from many threads at once.
class Encoder {
 public:
  // `onnxruntime` is the library's path, or empty; 0 threads are as many as usual. Throws Error.
  Encoder(const std::string& bundle, const OnnxPlace& place, const std::string& onnxruntime);

  const std::shared_ptr<const TextTokenizer>& tokenizer() const { return tokenizer_; }
  std::size_t dim() const { return tokenizer_->dim(); }
  std::size_t threads() const { return threads_; }
  const char* onnxruntime_version() const { return runtime_.version(); }

  // Item vectors, float32 [items, dim]. Throws Error: Status::usage where an item has no token or
  // too many, Status::bundle where the model gives an item a vector that is not finite.
  void encode(std::span<const TokenIds> items, float* z) const;

 private:
  std::size_t threads_;
  std::shared_ptr<const TextTokenizer> tokenizer_;
  OnnxRuntime runtime_;
  OnnxSession session_;
};

}  // namespace fllm

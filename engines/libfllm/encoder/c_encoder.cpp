// The C interface of the encoder and its tokenizer.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "api/boundary.hpp"
#include "encoder/encoder.hpp"
#include "fllm/encoder.h"

struct fllm_tokenizer {
  std::shared_ptr<const fllm::TextTokenizer> tokenizer;
  std::atomic<std::size_t> owners{1};
};

namespace {

fllm::OnnxPlace place_of(const fllm_encoder_options& options) {
  const std::string_view provider = options.provider == nullptr ? "cpu" : options.provider;
  if (provider != "cpu" && provider != "cuda") {
    throw fllm::Error(fllm::Status::usage,
                      fllm::sentence("there is no provider '" + std::string(provider) + "'", "'cpu' or 'cuda'"));
  }
  fllm::require(options.gpu >= 0, "gpu is negative", "at least 0");
  return {options.threads, provider == "cuda", options.gpu};
}

}  // namespace

struct fllm_encoder {
  fllm_encoder(const char* bundle, const fllm_encoder_options& options)
      : encoder(bundle, place_of(options), options.onnxruntime == nullptr ? "" : options.onnxruntime),
        tokenizer{encoder.tokenizer()} {}

  fllm::Encoder encoder;
  fllm_tokenizer tokenizer;
  std::atomic<std::size_t> owners{1};
};

namespace {

using fllm::guarded;
using fllm::read_options;
using fllm::require;
using fllm::TokenIds;

template <typename Handle>
Handle* retain(Handle* handle) {
  handle->owners.fetch_add(1, std::memory_order_relaxed);
  return handle;
}

template <typename Handle>
void release(Handle* handle) {
  if (handle != nullptr && handle->owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete handle;
}

std::vector<TokenIds> tokenize(const fllm::TextTokenizer& tokenizer, const char* const* texts, const size_t* bytes,
                               size_t items) {
  require(texts != nullptr && items > 0, "there are no texts", "at least one");
  std::vector<TokenIds> all;
  for (std::size_t i = 0; i < items; ++i) {
    require(texts[i] != nullptr, "a text is NULL", "a text");
    const std::size_t length = bytes == nullptr ? std::strlen(texts[i]) : bytes[i];
    all.push_back(tokenizer.encode(std::string_view(texts[i], length), i));
  }
  return all;
}

}  // namespace

fllm_status fllm_tokenizer_open(const char* bundle, fllm_tokenizer** tokenizer, fllm_error* error) {
  return guarded(error, [&] {
    require(bundle != nullptr && tokenizer != nullptr, "bundle or tokenizer is NULL",
            "a path and a pointer to the handle");
    *tokenizer = new fllm_tokenizer{std::make_shared<const fllm::TextTokenizer>(bundle)};
  });
}

fllm_tokenizer* fllm_tokenizer_retain(fllm_tokenizer* tokenizer) { return retain(tokenizer); }

void fllm_tokenizer_release(fllm_tokenizer* tokenizer) { release(tokenizer); }

size_t fllm_tokenizer_max_length(const fllm_tokenizer* tokenizer) {
  return tokenizer->tokenizer->prompt().max_length();
}

fllm_status fllm_tokenizer_encode(const fllm_tokenizer* tokenizer, const char* const* texts, const size_t* bytes,
                                  size_t items, size_t stride, int64_t* ids, size_t* lengths, fllm_error* error) {
  return guarded(error, [&] {
    require(tokenizer != nullptr, "the tokenizer is NULL", "an open tokenizer");
    require(ids != nullptr && lengths != nullptr, "ids or lengths is NULL", "arrays");
    const std::vector<TokenIds> all = tokenize(*tokenizer->tokenizer, texts, bytes, items);
    for (const TokenIds& item : all) {
      require(item.size() <= stride, "an item has more tokens than stride",
              "a stride of at least its number of tokens");
    }
    for (std::size_t i = 0; i < items; ++i) {
      std::copy(all[i].begin(), all[i].end(), ids + i * stride);
      lengths[i] = all[i].size();
    }
  });
}

fllm_status fllm_encoder_open(const char* bundle, const fllm_encoder_options* options, fllm_encoder** encoder,
                              fllm_error* error) {
  return guarded(error, [&] {
    require(bundle != nullptr && encoder != nullptr, "bundle or encoder is NULL", "a path and a pointer to the handle");
    *encoder = new fllm_encoder(
        bundle, read_options(options, fllm_encoder_options FLLM_ENCODER_OPTIONS_INIT, "fllm_encoder_options"));
  });
}

fllm_encoder* fllm_encoder_retain(fllm_encoder* encoder) { return retain(encoder); }

void fllm_encoder_release(fllm_encoder* encoder) { release(encoder); }

fllm_status fllm_encoder_describe(const fllm_encoder* encoder, fllm_encoder_info* info, fllm_error* error) {
  return guarded(error, [&] {
    require(encoder != nullptr && info != nullptr, "encoder or info is NULL",
            "an encoder and a pointer to an fllm_encoder_info");
    fllm_encoder_info facts = read_options(info, fllm_encoder_info FLLM_ENCODER_INFO_INIT, "fllm_encoder_info");
    facts.dim = encoder->encoder.dim();
    facts.max_length = encoder->encoder.tokenizer()->prompt().max_length();
    facts.threads = static_cast<uint32_t>(encoder->encoder.threads());
    std::snprintf(facts.onnxruntime, sizeof facts.onnxruntime, "%s", encoder->encoder.onnxruntime_version());
    std::memcpy(info, &facts, facts.size);
  });
}

const fllm_tokenizer* fllm_encoder_tokenizer(const fllm_encoder* encoder) { return &encoder->tokenizer; }

fllm_status fllm_encoder_encode(const fllm_encoder* encoder, const int64_t* ids, const size_t* lengths, size_t items,
                                size_t stride, float* z, fllm_error* error) {
  return guarded(error, [&] {
    require(encoder != nullptr, "the encoder is NULL", "an open encoder");
    require(ids != nullptr && lengths != nullptr && z != nullptr, "ids, lengths or z is NULL", "arrays");
    require(items > 0, "there are no items", "at least one");
    std::vector<TokenIds> all;
    for (std::size_t i = 0; i < items; ++i) {
      require(lengths[i] <= stride, "an item has more tokens than stride", "at most stride");
      all.emplace_back(ids + i * stride, ids + i * stride + lengths[i]);
    }
    encoder->encoder.encode(all, z);
  });
}

fllm_status fllm_encoder_encode_texts(const fllm_encoder* encoder, const char* const* texts, const size_t* bytes,
                                      size_t items, float* z, fllm_error* error) {
  return guarded(error, [&] {
    require(encoder != nullptr && z != nullptr, "encoder or z is NULL",
            "an open encoder and an array for the item vectors");
    encoder->encoder.encode(tokenize(*encoder->encoder.tokenizer(), texts, bytes, items), z);
  });
}

#include "encoder/encoder.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <vector>

#include "machine/thread_count.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kBatch = 32;

void check_lengths(std::span<const TokenIds> items, std::size_t max_length) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].empty() || items[i].size() > max_length) {
      throw Error(Status::usage,
                  sentence("item " + std::to_string(i) + " has " + std::to_string(items[i].size()) + " tokens",
                           "1 to " + std::to_string(max_length)));
    }
  }
}

void check_finite(std::span<const float> vector, std::size_t item) {
  if (std::all_of(vector.begin(), vector.end(), [](float number) { return std::isfinite(number); })) return;
  throw Error(Status::bundle, sentence("the encoder's vector of item " + std::to_string(item) + " is not finite",
                                       "finite values", "Build the bundle again from weights that are finite"));
}

// The encoder as CPUs run it, if the bundle has one of its own for them; GPUs run the one in float32.
std::string model_of(const std::string& bundle, bool cuda) {
  const std::string for_cpus = bundle + "/encoder/cpu.onnx";
  return !cuda && std::filesystem::is_regular_file(for_cpus) ? for_cpus : bundle + "/encoder/model.onnx";
}

}  // namespace

Encoder::Encoder(const std::string& bundle, const OnnxPlace& place, const std::string& onnxruntime)
    : threads_(thread_count(place.threads)),
      tokenizer_(std::make_shared<const TextTokenizer>(bundle)),
      runtime_(onnxruntime),
      session_(runtime_, model_of(bundle, place.cuda), {threads_, place.cuda, place.gpu}) {}

void Encoder::encode(std::span<const TokenIds> items, float* z) const {
  check_lengths(items, tokenizer_->prompt().max_length());
  std::vector<std::size_t> by_length(items.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](std::size_t a, std::size_t b) { return items[a].size() < items[b].size(); });
  std::vector<float> vectors;
  for (std::size_t start = 0; start < by_length.size(); start += kBatch) {
    const std::span chosen(by_length.data() + start, std::min(kBatch, by_length.size() - start));
    std::vector<const TokenIds*> rows;
    for (const std::size_t item : chosen) rows.push_back(&items[item]);
    vectors.resize(rows.size() * dim());
    session_.run(tokenizer_->prompt().batch(rows), dim(), vectors.data());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      check_finite({vectors.data() + i * dim(), dim()}, chosen[i]);
      std::copy_n(vectors.data() + i * dim(), dim(), z + chosen[i] * dim());
    }
  }
}

}  // namespace fllm

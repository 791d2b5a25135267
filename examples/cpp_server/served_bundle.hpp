// An opened bundle: the encoder and the table that belong together, and answers from them.
#pragma once

#include <fllm/encoder.h>

#include <fllm/fllm.hpp>
#include <memory>
#include <string>

#include "answer_text.hpp"
#include "metrics.hpp"
#include "request.hpp"

namespace server {

// Immutable, safe to use from many threads at once.
class ServedBundle {
 public:
  // Throws fllm::Error: the bundle cannot be opened, or its parts do not fit together.
  explicit ServedBundle(const Options& options);

  // The answer as JSON, in the form of fllm_export's TopK.to_dict(). Throws fllm::Error.
  std::string answer(const Request& request, Metrics& metrics) const;

  // Asks once for each kind of item, so that the first request finds everything in memory.
  void warm_up() const;

  const fllm_table_info& facts() const { return facts_; }

 private:
  struct ReleaseEncoder {
    void operator()(fllm_encoder* encoder) const { fllm_encoder_release(encoder); }
  };

  // Token ids as the encoder takes them: [items, stride].
  struct Tokens {
    std::size_t stride = 0;
    std::vector<std::int64_t> ids;
    std::vector<std::size_t> lengths;
  };

  Tokens tokenize(const Texts& texts) const;
  Tokens laid_out(const TokenIds& items) const;
  std::vector<float> encode(const Tokens& tokens) const;
  std::vector<float> laid_out(const ItemVectors& items) const;
  std::vector<float> item_vectors(const Request& request, Metrics& metrics, Timings& timings_ms) const;

  std::unique_ptr<fllm_encoder, ReleaseEncoder> encoder_;
  fllm::Table table_;
  fllm_table_info facts_;
  std::size_t max_length_ = 0;
};

}  // namespace server

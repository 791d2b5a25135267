#include "served_bundle.hpp"

#include <algorithm>
#include <chrono>

namespace server {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point began) {
  return std::chrono::duration<double, std::milli>(Clock::now() - began).count();
}

fllm_encoder* open_encoder(const Options& options) {
  fllm_encoder_options wanted = FLLM_ENCODER_OPTIONS_INIT;
  wanted.threads = options.threads;
  wanted.onnxruntime = options.onnxruntime.empty() ? nullptr : options.onnxruntime.c_str();
  fllm_encoder* encoder = nullptr;
  fllm_error error;
  fllm::check(fllm_encoder_open(options.bundle.c_str(), &wanted, &encoder, &error), error);
  return encoder;
}

fllm::TableOptions table_options(const Options& options) {
  fllm::TableOptions wanted;
  wanted.threads = options.threads;
  return wanted;
}

float coverage_of(const fllm::Answer& answer, std::size_t item) {
  return static_cast<float>(static_cast<double>(answer.rows_scored[item]) / static_cast<double>(answer.rows));
}

}  // namespace

ServedBundle::ServedBundle(const Options& options)
    : encoder_(open_encoder(options)),
      table_(options.bundle + "/users", table_options(options)),
      facts_(table_.describe()) {
  fllm_encoder_info info = FLLM_ENCODER_INFO_INIT;
  fllm_error error;
  fllm::check(fllm_encoder_describe(encoder_.get(), &info, &error), error);
  max_length_ = info.max_length;
  if (info.dim != facts_.dim) {
    throw fllm::Error(FLLM_BUNDLE, options.bundle + "/users holds rows of dimension " + std::to_string(facts_.dim) +
                                       "; expected " + std::to_string(info.dim) + ", as the manifest says.");
  }
}

ServedBundle::Tokens ServedBundle::tokenize(const Texts& texts) const {
  Tokens tokens{max_length_, std::vector<std::int64_t>(texts.size() * max_length_),
                std::vector<std::size_t>(texts.size())};
  std::vector<const char*> pointers;
  std::vector<std::size_t> bytes;
  for (const std::string& text : texts) {
    pointers.push_back(text.data());
    bytes.push_back(text.size());
  }
  fllm_error error;
  fllm::check(fllm_tokenizer_encode(fllm_encoder_tokenizer(encoder_.get()), pointers.data(), bytes.data(), texts.size(),
                                    tokens.stride, tokens.ids.data(), tokens.lengths.data(), &error),
              error);
  return tokens;
}

ServedBundle::Tokens ServedBundle::laid_out(const TokenIds& items) const {
  Tokens tokens;
  for (const auto& item : items) {
    if (item.empty() || item.size() > max_length_) {
      throw fllm::Error(FLLM_USAGE, "an item of token_ids has " + std::to_string(item.size()) +
                                        " tokens; expected 1 to " + std::to_string(max_length_) + ".");
    }
    tokens.stride = std::max(tokens.stride, item.size());
    tokens.lengths.push_back(item.size());
  }
  tokens.ids.resize(items.size() * tokens.stride);
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::copy(items[i].begin(), items[i].end(), tokens.ids.begin() + static_cast<std::ptrdiff_t>(i * tokens.stride));
  }
  return tokens;
}

std::vector<float> ServedBundle::encode(const Tokens& tokens) const {
  std::vector<float> z(tokens.lengths.size() * facts_.dim);
  fllm_error error;
  fllm::check(fllm_encoder_encode(encoder_.get(), tokens.ids.data(), tokens.lengths.data(), tokens.lengths.size(),
                                  tokens.stride, z.data(), &error),
              error);
  return z;
}

std::vector<float> ServedBundle::laid_out(const ItemVectors& items) const {
  std::vector<float> z;
  for (const auto& item : items) {
    if (item.size() != facts_.dim) {
      throw fllm::Error(FLLM_USAGE, "an item vector has " + std::to_string(item.size()) + " values; expected " +
                                        std::to_string(facts_.dim) + ".");
    }
    z.insert(z.end(), item.begin(), item.end());
  }
  return z;
}

std::vector<float> ServedBundle::item_vectors(const Request& request, Metrics& metrics, Timings& timings_ms) const {
  if (const auto* vectors = std::get_if<ItemVectors>(&request.items)) return laid_out(*vectors);
  Clock::time_point began = Clock::now();
  Tokens tokens;
  if (const auto* texts = std::get_if<Texts>(&request.items)) {
    tokens = tokenize(*texts);
    timings_ms.emplace_back("tokenise", milliseconds_since(began));
    metrics.count_time(Stage::tokenise, timings_ms.back().second);
    began = Clock::now();
  } else {
    tokens = laid_out(std::get<TokenIds>(request.items));
  }
  std::vector<float> z = encode(tokens);
  timings_ms.emplace_back("encode", milliseconds_since(began));
  metrics.count_time(Stage::encode, timings_ms.back().second);
  return z;
}

std::string ServedBundle::answer(const Request& request, Metrics& metrics) const {
  const Clock::time_point began = Clock::now();
  // The library would say so too, but only after the encoder's work.
  if (request.k < 1 || request.k > facts_.rows) {
    throw fllm::Error(FLLM_USAGE, "k is " + std::to_string(request.k) + "; expected an integer from 1 to " +
                                      std::to_string(facts_.rows) + ", the users of this table.");
  }
  Timings timings_ms;
  const std::vector<float> z = item_vectors(request, metrics, timings_ms);
  fllm::SearchOptions options;
  options.k = request.k;
  options.mode = request.mode;
  options.seeds = request.seeds;
  options.exact = request.exact;
  options.log_probs = request.log_probs;
  std::optional<fllm::Filter> filter;
  if (request.listed) {
    filter.emplace(table_.filter(*request.listed, request.deny ? FLLM_DENY : FLLM_ALLOW));
    options.filter = &*filter;
  }
  options.refine = request.refine;
  if (request.budget_ms) {
    // What tokenising and encoding leave of the budget is the scan's, which always scores some rows.
    constexpr double kLeastMs = 1e-6;
    options.budget =
        std::chrono::duration<double, std::milli>(std::max(kLeastMs, *request.budget_ms - milliseconds_since(began)));
  }
  const Clock::time_point scanning = Clock::now();
  const fllm::Answer found = table_.search(z, request.size(), options);
  timings_ms.emplace_back("scan", milliseconds_since(scanning));
  metrics.count_time(Stage::scan, timings_ms.back().second);
  timings_ms.emplace_back("merge", 0.0);  // part of the scan
  for (std::size_t item = 0; item < found.items; ++item) {
    metrics.count_item(coverage_of(found, item), found.complete[item] != 0);
  }
  std::string text = answer_text(found, request.exact, timings_ms);
  metrics.count_time(Stage::total, milliseconds_since(began));
  return text;
}

void ServedBundle::warm_up() const {
  Metrics unseen;
  Request request;
  request.k = 1;
  request.seeds = {0};
  request.items = Texts{"warm-up"};
  answer(request, unseen);
}

}  // namespace server

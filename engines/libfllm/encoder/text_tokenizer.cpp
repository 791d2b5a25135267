#include "encoder/text_tokenizer.hpp"

#include "status.hpp"

namespace fllm {

namespace {

constexpr std::int64_t kFormatVersion = 1;
constexpr std::int64_t kDimMax = 1 << 20;

JsonObject load_manifest(const std::string& bundle) {
  const JsonObject manifest = JsonObject::load(bundle + "/manifest.json");
  const std::int64_t version = manifest.integer("format_version");
  if (version < 1 || version > kFormatVersion) {
    throw Error(Status::bundle, sentence(manifest.name() + " has format version " + std::to_string(version),
                                         "at most " + std::to_string(kFormatVersion), "Upgrade libfllm"));
  }
  if (manifest.has("reader_features") && !manifest.array("reader_features").empty()) {
    manifest.unsupported("reader_features", "none that this libfllm does not know");
  }
  return manifest;
}

}  // namespace

TextTokenizer::TextTokenizer(const std::string& bundle) : TextTokenizer(bundle, load_manifest(bundle)) {}

TextTokenizer::TextTokenizer(const std::string& bundle, const JsonObject& manifest)
    : prompt_(manifest), dim_(0), tokenizer_(bundle + "/tokenizer.json") {
  const std::int64_t dim = manifest.integer("dim");
  if (dim < 1 || dim > kDimMax) manifest.unsupported("dim", "1 to " + std::to_string(kDimMax));
  dim_ = static_cast<std::size_t>(dim);
}

}  // namespace fllm

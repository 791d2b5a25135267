#include "changes/snapshot.hpp"

#include <filesystem>
#include <stdexcept>

#include "fllm/json.hpp"
#include "format/json_text.hpp"
#include "machine/file.hpp"
#include "status.hpp"

namespace fllm::changes {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::size_t kFileBytesMax = std::size_t{64} << 20;
constexpr std::int64_t kGenerationMax = std::int64_t{1} << 53;  // every reader of JSON holds it exactly
constexpr const char *kBundleTable = "users", *kManifest = "manifest.json",
                     *kTransform = "calibration/transform.safetensors";
constexpr const char* kInPython = "Make this change with `fllm-export users`";

[[noreturn]] void refuse(const std::string& found, const std::string& expected, const std::string& fix) {
  throw Error(Status::usage, sentence(found, expected, fix));
}

std::string read_text(const std::string& path) { return File(path, "a user table").text(kFileBytesMax); }

json read_json(const std::string& path) {
  try {
    return parse_json(read_text(path));
  } catch (const std::invalid_argument& error) {
    throw Error(Status::bundle, sentence(path + " is not JSON (" + error.what() + ")", "a JSON object"));
  }
}

json read_document(const std::string& text, const std::string& path) {
  Layout::parse(text, path);  // refuses what no reader takes
  return parse_json(text);
}

// A writer must not touch what says that it needs to know more.
void require_no_features(const json& document, const std::string& path) {
  if (!document.contains("writer_features")) return;
  const json& needed = document["writer_features"];
  if (needed.is_array() && needed.empty()) return;
  refuse(path + " needs the writer features " + shown(needed), "none, as this libfllm knows none", "Upgrade libfllm");
}

// What the manifest of a bundle, whose table this may be, says of its rows.
void require_bundle(const Snapshot& now, bool rows) {
  const fs::path directory = fs::absolute(now.directory).lexically_normal();
  const fs::path table = directory.has_filename() ? directory : directory.parent_path();
  const std::string path = (table.parent_path() / kManifest).string();
  std::error_code code;
  if (table.filename() != kBundleTable || !fs::is_regular_file(path, code)) return;
  const json manifest = read_json(path);
  if (!manifest.is_object()) throw Error(Status::bundle, sentence(path + " is not a JSON object", "a manifest"));
  require_no_features(manifest, path);
  const json wanted = manifest.value("table", json()), found = now.document.value("identity", json());
  if (!wanted.is_null() && wanted != found) {
    throw Error(Status::bundle,
                sentence(now.directory + " holds the table " + shown(found),
                         shown(wanted) + ", which " + path + " names", "Copy the bundle again, or build it again"));
  }
  const auto files = manifest.find("files");
  if (rows && files != manifest.end() && files->contains(kTransform)) {
    refuse(now.directory + " belongs to a bundle that transforms rows (" + kTransform + ")",
           "a table whose rows are stored as they are given", kInPython);
  }
}

}  // namespace

Snapshot::Snapshot(const std::string& given)
    : directory(given),
      path((fs::path(given) / Layout::kFileName).string()),
      text(read_text(path)),
      document(read_document(text, path)),
      table(given) {
  if (table.layout().recovered || table.layout().generation != document["generation"].get<std::int64_t>()) {
    refuse(directory + " was replaced while it was being changed", "a table that this writer alone changes",
           "Repeat the change");
  }
}

void Snapshot::require_changeable(bool rows) const {
  require_no_features(document, path);
  if (document.contains("histories") && !document["histories"].empty()) {
    refuse(directory + " keeps the items that its users were learned from (`histories`)",
           "a table without them: libfllm does not change them", kInPython);
  }
  if (rows && table.layout().refinement) {
    refuse(directory + " has refinement rows", "a table without them: libfllm does not make them", kInPython);
  }
  if (table.layout().generation >= kGenerationMax) {
    refuse("generation is " + std::to_string(table.layout().generation), "less than " + std::to_string(kGenerationMax),
           "Write the table again");
  }
  require_bundle(*this, rows);
}

std::string Snapshot::text_now() const { return read_text(path); }

}  // namespace fllm::changes

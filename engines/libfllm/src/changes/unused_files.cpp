#include "changes/unused_files.hpp"

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>
#include <vector>

namespace fllm::changes {

namespace {

using nlohmann::json;
using Names = std::set<std::string>;

constexpr std::string_view kEnd = ".safetensors";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hexadecimal(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }

// Takes a beginning off a text, where it has that one.
bool take(std::string_view& text, std::string_view beginning) {
  if (!text.starts_with(beginning)) return false;
  text.remove_prefix(beginning.size());
  return true;
}

// Takes all leading characters of a kind off a text, and returns how many there were.
std::size_t take_all(std::string_view& text, bool (*is_one)(char)) {
  const auto other = std::find_if_not(text.begin(), text.end(), is_one);
  const auto count = static_cast<std::size_t>(other - text.begin());
  text.remove_prefix(count);
  return count;
}

// Whether a file is one of rows, refinement rows, tombstones or histories (fllm_export.table.file_names.OWN_FILE).
bool is_own(std::string_view name) {
  if (!name.ends_with(kEnd)) return false;
  name.remove_suffix(kEnd.size());
  const bool refined = take(name, "refine-");
  const std::size_t digits = take_all(name, is_digit);
  if (name.empty()) return digits == 5;
  if (refined || digits < 8 || !take(name, "-") || take_all(name, is_hexadecimal) == 0 || !take(name, "-"))
    return false;
  if (name == "tombstones" || name == "histories") return true;
  take(name, "refine-");
  return take_all(name, is_digit) >= 3 && name.empty();
}

// Whether a file was on its way to such a name, or to that of a layout.
bool is_left_over(std::string_view name) {
  if (name.starts_with(".table.json.") || name.starts_with(".table.previous.json.")) return true;
  const std::size_t end = name.find(std::string(kEnd) + ".");
  return name.starts_with(".") && end != std::string_view::npos && is_own(name.substr(1, end - 1 + kEnd.size()));
}

void collect(const json& entries, Names& names) {
  for (const json& entry : entries) names.insert(entry.value("name", ""));
}

void collect_all(const json& document, Names& names) {
  for (const char* member : {"shards", "histories"}) {
    if (document.contains(member)) collect(document[member], names);
  }
  if (document.contains("refinement")) collect(document["refinement"]["shards"], names);
  if (document.contains("tombstones")) names.insert(document["tombstones"].value("name", ""));
}

}  // namespace

void remove_unused(const std::string& directory, const json& now, const json& before, Disk& disk) {
  Names used;
  collect_all(now, used);
  collect_all(before, used);
  std::vector<std::string> unused;
  std::error_code code;
  for (std::filesystem::directory_iterator file(directory, code), end; !code && file != end; file.increment(code)) {
    const std::string name = file->path().filename().string();
    const bool listed = used.contains(name);
    if ((!listed && is_own(name)) || is_left_over(name)) {
      unused.push_back(file->path().string());
    }
  }
  for (const std::string& path : unused) disk.remove(path);
}

}  // namespace fllm::changes

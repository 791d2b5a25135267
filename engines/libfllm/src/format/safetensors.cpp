#include "format/safetensors.hpp"

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "fllm/json.hpp"
#include "format/json_text.hpp"
#include "status.hpp"

namespace fllm {

namespace {

using nlohmann::json;

constexpr std::uint64_t kHeaderBytesMax = std::uint64_t{1} << 20;
constexpr std::uint64_t kWholeNumberEnd = std::uint64_t{1} << 48;
constexpr std::string_view kPadding = "padding.";

struct Span {
  std::uint64_t begin, end;
  const std::string* name;
};

[[noreturn]] void refuse(const std::string& found, const std::string& expected = "", const std::string& fix = "") {
  throw Error(Status::bundle, sentence(found, expected, fix));
}

std::size_t item_bytes(const std::string& dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "F8_E4M3") return 1;
  return dtype == "I64" ? 8 : 0;
}

std::uint64_t header_bytes(const std::uint8_t* data, std::size_t size, const std::string& path) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(size, 8); ++i) length |= std::uint64_t{data[i]} << (8 * i);
  if (size < 8 || length > size - 8) {
    refuse(path + " has " + std::to_string(size) + " bytes and its header claims " + std::to_string(length),
           "a complete file", "Copy the file again: it was cut short");
  }
  if (length > kHeaderBytesMax) {
    refuse(path + ": the header has " + std::to_string(length) + " bytes",
           "at most " + std::to_string(kHeaderBytesMax));
  }
  return length;
}

json read_header(const std::uint8_t* text, std::uint64_t length, const std::string& path) {
  json header;
  try {
    header = parse_json({reinterpret_cast<const char*>(text), static_cast<std::size_t>(length)});
  } catch (const std::invalid_argument& error) {
    refuse(path + ": the header is not JSON (" + error.what() + ")", "a safetensors file");
  }
  if (!header.is_object()) refuse(path + ": the header is a " + type_name(header), "a JSON object");
  if ((8 + length) % kPageBytes != 0) {
    refuse(path + ": the data starts at byte " + std::to_string(8 + length),
           "a multiple of " + std::to_string(kPageBytes));
  }
  return header;
}

bool whole(const json& value) {
  // A number is held as unsigned only when it has no sign; "-0" is the one other that is at least 0.
  if (!value.is_number_integer()) return false;
  return value.is_number_unsigned() ? value.get<std::uint64_t>() < kWholeNumberEnd : value.get<std::int64_t>() == 0;
}

// What is missing in a tensor's entry, or an empty text.
std::string fault(const json& entry) {
  if (!entry.is_object()) return std::string("a ") + type_name(entry);
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) return std::string("no `") + key + "`";
  }
  const json& dtype = entry["dtype"];
  if (!dtype.is_string() || item_bytes(dtype.get<std::string>()) == 0) return "dtype " + shown(dtype);
  if (!entry["shape"].is_array()) return "shape " + shown(entry["shape"]);
  const json& offsets = entry["data_offsets"];
  return offsets.is_array() && offsets.size() == 2 ? "" : "data_offsets " + shown(offsets);
}

// Bytes of all items; false when no 64-bit number holds them.
bool product(const std::vector<std::uint64_t>& shape, std::uint64_t item, std::uint64_t& bytes) {
  bytes = item;
  if (std::find(shape.begin(), shape.end(), 0u) != shape.end()) bytes = 0;
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return false;
  }
  return true;
}

Span check_entry(const std::string& path, const std::string& name, const json& entry, Tensor& tensor) {
  const std::string problem = fault(entry);
  if (!problem.empty()) refuse(path + ": the header's entry of `" + name + "` is unreadable (" + problem + ")");
  const json &shape = entry["shape"], &first = entry["data_offsets"][0], &last = entry["data_offsets"][1];
  const std::string where = path + ": tensor `" + name + "` ";
  if (!whole(first) || !whole(last) || !std::all_of(shape.begin(), shape.end(), whole)) {
    refuse(where + "is " + shown(shape) + " at " + shown(first) + ".." + shown(last), "integers from 0 to 2^48 - 1");
  }
  tensor.dtype = entry["dtype"].get<std::string>();
  tensor.shape = shape.get<std::vector<std::uint64_t>>();
  const std::uint64_t begin = first.get<std::uint64_t>(), end = last.get<std::uint64_t>();
  const bool countable = product(tensor.shape, item_bytes(tensor.dtype), tensor.bytes);
  if (!countable || begin > end || end - begin != tensor.bytes) {
    const std::int64_t spanned = static_cast<std::int64_t>(end) - static_cast<std::int64_t>(begin);
    const std::string wanted = countable ? std::to_string(tensor.bytes) : "more than any file holds";
    refuse(where + "spans " + std::to_string(spanned) + " bytes", wanted + " for " + tensor.dtype + " " + shown(shape));
  }
  if (begin % kPageBytes != 0 && !name.starts_with(kPadding)) {
    refuse(where + "starts at byte " + std::to_string(begin), "a multiple of " + std::to_string(kPageBytes));
  }
  return {begin, end, &name};
}

// The tensors must cover the data without holes or overlaps, and the file must end where they do.
void check_spans(const std::string& path, std::vector<Span> spans, std::uint64_t data_bytes) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    if (a.begin != b.begin) return a.begin < b.begin;
    return a.end != b.end ? a.end < b.end : *a.name < *b.name;
  });
  std::uint64_t position = 0;
  for (const Span& span : spans) {
    if (span.begin != position) {
      refuse(path + ": tensor `" + *span.name + "` starts at data byte " + std::to_string(span.begin),
             "byte " + std::to_string(position));
    }
    position = span.end;
  }
  if (position != data_bytes) {
    refuse(path + " holds " + std::to_string(data_bytes) + " bytes of data",
           std::to_string(position) + ", as the header says",
           "Copy the file again: it was cut short or something was added to it");
  }
}

}  // namespace

Tensors read_tensors(const std::uint8_t* data, std::size_t size, const std::string& path) {
  const std::uint64_t length = header_bytes(data, size, path);
  const json header = read_header(data + 8, length, path);
  const std::uint64_t start = 8 + length;
  Tensors tensors;
  std::vector<Span> spans;
  for (const auto& [name, entry] : header.get_ref<const json::object_t&>()) {
    if (name == "__metadata__") continue;
    spans.push_back(check_entry(path, name, entry, tensors[name]));
  }
  check_spans(path, spans, size - start);
  for (const Span& span : spans) tensors[*span.name].data = data + start + span.begin;
  return tensors;
}

std::string described(const std::string& dtype, const std::vector<std::uint64_t>& shape) {
  return dtype + " " + shown(json(shape));
}

}  // namespace fllm

// What a plan of the emulation holds: TensorRT-RTX's header, and what the head's graph would say. Tests write them.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace fllm::tensorrt::emulation {

struct ProfileRange {
  std::int64_t least_batch, most_batch, least_rows, most_rows;
};

// The head of a table's tiles.
struct HeadPlan {
  bool fp8 = false, bias = false;
  bool valid_rows_on_host = false;
  std::int64_t dim = 0, k = 0;
  std::vector<ProfileRange> profiles;

  std::int64_t limbs() const { return fp8 ? 3 : 2; }
};

struct Header {
  char magic[4] = {'v', 't', 'r', 't'};
  char unknown[12] = {};
  std::uint64_t bytes = 0;
  std::uint8_t version[4] = {1, 7, 1, 116};
  char second_magic[4] = {'v', 't', 'r', 't'};
  std::uint32_t architectures = 2;  // sm80, as the emulated GPU
  std::uint32_t body = kBody;

  static constexpr std::uint32_t kBody = 0x64616568;
};
static_assert(sizeof(Header) == 40);

namespace detail {

template <typename T>
void put(std::string& bytes, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
bool take(const char*& from, const char* end, T& value) {
  if (static_cast<std::size_t>(end - from) < sizeof value) return false;
  std::memcpy(&value, from, sizeof value);
  from += sizeof value;
  return true;
}

}  // namespace detail

inline std::string written(const HeadPlan& plan, Header header = {}) {
  std::string body;
  for (const bool flag : {plan.fp8, plan.bias, plan.valid_rows_on_host}) detail::put(body, flag);
  for (const std::int64_t size : {plan.dim, plan.k}) detail::put(body, size);
  for (const ProfileRange& profile : plan.profiles) detail::put(body, profile);
  if (header.bytes == 0) header.bytes = sizeof header + body.size();
  std::string bytes;
  detail::put(bytes, header);
  return bytes + body;
}

// Whether these are a plan's bytes.
inline bool read(const void* bytes, std::size_t size, HeadPlan& plan) {
  const char* from = static_cast<const char*>(bytes);
  const char* const end = from + size;
  Header header;
  if (!detail::take(from, end, header) || header.body != Header::kBody) return false;
  for (bool* flag : {&plan.fp8, &plan.bias, &plan.valid_rows_on_host}) {
    if (!detail::take(from, end, *flag)) return false;
  }
  for (std::int64_t* number : {&plan.dim, &plan.k}) {
    if (!detail::take(from, end, *number)) return false;
  }
  for (ProfileRange profile{}; detail::take(from, end, profile);) plan.profiles.push_back(profile);
  return from == end && plan.dim > 0 && plan.k > 0;
}

}  // namespace fllm::tensorrt::emulation

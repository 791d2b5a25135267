#include "plan_header.hpp"

#include <cstring>
#include <iterator>

#include "status.hpp"

namespace fllm::tensorrt {

namespace {

constexpr char kMagic[] = {'v', 't', 'r', 't'};
constexpr std::size_t kSize = 16, kVersion = 24, kSecondMagic = 28, kArchitectures = 32, kHeader = 36;
constexpr const char* kNames[] = {"sm75", "sm80", "sm86", "sm89", "sm120", "sm121"};  // by bit

template <typename T>
T number_at(const std::string& plan, std::size_t offset) {
  T number;
  std::memcpy(&number, plan.data() + offset, sizeof number);  // little endian, as all machines with such GPUs
  return number;
}

bool has_magic(const std::string& plan, std::size_t offset) {
  return plan.size() >= offset + sizeof kMagic && std::memcmp(plan.data() + offset, kMagic, sizeof kMagic) == 0;
}

[[noreturn]] void damaged(const std::string& found, const std::string& expected) {
  throw Error(Status::bundle, sentence(found, expected, kRebuild));
}

[[noreturn]] void foreign(const std::string& found, const std::string& expected) {
  throw Error(Status::hardware, sentence(found, expected, kRebuild));
}

std::string dotted(const std::int32_t (&version)[4]) {
  std::string text;
  for (const std::int32_t part : version) text.append(text.empty() ? "" : ".").append(std::to_string(part));
  return text;
}

std::string version_of(const std::string& plan) {
  std::int32_t version[4];
  for (std::size_t i = 0; i < 4; ++i) version[i] = static_cast<std::uint8_t>(plan[kVersion + i]);
  return dotted(version);
}

std::string architectures_of(const std::string& plan, const std::string& wanted, bool& has_wanted) {
  const auto bits = number_at<std::uint32_t>(plan, kArchitectures);
  std::string names;
  for (std::size_t bit = 0; bit < std::size(kNames); ++bit) {
    if ((bits >> bit & 1u) == 0) continue;
    names.append(names.empty() ? "" : ", ").append(kNames[bit]);
    has_wanted = has_wanted || wanted == kNames[bit];
  }
  return names.empty() ? "no known GPU" : names;
}

}  // namespace

std::string library_name(const LibraryFacts& library) {
  return std::string(library.name) + " " + dotted(library.version);
}

void check_header(const std::string& path, const std::string& plan, const LibraryFacts& library,
                  const std::string& architecture) {
  const bool rtx = std::strcmp(library.name, "tensorrt_rtx") == 0;
  const std::string here = library_name(library) + ", which libfllm_tensorrt was built with";
  if (!has_magic(plan, 0)) {
    if (rtx) foreign(path + " is not a plan of tensorrt_rtx", "a plan of " + here);
    return;
  }
  const std::string bytes = std::to_string(plan.size()) + " bytes";
  if (plan.size() < kHeader) damaged(path + " has " + bytes, "at least a header");
  if (!has_magic(plan, kSecondMagic)) damaged(path + " has a damaged header", "'vtrt' twice");
  const auto declared = number_at<std::uint64_t>(plan, kSize);
  if (declared != plan.size()) damaged(path + " has " + bytes, std::to_string(declared) + ", as its header says");
  if (!rtx || version_of(plan) != dotted(library.version)) {
    foreign(path + " was built by tensorrt_rtx " + version_of(plan), here);
  }
  bool fits = false;
  const std::string built_for = architectures_of(plan, architecture, fits);
  if (!fits) foreign(path + " was built for " + built_for, architecture + ", the GPU here");
}

}  // namespace fllm::tensorrt

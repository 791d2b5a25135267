#include "plan.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "plan_header.hpp"
#include "status.hpp"

namespace fllm::tensorrt {

namespace {

constexpr const char* kNames[kTensors] = {"codes",       "scales", "bias", "valid_rows", "limbs",
                                          "query_scale", "scores", "rows", "m",          "l"};

std::string contents_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.empty()) throw Error(Status::bundle, sentence(path + " cannot be read, or is empty", "a plan", kRebuild));
  return bytes;
}

std::string architecture_of(const cuda::DeviceFacts& gpu) {
  return "sm" + std::to_string(gpu.major) + std::to_string(gpu.minor);
}

struct Kind {
  ElementType type;
  std::int32_t rank;
  bool is_input;
};

Kind kind_of(Tensor tensor, Codec codec) {
  switch (tensor) {
    case Tensor::codes: return {codec == Codec::fp8 ? ElementType::fp8 : ElementType::int8, 2, true};
    case Tensor::scales:
    case Tensor::bias:
    case Tensor::query_scale: return {ElementType::float32, 1, true};
    case Tensor::valid_rows: return {ElementType::int64, 0, true};
    case Tensor::limbs: return {ElementType::float32, 3, true};
    case Tensor::scores: return {ElementType::float32, 2, false};
    case Tensor::rows: return {ElementType::int64, 2, false};
    case Tensor::m:
    case Tensor::l: return {ElementType::float32, 1, false};
  }
  return {};
}

std::size_t limbs_for(Codec codec) { return codec == Codec::fp8 ? 3 : 2; }

}  // namespace

const char* tensor_name(Tensor tensor) { return kNames[static_cast<std::size_t>(tensor)]; }

Plan::Plan(const PlanDriver& driver, const cuda::Device& device, const std::string& path, const Layout& table)
    : driver_(driver), device_(device), path_(path), dim_(table.dim) {
  const std::string bytes = contents_of(path);
  LibraryFacts library{};
  driver.describe_library(&library);
  check_header(path, bytes, library, architecture_of(device.facts()));
  void* plan = nullptr;
  check(driver.load(bytes.data(), bytes.size(), &plan), "loading it");
  plan_ = cuda::Owned(plan, driver.unload);
  describe(table);
  read_profiles();
}

void Plan::check(int status, const char* doing) const {
  if (status == 0) return;
  const std::string found = "TensorRT failed with " + path_ + " while " + doing + ": " + driver_.text();
  const auto cause = static_cast<Status>(status);
  if (cause == Status::memory) {
    throw Error(cause, sentence(found, "", "Free GPU memory, or lower gpu_bytes"));
  }
  if (cause == Status::bundle) throw Error(cause, sentence(found, "a head plan", kRebuild));
  throw Error(cause, sentence(found, "", "Open the table again; the engines 'cuda' and 'native' need no plan"));
}

void Plan::describe(const Layout& table) {
  for (std::int32_t number = 0; number < driver_.tensors(get()); ++number) {
    TensorFacts facts{};
    check(driver_.describe_tensor(get(), number, &facts), "asking for its tensors");
    check_tensor(facts, table);
  }
  for (std::size_t tensor = 0; tensor < kTensors; ++tensor) {
    if (has_[tensor] || tensor == static_cast<std::size_t>(Tensor::bias)) continue;
    throw Error(Status::bundle, sentence(path_ + " has no tensor '" + kNames[tensor] + "'", "a head plan", kRebuild));
  }
  if (has_bias() != table.bias) {
    throw Error(Status::usage,
                sentence(path_ + " is for tables with" + (table.bias ? "out" : "") + " a bias",
                         std::string("one for a table with") + (table.bias ? "" : "out") + " a bias", kRebuild));
  }
}

void Plan::check_tensor(const TensorFacts& facts, const Layout& table) {
  const auto name = std::find(std::begin(kNames), std::end(kNames), std::string(facts.name));
  const auto number = static_cast<std::size_t>(name - std::begin(kNames));
  const auto tensor = static_cast<Tensor>(number);
  if (number == kTensors) {
    throw Error(Status::bundle,
                sentence(path_ + " has the unexpected tensor '" + facts.name + "'", "a head plan", kRebuild));
  }
  const Kind kind = kind_of(tensor, table.codec);
  const bool is_table = tensor == Tensor::codes || tensor == Tensor::scales || tensor == Tensor::bias;
  if (tensor == Tensor::codes && facts.type != kind.type) {
    throw Error(Status::usage, sentence(path_ + " is for tables of another codec",
                                        std::string("one for ") + codec_name(table.codec) + " rows", kRebuild));
  }
  if (facts.type != kind.type || facts.shape.rank != kind.rank || facts.is_input != kind.is_input ||
      (facts.on_host && is_table)) {
    throw Error(Status::bundle, sentence(path_ + " has a tensor '" + facts.name + "' of another type or shape",
                                         "a head plan of this version", kRebuild));
  }
  if (tensor == Tensor::codes && facts.shape.sizes[1] != static_cast<std::int64_t>(table.dim)) {
    throw Error(Status::usage, sentence(path_ + " is for rows of dimension " + std::to_string(facts.shape.sizes[1]),
                                        std::to_string(table.dim) + ", like the table", kRebuild));
  }
  if (tensor == Tensor::limbs) limbs_ = static_cast<std::size_t>(facts.shape.sizes[0]);
  if (tensor == Tensor::limbs && limbs_ != limbs_for(table.codec)) {
    throw Error(Status::bundle, sentence(path_ + " takes items of " + std::to_string(limbs_) + " limbs",
                                         std::to_string(limbs_for(table.codec)), kRebuild));
  }
  if (tensor == Tensor::scores) k_ = static_cast<std::size_t>(std::max<std::int64_t>(0, facts.shape.sizes[1]));
  if (tensor == Tensor::scores && k_ == 0) {
    throw Error(Status::bundle, sentence(path_ + " does not fix K", "a fixed number of users per tile", kRebuild));
  }
  has_[number] = true;
  on_host_[number] = facts.on_host;
}

void Plan::read_profiles() {
  for (std::int32_t number = 0; number < driver_.profiles(get()); ++number) {
    Shape least_codes{}, most_codes{}, least_items{}, most_items{};
    check(driver_.describe_profile(get(), number, tensor_name(Tensor::codes), &least_codes, &most_codes),
          "reading its profiles");
    check(driver_.describe_profile(get(), number, tensor_name(Tensor::query_scale), &least_items, &most_items),
          "reading its profiles");
    profiles_.push_back({least_items.sizes[0], most_items.sizes[0], least_codes.sizes[0], most_codes.sizes[0]});
  }
  const std::uint64_t least = least_rows();
  if (profiles_.empty() || most_rows(1) == 0 || most_rows(most_batch()) == 0 || least < k_) {
    throw Error(Status::bundle, sentence(path_ + " allows no tile of " + std::to_string(least) + " rows",
                                         "profiles for one item and for several, of tiles of at least K rows in chunks "
                                         "of " +
                                             std::to_string(kChunkRows),
                                         kRebuild));
  }
}

std::size_t Plan::most_batch() const {
  std::int64_t most = 1;
  for (const Profile& profile : profiles_) most = std::max(most, profile.most_batch);
  return static_cast<std::size_t>(most);
}

std::uint64_t Plan::least_rows() const {
  std::uint64_t least = 1;
  for (const Profile& profile : profiles_) least = std::max(least, static_cast<std::uint64_t>(profile.least_rows));
  return (least + kChunkRows - 1) / kChunkRows * kChunkRows;
}

std::uint64_t Plan::most_rows(std::size_t batch) const {
  std::uint64_t most = 0;
  for (const Profile& profile : profiles_) {
    if (profile.allows(batch, least_rows())) most = std::max(most, static_cast<std::uint64_t>(profile.most_rows));
  }
  return most / least_rows() * least_rows();
}

std::int32_t Plan::profile(std::size_t batch, std::uint64_t rows) const {
  const auto found = std::find_if(profiles_.begin(), profiles_.end(),
                                  [&](const Profile& profile) { return profile.allows(batch, rows); });
  if (found == profiles_.end()) {
    throw Error(Status::internal, sentence("no profile of " + path_ + " allows " + std::to_string(batch) +
                                           " items and " + std::to_string(rows) + " rows"));
  }
  return static_cast<std::int32_t>(found - profiles_.begin());
}

}  // namespace fllm::tensorrt

#include "machine/memory.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "status.hpp"

namespace fllm {

namespace {

using Bytes = std::optional<std::uint64_t>;

// Where one version of control groups keeps what this file needs.
struct Group {
  std::string directory, limit, usage, cache_prefix;
};

Bytes smaller(Bytes a, Bytes b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

Bytes number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number;
  return file >> number ? Bytes(number) : std::nullopt;  // an absent limit is the word "max"
}

Bytes from_meminfo(const std::string& path) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    std::uint64_t kibibytes;
    if (word == "MemAvailable:" && file >> kibibytes) return kibibytes << 10;
  }
  return std::nullopt;
}

// The file cache counts as used, but gives way.
std::uint64_t cached(const Group& group) {
  std::ifstream file(group.directory + "/memory.stat");
  std::uint64_t total = 0, bytes;
  for (std::string name; file >> name >> bytes;) {
    if (name == group.cache_prefix + "active_file" || name == group.cache_prefix + "inactive_file") total += bytes;
  }
  return total;
}

Bytes left_in(const Group& group) {
  const Bytes limit = number_in(group.directory + "/" + group.limit);
  const Bytes usage = number_in(group.directory + "/" + group.usage);
  if (!limit || !usage) return std::nullopt;
  const std::uint64_t held = *usage - std::min(*usage, cached(group));
  return *limit - std::min(*limit, held);
}

// The tightest limit of a group and those that it is in.
Bytes left_in_all(Group group, const std::string& mount, std::string path) {
  Bytes left;
  while (true) {
    group.directory = mount + path;
    left = smaller(left, left_in(group));
    if (path.empty()) return left;
    path.erase(path.rfind('/'));
  }
}

Bytes from_groups(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  Bytes left;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string number, controllers, path;
    if (!std::getline(std::getline(std::getline(fields, number, ':'), controllers, ':'), path)) continue;
    if (path.empty() || path[0] != '/') continue;
    if (path == "/") path.clear();
    if (controllers.empty()) {
      left = smaller(left, left_in_all({"", "memory.max", "memory.current", ""}, root + "/sys/fs/cgroup", path));
    } else if (controllers == "memory") {
      const Group first_version{"", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"};
      left = smaller(left, left_in_all(first_version, root + "/sys/fs/cgroup/memory", path));
    }
  }
  return left;
}

}  // namespace

std::optional<std::uint64_t> available_memory(const std::string& root) {
  return smaller(from_meminfo(root + "/proc/meminfo"), from_groups(root));
}

void require_memory(std::uint64_t bytes, const std::string& what) {
  const Bytes available = available_memory();
  if (!available || bytes <= *available) return;
  throw Error(Status::memory,
              sentence(what + " needs " + std::to_string(bytes) + " bytes of memory and " + std::to_string(*available) +
                           " are available",
                       "enough memory for all of it", "Open it without `resident`, or use a machine with more memory"));
}

}  // namespace fllm

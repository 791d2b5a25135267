// How much memory is said to be available, by made-up systems.
#include "machine/memory.hpp"

#include <filesystem>

#include "refusal.hpp"
#include "shard_writer.hpp"

namespace {

constexpr const char* kMeminfo = "MemTotal:  2000 kB\nMemFree:   100 kB\nMemAvailable:   1000 kB\n";

class System {
 public:
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_.path(name)).parent_path());
    root_.write(name, text);
  }
  std::optional<std::uint64_t> available() const { return fllm::available_memory(root_.path()); }

 private:
  writer::Directory root_;
};

void without_groups() {
  const System system;
  CHECK(!system.available());
  system.write("proc/meminfo", kMeminfo);
  CHECK(system.available() == 1000u << 10);
}

void second_version() {
  const System system;
  system.write("proc/meminfo", kMeminfo);
  system.write("proc/self/cgroup", "0::/a/b\n");
  system.write("sys/fs/cgroup/a/b/memory.max", "max\n");
  system.write("sys/fs/cgroup/a/b/memory.current", "500\n");
  CHECK(system.available() == 1000u << 10);
  system.write("sys/fs/cgroup/a/memory.max", "9000\n");
  system.write("sys/fs/cgroup/a/memory.current", "5000\n");
  CHECK(system.available() == 4000);
  system.write("sys/fs/cgroup/a/memory.stat", "anon 3000\nfile 2000\ninactive_file 700\nactive_file 300\nslab 9\n");
  CHECK(system.available() == 5000);
  system.write("sys/fs/cgroup/a/b/memory.max", "100\n");
  CHECK(system.available() == 0);
}

void first_version() {
  const System system;
  system.write("proc/meminfo", kMeminfo);
  system.write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/c\n3:cpu:/c\n");
  system.write("sys/fs/cgroup/memory/c/memory.limit_in_bytes", "9223372036854771712\n");
  system.write("sys/fs/cgroup/memory/c/memory.usage_in_bytes", "5000\n");
  CHECK(system.available() == 1000u << 10);
  system.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9000\n");
  system.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  system.write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 70\ntotal_active_file 30\n");
  CHECK(system.available() == 4100);
}

void this_system() {
  fllm::require_memory(1, "a byte");
  if (!fllm::available_memory()) return;
  REFUSED(fllm::require_memory(std::uint64_t{1} << 60, "users"), fllm::Status::memory,
          "users needs 1152921504606846976 bytes of memory and ");
}

}  // namespace

int main() {
  without_groups();
  second_version();
  first_version();
  this_system();
  return check::result();
}

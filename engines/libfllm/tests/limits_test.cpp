// What the system refuses, of memory, threads and files, is an error of its own, and never called a damaged bundle.
#include <sys/resource.h>
#include <unistd.h>

#include <fllm/fllm.hpp>
#include <fstream>
#include <vector>

#include "check.hpp"
#include "child.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::uint64_t kDim = 16;

void limit(int resource, rlim_t most) {
  const rlimit wanted{most, most};
  CHECK(setrlimit(resource, &wanted) == 0);
}

fllm::Table open(const std::string& directory, unsigned threads = 1) {
  fllm::TableOptions options;
  options.threads = threads;
  return fllm::Table(directory, options);
}

bool answers(const fllm::Table& table) {
  return table.search(std::vector<float>(kDim, 1.0f), 1, {.k = 5}).complete[0] == 1;
}

void a_thousand_shards_need_few_descriptors() {
  const writer::Directory directory;
  writer::write_table(directory, std::vector<std::uint64_t>(1000, 20), kDim, 20);
  CHECK(child::holds([&] {
    limit(RLIMIT_NOFILE, 256);
    return answers(open(directory.path()));
  }));
}

// Sanitizers take more address space than any of these limits, and read /proc, for which they need a descriptor.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

void no_descriptor_left(const std::string& directory) {
  CHECK(child::holds([&] {
    limit(RLIMIT_NOFILE, 0);
    return child::refuses([&] { open(directory); }, FLLM_MEMORY, "table.json cannot be opened (Too many open files)");
  }));
}

// Bytes of it that are taken.
rlim_t address_space() {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
}

void no_address_space_left() {
  const writer::Directory directory;
  writer::write_table(directory, {1 << 20}, kDim, 1 << 16);
  CHECK(child::holds([&] {
    limit(RLIMIT_AS, address_space() + (rlim_t{8} << 20));
    return child::refuses([&] { open(directory.path()); }, FLLM_MEMORY, "cannot be mapped (Cannot allocate memory)");
  }));
}

// Root may start any number of threads; the address space for their stacks stands in for that limit.
void a_thread_cannot_start(const std::string& directory) {
  CHECK(child::holds([&] {
    limit(RLIMIT_AS, address_space() + (rlim_t{512} << 20));
    const auto many = [&] { open(directory, 500); };
    // Those that did start are gone again, and leave room.
    return child::refuses(many, FLLM_MEMORY, "of 500 cannot be started") && answers(open(directory, 20));
  }));
}

#endif

}  // namespace

int main() {
  const writer::Directory directory;
  writer::write_table(directory, {2000}, kDim, 512);
  a_thousand_shards_need_few_descriptors();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  no_descriptor_left(directory.path());
  no_address_space_left();
  a_thread_cannot_start(directory.path());
#endif
  return check::result();
}

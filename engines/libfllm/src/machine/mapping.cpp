#include "machine/mapping.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "machine/file.hpp"
#include "machine/memory.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

std::size_t round_up(std::size_t value, std::size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Why a mapping of a file could not be had.
[[noreturn]] void refuse(const std::string& path, int code) {
  const std::string found = path + " cannot be mapped" + system_says(code);
  if (code != ENOMEM) throw Error(Status::bundle, sentence(found, "a file on a file system that maps files"));
  throw Error(Status::memory,
              sentence(found, "address space for all shards",
                       "Raise the memory limit (ulimit -v) or the system's limit vm.max_map_count, or build the "
                       "table in larger shards"));
}

void advise_huge_pages([[maybe_unused]] std::uint8_t* begin, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(begin, bytes, MADV_HUGEPAGE);
#endif
}

}  // namespace

Mapping::Pages::~Pages() {
  if (begin != nullptr) munmap(begin, bytes);
}

Mapping::Mapping(const std::string& path, bool resident) : path_(path), resident_(resident) {
  const File file(path, "a shard of the table");
  size_ = file.bytes();
  if (size_ == 0) return;  // cannot be mapped; what it should have held is the caller's to say
  if (resident) {
    read(file);
  } else {
    map(file.descriptor());
  }
  data_ = pages_.begin;
}

void Mapping::map(int descriptor) {
  void* address = mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
  if (address == MAP_FAILED) refuse(path_, errno);
  pages_.begin = static_cast<std::uint8_t*>(address);
  pages_.bytes = size_;
  madvise(address, size_, MADV_RANDOM);
}

void Mapping::reserve() {
  // More than needed, so that a boundary of huge pages lies within; what is over on both sides is given back.
  const std::size_t wanted = round_up(size_, page_bytes());
  void* address = mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    throw Error(Status::memory, sentence("not enough memory for the " + std::to_string(size_) + " bytes of " + path_ +
                                             system_says(errno),
                                         "memory for the whole file", "Open the table without `resident`"));
  }
  const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(address);
  const std::size_t before = round_up(first, kHugePage) - first;
  pages_.begin = static_cast<std::uint8_t*>(address) + before;
  pages_.bytes = wanted;
  if (before != 0) munmap(address, before);
  if (before != kHugePage) munmap(pages_.begin + wanted, kHugePage - before);
  advise_huge_pages(pages_.begin, wanted);
}

void Mapping::read(const File& file) {
  require_memory(size_, path_);
  reserve();
  file.read(pages_.begin);
  mprotect(pages_.begin, pages_.bytes, PROT_READ);
  mlock(pages_.begin, pages_.bytes);  // as far as RLIMIT_MEMLOCK allows
}

void Mapping::expect_scan() const {
  if (resident_ || size_ == 0) return;
  madvise(pages_.begin, size_, MADV_NORMAL);
  advise_huge_pages(pages_.begin, size_);
}

bool Mapping::in_memory(std::size_t page) const {
  unsigned char state = 0;
  return mincore(pages_.begin + page, 1, &state) == 0 && (state & 1) != 0;
}

bool Mapping::prefetch(std::size_t offset, std::size_t bytes) const {
  if (resident_ || offset >= size_) return false;
  const std::size_t begin = offset / page_bytes() * page_bytes();
  const std::size_t end = offset + std::min(bytes, size_ - offset);
  // Asking for pages that are there costs as much as a tenth of scoring them; first and last tell for all.
  if (end <= begin || (in_memory(begin) && in_memory((end - 1) / page_bytes() * page_bytes()))) return false;
  madvise(pages_.begin + begin, end - begin, MADV_WILLNEED);
  return true;
}

}  // namespace fllm

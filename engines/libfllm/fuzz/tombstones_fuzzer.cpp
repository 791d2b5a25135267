// A tombstones file of any bytes is refused by an Error, or marks as many rows as its entry says and none beyond them.
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "format/safetensors.hpp"
#include "format/tombstones.hpp"
#include "status.hpp"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

// The bytes as a file in memory, which the reader opens by its path.
class File {
 public:
  File(const std::uint8_t* data, std::size_t size) : descriptor_(memfd_create("tombstones", 0)) {
    require(descriptor_ >= 0 && write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  ~File() { close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  std::string name() const { return std::to_string(descriptor_); }

 private:
  const int descriptor_;
};

// Rows of a table whose tombstones the tensor would be, and how many of the first of them it marks.
std::uint64_t marked(const fllm::Tensor& bits, std::uint64_t rows) {
  std::uint64_t found = 0;
  for (std::uint64_t row = 0; row < rows; ++row) found += bits.data[row / 8] >> (row % 8) & 1u;
  return found;
}

void read(const File& file, std::size_t size, std::uint64_t rows, std::uint64_t deleted) {
  try {
    const fllm::Tombstones found("/proc/self/fd", {file.name(), rows, deleted, size});
    require(found.count(0, rows) == deleted && found.count(rows, 1000) == 0 && !found.holds(rows));
    std::uint64_t held = 0;
    for (std::uint64_t row = 0; row < rows; ++row) {
      held += found.holds(row) ? 1 : 0;
      require((found.word(row) & 1u) == (found.holds(row) ? 1u : 0u));
    }
    require(held == deleted);
    const fllm::Tombstones part = found.slice(rows / 3, rows - rows / 3);
    require(part.count(0, rows) == found.count(rows / 3, rows));
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const fllm::Tensors tensors = fllm::read_tensors(data, size, "tombstones");
    const auto bits = tensors.find("deleted");
    const std::uint64_t most = bits == tensors.end() ? 8 : 8 * bits->second.bytes;
    const File file(data, size);
    for (const std::uint64_t rows : std::set<std::uint64_t>{1, most / 2, most - 1, most, most + 1}) {
      if (rows == 0 || rows > most + 1) continue;
      for (const std::uint64_t deleted : {std::uint64_t{1}, rows}) read(file, size, rows, deleted);
      if (bits != tensors.end() && rows <= most) read(file, size, rows, marked(bits->second, rows));
    }
  } catch (const fllm::Error& error) {
    require(error.status() == fllm::Status::bundle);
  }
  return 0;
}

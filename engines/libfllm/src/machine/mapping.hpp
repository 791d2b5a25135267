// A file mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fllm {

// Throws Error: Status::bundle when the file is missing or cannot be read, Status::memory when memory or the number of
// mappings does not suffice. The file's descriptor is closed once the constructor returns.
class Mapping {
 public:
  // Reads nothing, and until expect_scan() a page that is touched comes in alone. `resident`: the file is read into
  // memory of the process, in huge pages where there are some, and kept from being paged out as far as the process may;
  // what happens to the file afterwards cannot reach it.
  explicit Mapping(const std::string& path, bool resident = false);
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  // From now on all of the file will be read: lets the system read ahead and map huge pages.
  void expect_scan() const;

  // Asks the system to read [offset, offset + bytes) ahead; returns at once. False when it is in memory already.
  bool prefetch(std::size_t offset, std::size_t bytes) const;

 private:
  // Address space; given back at the end, also when a constructor throws.
  struct Pages {
    Pages() = default;
    ~Pages();
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    std::uint8_t* begin = nullptr;
    std::size_t bytes = 0;
  };

  bool in_memory(std::size_t page) const;  // `page`: offset of its first byte
  void map(int descriptor);
  void reserve();
  void read(const class File& file);

  std::string path_;
  bool resident_;
  Pages pages_;
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fllm

// What a change of a table asks of the system, one call each: tests put a disk in its place that records or fails.
#pragma once

#include <cstddef>
#include <string>

namespace fllm::changes {

// Each function but close() returns 0 or the errno of the call that the system refused.
class Disk {
 public:
  Disk() = default;
  virtual ~Disk() = default;
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // A new file for writing, which everybody may read; refused where the name is taken. `file` is its descriptor.
  virtual int create(const std::string& path, int& file);
  virtual int write(int file, const void* data, std::size_t bytes);
  virtual int sync(int file);
  virtual void close(int file);

  // A second name for a file.
  virtual int link(const std::string& path, const std::string& second);
  virtual int rename(const std::string& path, const std::string& next);
  virtual int remove(const std::string& path);  // 0 also where there is no such file
  virtual int sync_directory(const std::string& path);
};

}  // namespace fllm::changes

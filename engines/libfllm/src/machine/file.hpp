// A regular file that is open for reading, and errors that tell a damaged bundle from a limit of the system.
#pragma once

#include <cstddef>
#include <string>

namespace fllm {

// " (TEXT)", what the system says of an errno.
std::string system_says(int code);

// Throws Error: Status::memory when the system has no file descriptor or no memory left, Status::bundle when the file
// is missing, is not a regular file or may not be read. `what` names what was expected.
class File {
 public:
  File(const std::string& path, const std::string& what);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  std::size_t bytes() const { return bytes_; }

  // All of it. Throws Error (Status::bundle) when it has more than `most` bytes, or is cut short meanwhile.
  std::string text(std::size_t most) const;

  // Fills data[0, bytes()). Throws Error (Status::bundle).
  void read(unsigned char* data) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::size_t bytes_ = 0;
};

}  // namespace fllm

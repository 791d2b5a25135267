#include "changes/disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace fllm::changes {

namespace {

constexpr std::size_t kWriteBytes = std::size_t{16} << 20;
constexpr mode_t kMode = 0644;

int outcome(int result) { return result == 0 ? 0 : errno; }

}  // namespace

int Disk::create(const std::string& path, int& file) {
  file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
  if (file < 0) return errno;
  if (::fchmod(file, kMode) == 0) return 0;  // whatever the process masks out
  const int code = errno;
  ::close(file);
  ::unlink(path.c_str());
  return code;
}

int Disk::write(int file, const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file, next, std::min(bytes, kWriteBytes));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
  return 0;
}

int Disk::sync(int file) { return outcome(::fsync(file)); }

void Disk::close(int file) { ::close(file); }

int Disk::link(const std::string& path, const std::string& second) {
  return outcome(::link(path.c_str(), second.c_str()));
}

int Disk::rename(const std::string& path, const std::string& next) {
  return outcome(::rename(path.c_str(), next.c_str()));
}

int Disk::remove(const std::string& path) {
  const int code = outcome(::unlink(path.c_str()));
  return code == ENOENT ? 0 : code;
}

int Disk::sync_directory(const std::string& path) {
  const int directory = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return errno;
  const int code = outcome(::fsync(directory));
  ::close(directory);
  return code;
}

}  // namespace fllm::changes

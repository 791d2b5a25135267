#include "machine/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "status.hpp"

namespace fllm {

namespace {

constexpr std::size_t kReadBytes = std::size_t{16} << 20;

[[noreturn]] void refuse(const std::string& path, const std::string& what, int code) {
  if (code == EMFILE || code == ENFILE || code == ENOMEM) {
    throw Error(Status::memory, sentence(path + " cannot be opened" + system_says(code), "a file descriptor for it",
                                         "Raise the limit on open files (ulimit -n)"));
  }
  if (code == ENOENT) throw Error(Status::bundle, sentence(path + " is missing", what, "Build it again"));
  throw Error(Status::bundle, sentence(path + " cannot be opened" + system_says(code), "a readable file"));
}

}  // namespace

std::string system_says(int code) { return " (" + std::generic_category().message(code) + ")"; }

File::File(const std::string& path, const std::string& what) : path_(path) {
  // Without O_NONBLOCK, opening a pipe would wait for its other end.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor_ < 0) refuse(path, what, errno);
  struct stat status;
  const bool regular = fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    close(descriptor_);
    throw Error(Status::bundle, sentence(path + " is not a file", what, "Build it again"));
  }
  bytes_ = static_cast<std::size_t>(status.st_size);
}

File::~File() { close(descriptor_); }

std::string File::text(std::size_t most) const {
  if (bytes_ > most) {
    throw Error(Status::bundle,
                sentence(path_ + " has " + std::to_string(bytes_) + " bytes", "at most " + std::to_string(most)));
  }
  std::string text(bytes_, '\0');
  read(reinterpret_cast<unsigned char*>(text.data()));
  return text;
}

void File::read(unsigned char* data) const {
  for (std::size_t done = 0; done < bytes_;) {
    const std::size_t piece = std::min(kReadBytes, bytes_ - done);
    const ssize_t got = pread(descriptor_, data + done, piece, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw Error(Status::bundle, sentence(path_ + " cannot be read" + system_says(errno), "a readable file"));
    }
    if (got == 0) {
      throw Error(Status::bundle,
                  sentence(path_ + " ends at byte " + std::to_string(done),
                           std::to_string(bytes_) + " bytes, as when it was opened",
                           "Do not change the files of a bundle in place: replace its directory by renaming"));
    }
    done += static_cast<std::size_t>(got);
  }
}

}  // namespace fllm

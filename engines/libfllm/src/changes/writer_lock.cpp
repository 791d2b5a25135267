#include "changes/writer_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "changes/refusal.hpp"

namespace fllm::changes {

namespace {

constexpr const char* kName = ".writer.lock";
constexpr mode_t kMode = 0666;  // less what the process masks out: whoever may write the directory may change the table

}  // namespace

WriterLock::WriterLock(const std::string& directory) {
  const std::string path = (std::filesystem::path(directory) / kName).string();
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, kMode);
  if (file_ < 0) throw Refusal{path, errno};
  int failed = ::flock(file_, LOCK_EX | LOCK_NB);
  while (failed != 0 && errno == EINTR) failed = ::flock(file_, LOCK_EX | LOCK_NB);
  if (failed == 0) return;
  const int code = errno;
  ::close(file_);
  if (code != EWOULDBLOCK) throw Refusal{path, code};
  throw Error(Status::usage, sentence(directory + " is being changed by another writer", "one writer at a time",
                                      "Repeat the change when it has ended"));
}

WriterLock::~WriterLock() { ::close(file_); }

}  // namespace fllm::changes

#include "changes/refusal.hpp"

#include <cerrno>
#include <system_error>

namespace fllm::changes {

namespace {

struct Cause {
  Status status;
  const char* fix;
};

Cause cause_of(int code) {
  switch (code) {
    case ENOMEM: return {Status::memory, "Free some memory, or raise the limit (ulimit -v)"};
    case EMFILE: return {Status::memory, "Raise the limit on open files (ulimit -n)"};
    case ENFILE: return {Status::memory, "Close some files: the machine's limit is reached"};
    case ENOSPC: return {Status::memory, "Free some space on the disk"};
    case EDQUOT: return {Status::memory, "Free some space, or request a larger quota"};
    case EFBIG: return {Status::memory, "Raise the limit on file size (ulimit -f), or choose another file system"};
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case EACCES:
    case EPERM:
    case EROFS:
    case ENAMETOOLONG:
    case ELOOP:
    case EXDEV:
    case EBUSY: return {Status::usage, "Choose a directory that you can write to"};
    default: return {Status::bundle, "Check the disk"};
  }
}

}  // namespace

Error error_of(const Refusal& refusal, const std::string& state) {
  const Cause cause = cause_of(refusal.code);
  return Error(cause.status,
               sentence(refusal.path + ": " + std::generic_category().message(refusal.code) + "; " + state,
                        "a disk that takes and keeps what is written to it", cause.fix));
}

}  // namespace fllm::changes

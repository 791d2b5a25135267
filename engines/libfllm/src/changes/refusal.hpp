// What the system refused while a table was changed, and the error that the caller gets for it.
#pragma once

#include <string>

#include "status.hpp"

namespace fllm::changes {

// A call that failed, until it is known what it has left of the table.
struct Refusal {
  std::string path;
  int code;  // errno
};

// Throws Refusal unless `code` is 0.
inline void require_done(int code, const std::string& path) {
  if (code != 0) throw Refusal{path, code};
}

// The error for the caller, as fllm_export.system_errors sorts them: limits of the system, paths, and all else, which
// the disk is to blame for. `state` says what the table is now.
Error error_of(const Refusal& refusal, const std::string& state);

}  // namespace fllm::changes

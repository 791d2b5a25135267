// Whether a call is refused as it should be.
#pragma once

#include <cstdio>
#include <string>

#include "check.hpp"
#include "status.hpp"

namespace check {

// Counts a failure unless `call` throws Error of `status` whose text contains `words`.
template <typename Call>
void refused(const char* file, int line, Call&& call, fllm::Status status, const std::string& words) {
  std::string found = "nothing was thrown";
  try {
    call();
  } catch (const fllm::Error& error) {
    found = error.what();
    if (error.status() == status && found.find(words) != std::string::npos) return;
  }
  std::fprintf(stderr, "%s:%d: not refused with \"%s\" but: %s\n", file, line, words.c_str(), found.c_str());
  ++failures;
}

}  // namespace check

#define REFUSED(call, status, words) check::refused(__FILE__, __LINE__, [&] { (void)(call); }, status, words)

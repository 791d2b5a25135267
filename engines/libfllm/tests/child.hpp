// What happens in a child of the test, where limits may be lowered and threads are missing.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <fllm/fllm.hpp>
#include <functional>
#include <string>

namespace child {

// Whether `work` holds in a child, which is given 20 seconds.
inline bool holds(const std::function<bool()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    bool holds = false;
    try {
      holds = work();
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "in a child: %s\n", failure.what());
    }
    _exit(holds ? 0 : 1);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Whether a call ends in an error of this status that contains `words`.
inline bool refuses(const std::function<void()>& call, fllm_status status, const std::string& words) {
  try {
    call();
  } catch (const fllm::Error& error) {
    if (error.status() == status && std::string(error.what()).find(words) != std::string::npos) return true;
    std::fprintf(stderr, "in a child: not \"%s\" but: %s\n", words.c_str(), error.what());
  }
  return false;
}

}  // namespace child

// A library that lies beside libfllm and is loaded when it is needed and not before.
#pragma once

#include <string>

namespace fllm {

struct Companion {
  std::string path;
  void* symbol = nullptr;  // null: `failure` says why
  std::string failure;
};

// Loads the library that the environment variable names, or `file_name` beside libfllm, and looks `symbol` up. What was
// loaded stays loaded.
Companion load_companion(const char* variable, const char* file_name, const char* symbol);

}  // namespace fllm

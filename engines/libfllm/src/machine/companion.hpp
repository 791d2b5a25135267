// A library that lies beside libfllm and is loaded when it is needed and not before.
#pragma once

#include <cstdint>
#include <string>

namespace fllm {

// Which library, what it offers, and what a caller is told when it cannot be had.
struct Companion {
  const char* engine;     // that needs it
  const char* variable;   // of the environment, which may name another file
  const char* file_name;  // of what lies beside libfllm
  const char* symbol;     // a function that returns the driver
  const char* fix;
};

// Throws the error (Status::hardware) that the engine cannot run, and how that is mended.
[[noreturn]] void refuse(const Companion& wanted, const std::string& found);

// Loads the library, which stays loaded, and returns what its function returns. Throws as refuse() does.
const void* load_companion(const Companion& wanted);

// The same for a struct that begins with the version of its layout, which must be `version`.
template <typename Driver>
const Driver& load_driver_of(const Companion& wanted, std::uint32_t version) {
  const auto& driver = *static_cast<const Driver*>(load_companion(wanted));
  if (driver.version == version) return driver;
  refuse(wanted, std::string(wanted.file_name) + " has interface version " + std::to_string(driver.version) +
                     ", and libfllm needs " + std::to_string(version));
}

}  // namespace fllm

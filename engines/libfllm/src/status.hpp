// What can go wrong, by cause; the numbers are those of the C interface and of the command line's exit codes.
#pragma once

#include <stdexcept>
#include <string>

namespace fllm {

enum class Status : int { ok = 0, internal = 1, usage = 2, bundle = 4, memory = 5, hardware = 6, cancelled = 130 };

// The one exception that libfllm throws inside; it never crosses the C interface. The text says what was found, what
// was expected and what to do, in the words of the Python errors.
class Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  Status status() const { return status_; }

 private:
  Status status_;
};

// "FOUND; expected EXPECTED. FIX." as fllm_export.errors writes it; empty parts are left out.
std::string sentence(const std::string& found, const std::string& expected = "", const std::string& fix = "");

}  // namespace fllm

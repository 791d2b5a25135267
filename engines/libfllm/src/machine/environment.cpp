#include "machine/environment.hpp"

#include <charconv>
#include <cstdlib>

#include "status.hpp"

namespace fllm::environment {

std::string text(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::uint64_t number(const char* name, std::uint64_t most) {
  const std::string value = text(name);
  if (value.empty()) return 0;
  std::uint64_t found = 0;
  const char* const end = value.data() + value.size();
  const auto [stop, failure] = std::from_chars(value.data(), end, found);
  if (failure != std::errc() || stop != end || found < 1 || found > most) {
    throw Error(Status::usage,
                sentence(std::string(name) + " is '" + value + "'", "an integer from 1 to " + std::to_string(most)));
  }
  return found;
}

}  // namespace fllm::environment

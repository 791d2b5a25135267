#include "status.hpp"

namespace fllm {

namespace {

std::string without_full_stop(const std::string& text) {
  return !text.empty() && text.back() == '.' ? text.substr(0, text.size() - 1) : text;
}

}  // namespace

std::string sentence(const std::string& found, const std::string& expected, const std::string& fix) {
  std::string message = without_full_stop(found);
  if (!expected.empty()) message.append("; expected ").append(without_full_stop(expected));
  message.append(".");
  if (!fix.empty()) message.append(" ").append(without_full_stop(fix)).append(".");
  return message;
}

}  // namespace fllm

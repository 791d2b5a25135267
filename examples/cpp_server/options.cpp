#include "options.hpp"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fllm/fllm.hpp>
#include <functional>
#include <map>
#include <string_view>
#include <type_traits>

namespace server {

namespace {

constexpr const char* kUsage =
    "usage: fllm_server --bundle DIRECTORY [--host 127.0.0.1] [--port 8080] [--threads N] [--workers 128]\n"
    "                   [--max-waiting 256] [--max-connections 1000] [--client-timeout-ms 10000]\n"
    "                   [--max-body-bytes 4194304] [--max-items 256] [--max-answer-users 200000]\n"
    "                   [--onnxruntime LIBRARY]";

[[noreturn]] void refuse(const std::string& why) { throw fllm::Error(FLLM_USAGE, why + "\n" + kUsage); }

template <typename Number>
Number number(const std::string& option, std::string_view text, Number least, Number most) {
  Number value{};
  const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || stop != text.data() + text.size() || value < least || value > most) {
    refuse(option + " is '" + std::string(text) + "'; expected an integer from " + std::to_string(least) + " to " +
           std::to_string(most) + ".");
  }
  return value;
}

}  // namespace

Options Options::parse(int argc, char** argv) {
  Options options;
  constexpr std::size_t kMost = std::size_t{1} << 30;
  using Read = std::function<void(const std::string& name, const std::string& value)>;
  const auto text = [](std::string& place) -> Read {
    return [&place](const auto&, const auto& value) { place = value; };
  };
  const auto count = [](auto& place, auto least, auto most) -> Read {
    using Number = std::remove_reference_t<decltype(place)>;
    return [&place, least, most](const std::string& name, const std::string& value) {
      place = number<Number>(name, value, static_cast<Number>(least), static_cast<Number>(most));
    };
  };
  const std::map<std::string, Read> known{{"--bundle", text(options.bundle)},
                                          {"--host", text(options.host)},
                                          {"--onnxruntime", text(options.onnxruntime)},
                                          {"--port", count(options.port, 0, 65535)},
                                          {"--threads", count(options.threads, 1, 1024)},
                                          {"--workers", count(options.workers, 1, 1024)},
                                          {"--max-waiting", count(options.waiting, 1, kMost)},
                                          {"--max-connections", count(options.connections, 1, 100'000)},
                                          {"--client-timeout-ms", count(options.client_ms, 1, 3'600'000)},
                                          {"--max-body-bytes", count(options.body_bytes, 1, kMost)},
                                          {"--max-items", count(options.items, 1, kMost)},
                                          {"--max-answer-users", count(options.answer_users, 1, kMost)}};
  for (int i = 1; i < argc; i += 2) {
    if (std::string_view(argv[i]) == "--help") {
      std::puts(kUsage);
      std::exit(0);
    }
    const auto found = known.find(argv[i]);
    if (found == known.end()) refuse("unknown argument '" + std::string(argv[i]) + "'.");
    if (i + 1 == argc) refuse(found->first + " has no value.");
    found->second(found->first, argv[i + 1]);
  }
  if (options.bundle.empty()) refuse("--bundle is missing.");
  return options;
}

}  // namespace server

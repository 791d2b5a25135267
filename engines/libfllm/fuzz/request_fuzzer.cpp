// The body of POST /topk of the example server: any bytes are refused by an Error, or are a request within the limits.
#include "request.hpp"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  server::Options limits;
  limits.items = 8;
  limits.answer_users = 1000;
  try {
    const server::Request request = server::Request::parse({reinterpret_cast<const char*>(data), size}, limits);
    require(request.size() >= 1 && request.size() <= limits.items);
    require(request.seeds.size() == request.size());
    require(request.k <= limits.answer_users / request.size());
    require(!request.budget_ms || *request.budget_ms > 0);
    if (const auto* vectors = std::get_if<server::ItemVectors>(&request.items)) {
      for (const std::vector<float>& item : *vectors) {
        for (const float number : item) require(std::isfinite(number));
      }
    }
  } catch (const fllm::Error& error) {
    require(error.status() == FLLM_USAGE);
  }
  return 0;
}

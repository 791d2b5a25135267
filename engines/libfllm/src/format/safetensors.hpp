// The tensors of a safetensors file in memory, laid out so that it can be used in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fllm {

inline constexpr std::size_t kPageBytes = 4096;  // tensors start on multiples of it

struct Tensor {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  const std::uint8_t* data = nullptr;
  std::uint64_t bytes = 0;
};

using Tensors = std::map<std::string, Tensor>;

// Trusts nothing that the file says; every tensor that is returned lies within data[0, size). `path` is for messages.
// Throws Error (Status::bundle).
Tensors read_tensors(const std::uint8_t* data, std::size_t size, const std::string& path);

// A tensor's shape, or what was wanted, as messages show it: "F32 [3, 4]".
std::string described(const std::string& dtype, const std::vector<std::uint64_t>& shape);

}  // namespace fllm

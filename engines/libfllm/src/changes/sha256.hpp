// SHA-256 (FIPS 180-4), by which table.json vouches for files and for itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace fllm::changes {

class Sha256 {
 public:
  void add(const void* data, std::size_t bytes);

  // Ends the text; 64 hexadecimal digits.
  std::string digest();

 private:
  static constexpr std::size_t kBlock = 64;

  void take(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, kBlock> waiting_{};
  std::uint64_t bytes_ = 0;
};

inline std::string sha256(std::string_view text) {
  Sha256 hash;
  hash.add(text.data(), text.size());
  return hash.digest();
}

}  // namespace fllm::changes

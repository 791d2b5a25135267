// Where arrays of several types lie in one block, so that one copy carries them all.
#pragma once

#include <cstddef>

namespace fllm::cuda {

class Packing {
 public:
  static constexpr std::size_t kBoundary = 256;

  // Room for n numbers after what is there already; returns the offset.
  template <typename T>
  std::size_t add(std::size_t n) {
    const std::size_t offset = bytes();
    end_ = offset + n * sizeof(T);
    return offset;
  }

  std::size_t bytes() const { return (end_ + kBoundary - 1) / kBoundary * kBoundary; }

 private:
  std::size_t end_ = 0;
};

}  // namespace fllm::cuda

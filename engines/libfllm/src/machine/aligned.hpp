// Memory on the boundary that the kernels expect.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/kernels.hpp"

namespace fllm {

// An uninitialised array of n numbers that starts on kernels::kAlign.
template <typename T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t n) : size_(n) {
    const std::size_t bytes = (n * sizeof(T) + kernels::kAlign - 1) / kernels::kAlign * kernels::kAlign;
    data_.reset(static_cast<T*>(std::aligned_alloc(kernels::kAlign, bytes == 0 ? kernels::kAlign : bytes)));
    if (!data_) throw std::bad_alloc();
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace fllm

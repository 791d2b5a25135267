// Memory that ends where a page begins that may not be touched: reading one byte too many is a crash, not luck.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <new>

class Guarded {
 public:
  Guarded(const void* content, std::size_t bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + page - 1) / page * page + page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::bad_alloc();
    if (mprotect(static_cast<char*>(base_) + mapped_ - page, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = static_cast<unsigned char*>(base_) + mapped_ - page - bytes;
    if (bytes != 0) std::memcpy(data_, content, bytes);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  const unsigned char* data() const { return data_; }
  template <class T>
  T* as() const {  // `bytes` must leave it aligned
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::size_t mapped_ = 0;
  void* base_ = nullptr;
  unsigned char* data_ = nullptr;
};

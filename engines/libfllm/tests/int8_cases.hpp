// The int8 kernels of a level against sums computed here one by one. Codes and results lie right before a page that
// cannot be touched, so that a byte too many ends the test.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "check.hpp"
#include "kernels/kernels.hpp"

namespace int8_cases {

using fllm::kernels::kAlign;
using fllm::kernels::kBlockRows;
using fllm::kernels::Kernels;
using fllm::kernels::kItemLanes;

// Bytes whose end is the end of the last readable page.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    length_ = (bytes + page - 1) / page * page + page;
    memory_ = static_cast<char*>(mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + length_ - page, page, PROT_NONE) != 0) std::abort();
    start_ = memory_ + length_ - page - bytes;
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(memory_, length_); }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(start_);
  }

 private:
  char* memory_;
  char* start_;
  std::size_t length_;
};

struct Free {
  void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kAlign}); }
};
using Packed = std::unique_ptr<void, Free>;

inline Packed allocate(std::size_t bytes) { return Packed(::operator new(bytes, std::align_val_t{kAlign})); }

using Source = std::function<std::int8_t()>;

inline std::minstd_rand generator(20240607);

inline Source any_of(int lowest, int highest) {
  return [=] { return static_cast<std::int8_t>(std::uniform_int_distribution<int>(lowest, highest)(generator)); };
}

inline Source either(int one, int other) {
  return [=] { return static_cast<std::int8_t>(generator() % 2 == 0 ? one : other); };
}

inline std::vector<std::int8_t> take(std::size_t n, const Source& source) {
  std::vector<std::int8_t> values(n);
  for (auto& value : values) value = source();
  return values;
}

inline std::int32_t dot(const std::int8_t* a, const std::int8_t* b, std::size_t n) {
  std::int64_t sum = 0;
  for (std::size_t j = 0; j < n; ++j) sum += std::int64_t{a[j]} * b[j];
  return static_cast<std::int32_t>(sum);
}

struct Case {
  std::size_t rows, dim, items;
  Source codes, limbs;
};

inline void report(const Kernels& kernels, const char* kernel, const Case& c, std::size_t wrong) {
  if (wrong == 0) return;
  std::fprintf(stderr, "%s %s: %zu wrong sums for rows=%zu dim=%zu items=%zu\n", kernels.isa, kernel, wrong, c.rows,
               c.dim, c.items);
  CHECK(wrong == 0);
}

inline void check_one(const Kernels& kernels, const Case& c) {
  const Guarded codes(c.rows * c.dim), high(c.rows * 4), low(c.rows * 4);
  for (std::size_t i = 0; i < c.rows * c.dim; ++i) codes.as<std::int8_t>()[i] = c.codes();
  const auto high_limb = take(c.dim, c.limbs), low_limb = take(c.dim, c.limbs);
  const Packed packed_high = allocate(kernels.int8_one_bytes(c.dim));
  const Packed packed_low = allocate(kernels.int8_one_bytes(c.dim));
  kernels.int8_one_pack(high_limb.data(), c.dim, packed_high.get());
  kernels.int8_one_pack(low_limb.data(), c.dim, packed_low.get());
  kernels.int8_one(codes.as<std::int8_t>(), c.rows, c.dim, packed_high.get(), packed_low.get(), high.as<std::int32_t>(),
                   low.as<std::int32_t>());
  std::size_t wrong = 0;
  for (std::size_t r = 0; r < c.rows; ++r) {
    const std::int8_t* row = codes.as<std::int8_t>() + r * c.dim;
    wrong += high.as<std::int32_t>()[r] != dot(row, high_limb.data(), c.dim);
    wrong += low.as<std::int32_t>()[r] != dot(row, low_limb.data(), c.dim);
  }
  report(kernels, "int8_one", c, wrong);
}

// Wrong sums among those of the real items; what the padding columns hold is nobody's business.
inline std::size_t wrong_sums(const Case& c, const std::int8_t* codes, const std::vector<std::int8_t>& limb,
                              const std::int32_t* sums, std::size_t padded) {
  std::size_t wrong = 0;
  for (std::size_t r = 0; r < c.rows; ++r) {
    for (std::size_t i = 0; i < c.items; ++i) {
      wrong += sums[r * padded + i] != dot(codes + r * c.dim, limb.data() + i * c.dim, c.dim);
    }
  }
  return wrong;
}

inline void check_many(const Kernels& kernels, const Case& c) {
  const std::size_t padded = (c.items + kItemLanes - 1) / kItemLanes * kItemLanes;
  const std::size_t bytes = c.rows * padded * sizeof(std::int32_t);
  const Guarded codes(c.rows * c.dim), high(bytes), low(bytes), alone(bytes);
  for (std::size_t i = 0; i < c.rows * c.dim; ++i) codes.as<std::int8_t>()[i] = c.codes();
  const auto high_limb = take(c.items * c.dim, c.limbs), low_limb = take(c.items * c.dim, c.limbs);
  const Packed packed_high = allocate(kernels.int8_many_bytes(c.items, c.dim));
  const Packed packed_low = allocate(kernels.int8_many_bytes(c.items, c.dim));
  kernels.int8_many_pack(high_limb.data(), c.items, c.dim, packed_high.get());
  kernels.int8_many_pack(low_limb.data(), c.items, c.dim, packed_low.get());
  kernels.int8_many(codes.as<std::int8_t>(), c.rows, c.dim, padded, packed_high.get(), packed_low.get(),
                    high.as<std::int32_t>(), low.as<std::int32_t>());
  kernels.int8_many(codes.as<std::int8_t>(), c.rows, c.dim, padded, packed_high.get(), nullptr,
                    alone.as<std::int32_t>(), nullptr);
  report(kernels, "int8_many, both limbs", c,
         wrong_sums(c, codes.as<std::int8_t>(), high_limb, high.as<std::int32_t>(), padded) +
             wrong_sums(c, codes.as<std::int8_t>(), low_limb, low.as<std::int32_t>(), padded));
  report(kernels, "int8_many, first limb", c,
         wrong_sums(c, codes.as<std::int8_t>(), high_limb, alone.as<std::int32_t>(), padded));
}

inline std::vector<std::size_t> dims() {
  std::vector<std::size_t> all;
  for (std::size_t dim = 1; dim <= 70; ++dim) all.push_back(dim);
  for (const std::size_t dim : {127, 128, 129, 130, 191, 384, 1000, 4096, 8192}) all.push_back(dim);
  return all;
}

inline void check_level(const Kernels& kernels) {
  const Source codes = any_of(-128, 127), limbs = any_of(-64, 63);
  for (const std::size_t dim : dims()) {
    for (const std::size_t rows : {1, 7, 18, 64}) check_one(kernels, {rows, dim, 1, codes, limbs});
    check_many(kernels, {dim % 5 + 1, dim, 17, codes, limbs});
    check_many(kernels, {dim > 1000 ? std::size_t{3} : kBlockRows, dim, dim % 70 + 1, codes, limbs});
  }
  for (std::size_t rows = 1; rows <= kBlockRows; ++rows) {
    check_one(kernels, {rows, 100, 1, codes, limbs});
    check_many(kernels, {rows, 70, 33, codes, limbs});
  }
  for (std::size_t items = 1; items <= 130; ++items) check_many(kernels, {11, 37, items, codes, limbs});
  const Source extremes[] = {either(-128, -128), either(127, 127), either(-128, 127), either(-127, 127)};
  const Source edges[] = {either(-64, -64), either(63, 63), either(-64, 63)};
  for (const Source& extreme : extremes) {
    for (const Source& edge : edges) {
      for (const std::size_t dim : {64, 131, 8192}) {
        check_one(kernels, {18, dim, 1, extreme, edge});
        check_many(kernels, {7, dim, 49, extreme, edge});
      }
    }
  }
}

}  // namespace int8_cases

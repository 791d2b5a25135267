// Work on rows, part by part, on all threads that a call may use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>

#include "machine/pool.hpp"
#include "machine/thread_count.hpp"

namespace fllm::writing {

// Calls work(start, stop) for parts of [0, count), each but the last of `step`; one thread takes the next part when it
// is through with its own. Work that needs memory of its own makes it per part, so parts should not be tiny.
inline void for_parts(std::size_t count, std::size_t step,
                      const std::function<void(std::size_t start, std::size_t stop)>& work) {
  const std::size_t parts = (count + step - 1) / step;
  std::atomic<std::size_t> next{0};
  const auto take = [&](std::size_t) {
    for (std::size_t part = next++; part < parts; part = next++) work(part * step, std::min(count, (part + 1) * step));
  };
  const std::size_t threads = std::min(thread_count(0), parts);
  if (threads <= 1) {
    take(0);
  } else {
    Pool(threads, false).run(threads, take);
  }
}

// Parts of about 64 Ki numbers: they stay in a core's own cache, and are long enough to share out.
inline std::size_t rows_of_part(std::size_t dim) { return std::max<std::size_t>(16, (65536 / dim + 15) / 16 * 16); }

}  // namespace fllm::writing

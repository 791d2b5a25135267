// The bits of user filters in a GPU's memory. Filters are made once and used often: the last ones stay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "device.hpp"
#include "search/filter.hpp"

namespace fllm::cuda {

class DeviceFilters {
 public:
  explicit DeviceFilters(const Device& device) : device_(device) {}

  // To be called before the filters of a pass are asked for.
  void begin_pass() { in_use_ = 0; }

  // The bits of a filter, one for each row of the table; null for none. Valid until the end of the pass.
  const std::uint32_t* bits(const UserFilter* filter, const Stream& stream);

 private:
  struct Kept {
    std::uint64_t number;  // UserFilter::number()
    Memory bits;
  };
  static constexpr std::size_t kMostIdle = 4;

  const Device& device_;
  std::deque<Kept> kept_;  // those used last come first
  std::size_t in_use_ = 0;
};

}  // namespace fllm::cuda

// Brings the pieces that stay in the host's memory into the GPU's, ahead of the scan.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "device.hpp"
#include "device_table.hpp"

namespace fllm::cuda {

class Staging {
 public:
  Staging(const Device& device, const DeviceTable& table);

  // The first copies are put on their way. Nothing may read the places any more.
  void begin_pass();

  // Where a piece lies; what is put on `scans` from now on waits until it does. Pieces are asked for in their order.
  const std::uint8_t* block(std::size_t number, const Stream& scans);

  // Brings one piece back after a pass.
  const std::uint8_t* block_again(std::size_t number, const Stream& scans);

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  static std::size_t place_of(std::size_t number) { return number % DeviceTable::kPlaces; }
  void release(const Stream& scans);
  void bring_next();

  const DeviceTable& table_;
  std::array<Event, DeviceTable::kPlaces> arrived_, read_;
  Stream copies_;
  std::size_t next_ = 0, current_ = kNone;
};

}  // namespace fllm::cuda

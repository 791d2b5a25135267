#include "staging.hpp"

namespace fllm::cuda {

Staging::Staging(const Device& device, const DeviceTable& table)
    : table_(table), arrived_{Event(device), Event(device)}, read_{Event(device), Event(device)}, copies_(device) {}

void Staging::begin_pass() {
  next_ = table_.resident_pieces();
  current_ = kNone;
  for (std::size_t place = 0; place < DeviceTable::kPlaces; ++place) bring_next();
}

const std::uint8_t* Staging::block(std::size_t number, const Stream& scans) {
  const Piece& piece = table_.pieces()[number];
  if (piece.resident) return piece.block.data();
  if (number != current_) {
    if (current_ != kNone) release(scans);
    scans.wait(arrived_[place_of(number)]);
    current_ = number;
  }
  return table_.place(place_of(number));
}

const std::uint8_t* Staging::block_again(std::size_t number, const Stream& scans) {
  const Piece& piece = table_.pieces()[number];
  if (piece.resident) return piece.block.data();
  copies_.finish();
  scans.copy(table_.place(0), piece.block.data(), piece.bytes);
  return table_.place(0);
}

// The scan is through with the current piece: the next but one may take its place.
void Staging::release(const Stream& scans) {
  const Event& read = read_[place_of(current_)];
  scans.record(read);
  copies_.wait(read);
  bring_next();
}

void Staging::bring_next() {
  if (next_ == table_.pieces().size()) return;
  const Piece& piece = table_.pieces()[next_];
  copies_.copy(table_.place(place_of(next_)), piece.block.data(), piece.bytes);
  copies_.record(arrived_[place_of(next_)]);
  ++next_;
}

}  // namespace fllm::cuda

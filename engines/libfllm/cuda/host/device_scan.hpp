// One GPU's share of a pass: its rows go by in waves, and after each the candidates are cut back to the best.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "device.hpp"
#include "device_filters.hpp"
#include "device_table.hpp"
#include "item_room.hpp"
#include "search/denominator.hpp"
#include "search/query.hpp"
#include "staging.hpp"

namespace fllm::cuda {

// What a GPU found for one item.
struct DeviceAnswer {
  std::vector<Candidate> users;  // in no order, at most K
  LogSumExp denominator;
  std::uint64_t rows_scored = 0;
};

class DeviceScan {
 public:
  // Opens the rows of these tiles on a GPU, with at most `bytes` of its memory (0: what is free).
  DeviceScan(const Driver& driver, int device, const Rows& table, TileRange tiles, std::uint64_t bytes);

  const Device& device() const { return device_; }
  const DeviceTable& table() const { return table_; }

  // Scores the rows for the columns of a pass, which want the same mode and log-probabilities. The first wave is scored
  // for everybody; none is begun once all searches have ended. One call at a time.
  std::vector<DeviceAnswer> run(const std::vector<Column>& columns);

 private:
  // Rows of a piece that are scored together.
  struct Turn {
    std::size_t piece;
    std::uint64_t first, rows;
  };
  static constexpr std::size_t kTurnsAhead = 2;  // that are put on the stream before the clock is looked at

  std::vector<Turn> cut_turns(const std::vector<Column>& columns) const;
  std::size_t score_turns(const std::vector<Turn>& turns, const std::vector<Column>& columns, bool denominator);
  void score(const Wave& wave, bool denominator);
  void score_together(const Wave& wave, bool denominator);
  void score_one(const Wave& wave, std::size_t item, const Candidates& out, bool denominator);
  void prune(std::size_t first_item, std::size_t items, std::uint8_t* overflowed);
  void make_up(const std::vector<Turn>& turns, std::size_t scored);
  void sum_again(const std::vector<Turn>& turns, std::size_t scored);
  void score_again(const Piece& piece, const std::uint8_t* block, std::uint64_t first, std::uint64_t rows,
                   std::size_t turn, std::size_t item);

  Device device_;
  DeviceTable table_;
  std::array<Event, kTurnsAhead> ended_;
  Stream scans_;
  Staging staging_;
  unsigned blocks_;
  ItemRoom room_;
  DeviceFilters filters_;
  std::uint32_t most_together_ = 0;  // items that tensor cores scan at once; 0: none
  bool samples_ = false;
};

}  // namespace fllm::cuda

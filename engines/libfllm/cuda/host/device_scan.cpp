#include "device_scan.hpp"

#include <algorithm>
#include <cmath>

#include "search/engine.hpp"

namespace fllm::cuda {

namespace {

constexpr std::uint64_t kTurnProducts = std::uint64_t{1}
                                        << 37;  // multiply-adds: well below a millisecond of a large GPU
constexpr unsigned kBlocksPerProcessor = 4, kManyBlocksPerProcessor = 2;

}  // namespace

DeviceScan::DeviceScan(const Driver& driver, int device, const Rows& table, TileRange tiles, std::uint64_t bytes)
    : device_(driver, device),
      table_(device_, table, tiles, bytes),
      ended_{Event(device_), Event(device_)},
      scans_(device_),
      staging_(device_, table_),
      blocks_(device_.facts().processors * kBlocksPerProcessor),
      room_(device_, blocks_),
      filters_(device_) {
  const auto dim = static_cast<std::uint32_t>(table_.dim());
  device_.check(device_.driver().most_items(table_.kind(), dim, &most_together_), "asking for its shared memory");
}

std::vector<DeviceAnswer> DeviceScan::run(const std::vector<Column>& columns) {
  device_.use();
  const std::vector<Turn> turns = cut_turns(columns);
  const Search& search = *columns.front().search;
  samples_ = search.mode == Mode::sample;
  filters_.begin_pass();
  room_.begin(columns, table_.dim(), turns.size(), filters_, scans_);
  const std::size_t scored = score_turns(turns, columns, search.wants_log_probs());
  room_.fetch_states(scans_);
  if (search.wants_log_probs()) sum_again(turns, scored);
  std::uint64_t rows = 0;
  for (std::size_t turn = 0; turn < scored; ++turn) rows += turns[turn].rows;
  std::vector<DeviceAnswer> answers(columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    answers[i].rows_scored = rows;
    if (search.wants_log_probs()) answers[i].denominator = room_.denominator(i);
  }
  make_up(turns, scored);
  std::vector<std::vector<Candidate>> users = room_.fetch_users(scans_);
  for (std::size_t i = 0; i < columns.size(); ++i) answers[i].users = std::move(users[i]);
  return answers;
}

// The first turn has as many rows as there is room for candidates. If rows come in no particular order, n more of them
// after N hold about K n / N that are among the K best so far: the turns grow so that these fill half of what is free.
// Where rows lie in blocks, a turn begins with one.
std::vector<DeviceScan::Turn> DeviceScan::cut_turns(const std::vector<Column>& columns) const {
  const std::size_t k = most_users(columns);
  const std::uint64_t together = table_.rows_together(), capacity = candidate_capacity(k) / together * together;
  const auto growth = static_cast<double>(capacity - k) / (2.0 * static_cast<double>(k));
  const std::uint64_t most = kTurnProducts / (table_.dim() * columns.size());
  std::vector<Turn> turns;
  std::uint64_t before = 0;
  for (std::size_t number = 0; number < table_.pieces().size(); ++number) {
    const std::uint64_t all = table_.pieces()[number].rows;
    for (std::uint64_t first = 0; first < all;) {
      const auto grown = static_cast<std::uint64_t>(std::min(1e18, growth * static_cast<double>(before)));
      const std::uint64_t wanted = before < capacity ? capacity - before : std::max(grown, capacity - k);
      const std::uint64_t whole = std::min(wanted, most) / together * together;
      const std::uint64_t rows = std::min(std::max(whole, together), all - first);
      turns.push_back({number, first, rows});
      first += rows;
      before += rows;
    }
  }
  return turns;
}

// Returns how many turns were scored.
std::size_t DeviceScan::score_turns(const std::vector<Turn>& turns, const std::vector<Column>& columns,
                                    bool denominator) {
  staging_.begin_pass();
  const bool together = columns.size() > 1 && most_together_ > 0 && !samples_ && room_.has_plain_scales();
  for (std::size_t number = 0; number < turns.size(); ++number) {
    if (number > 0 && !any_goes_on(columns)) return number;
    if (number >= kTurnsAhead) ended_[number % kTurnsAhead].finish();
    const Turn& turn = turns[number];
    const std::uint8_t* const block = staging_.block(turn.piece, scans_);
    const Wave wave = table_.wave(table_.pieces()[turn.piece], block, turn.first, turn.rows);
    // The first turn is short, takes every row as a candidate, and gives the peaks that scans for many start from.
    if (number > 0 && together) {
      score_together(wave, denominator);
    } else {
      score(wave, denominator);
    }
    prune(0, columns.size(), room_.overflowed(number));
    scans_.record(ended_[number % kTurnsAhead]);
  }
  return turns.size();
}

void DeviceScan::score(const Wave& wave, bool denominator) {
  for (std::size_t item = 0; item < room_.count(); ++item) score_one(wave, item, room_.candidates(item), denominator);
}

void DeviceScan::score_together(const Wave& wave, bool denominator) {
  for (std::size_t first = 0; first < room_.count(); first += most_together_) {
    const ItemBatch batch =
        room_.batch(first, std::min<std::size_t>(most_together_, room_.count() - first), denominator);
    const unsigned blocks = device_.facts().processors * kManyBlocksPerProcessor;
    device_.check(device_.driver().scan_many(&wave, &batch, blocks, scans_.get()), "scanning for items together");
  }
}

void DeviceScan::score_one(const Wave& wave, std::size_t item, const Candidates& out, bool denominator) {
  Share* const shares = denominator ? room_.shares(item) : nullptr;
  const int status =
      device_.driver().scan_one(&wave, &room_.item(item), &out, shares, samples_ ? 1 : 0, blocks_, scans_.get());
  device_.check(status, "scanning for an item");
}

void DeviceScan::prune(std::size_t first_item, std::size_t items, std::uint8_t* overflowed) {
  const int status = device_.driver().prune(room_.all_candidates() + first_item, static_cast<unsigned>(items),
                                            overflowed, scans_.get());
  device_.check(status, "choosing the best");
}

// Scores those turns again that had more candidates than there was room for. Their denominators are known.
void DeviceScan::make_up(const std::vector<Turn>& turns, std::size_t scored) {
  for (std::size_t number = 0; number < scored; ++number) {
    const Turn& turn = turns[number];
    const Piece& piece = table_.pieces()[turn.piece];
    const std::uint8_t* block = nullptr;
    for (std::size_t item = 0; item < room_.count(); ++item) {
      if (!room_.has_overflowed(number, item)) continue;
      if (block == nullptr) block = staging_.block_again(turn.piece, scans_);
      score_again(piece, block, turn.first, turn.rows, number, item);
    }
  }
}

// The denominators of items that some score was too great for, relative to the peak that was known when it was met.
void DeviceScan::sum_again(const std::vector<Turn>& turns, std::size_t scored) {
  bool any = false;
  for (std::size_t item = 0; item < room_.count(); ++item) {
    if (std::isfinite(room_.denominator(item).l)) continue;
    any = true;
    room_.clear_shares(item, scans_);
    for (std::size_t number = 0; number < scored; ++number) {
      const Turn& turn = turns[number];
      const std::uint8_t* const block = staging_.block_again(turn.piece, scans_);
      const Wave wave = table_.wave(table_.pieces()[turn.piece], block, turn.first, turn.rows);
      score_one(wave, item, room_.no_candidates(), true);
    }
  }
  if (any) room_.fetch_states(scans_);
}

// By now the thresholds are high, so that most often all fits at once. What does not is scored in halves; what is left
// at last is less than there is room for.
void DeviceScan::score_again(const Piece& piece, const std::uint8_t* block, std::uint64_t first, std::uint64_t rows,
                             std::size_t turn, std::size_t item) {
  score_one(table_.wave(piece, block, first, rows), item, room_.candidates(item), false);
  prune(item, 1, room_.overflowed(turn) + item);
  if (room_.fetch_overflowed(turn, item, scans_)) {
    const std::uint64_t half = rows / 2 / table_.rows_together() * table_.rows_together();
    score_again(piece, block, first, half, turn, item);
    score_again(piece, block, first + half, rows - half, turn, item);
  }
}

}  // namespace fllm::cuda

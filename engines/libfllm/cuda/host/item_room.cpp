#include "item_room.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "item_error.hpp"
#include "packing.hpp"

namespace fllm::cuda {

namespace {

constexpr std::uint32_t kNoPeak = 0xFF800000u;  // -infinity, as cuda/order.cuh writes it
constexpr std::size_t kLeastFree = 4096;        // candidates beside the K best

constexpr Share kNoShare{-std::numeric_limits<float>::infinity(), 0.0};

void grow(Memory& memory, Memory (*make)(const Device&, std::size_t), const Device& device, std::size_t bytes) {
  if (memory.size() >= bytes) return;
  memory = Memory();  // the old goes before the new comes
  memory = make(device, bytes);
}

}  // namespace

std::size_t most_users(const std::vector<Column>& columns) {
  std::size_t most = 0;
  for (const Column& column : columns) most = std::max(most, column.search->k);
  return most;
}

std::uint32_t candidate_capacity(std::size_t k) {
  return static_cast<std::uint32_t>(
      std::min<std::size_t>(k + std::max(k, kLeastFree), std::numeric_limits<std::uint32_t>::max()));
}

void ItemRoom::begin(const std::vector<Column>& columns, std::size_t dim, std::size_t waves, DeviceFilters& filters,
                     const Stream& stream) {
  most_users_ = static_cast<std::uint32_t>(most_users(columns));
  capacity_ = candidate_capacity(most_users_);
  items_.resize(columns.size());
  candidates_.resize(columns.size());
  lay_out(columns.size(), dim, waves);
  fill(columns, dim, filters, stream);
  stream.copy(device_block_.data(), host_block_.data(), overflowed_);
}

void ItemRoom::lay_out(std::size_t items, std::size_t dim, std::size_t waves) {
  Packing packing;
  padded_dim_ = (dim + kPieceBytes - 1) / kPieceBytes * kPieceBytes;
  limbs_ = packing.add<std::int8_t>(2 * items * padded_dim_);
  wholes_ = packing.add<float>(items * padded_dim_);
  structs_ = packing.add<Candidates>(items);
  item_structs_ = packing.add<Item>(items);
  none_ = packing.add<float>(2);
  peaks_ = packing.add<std::uint32_t>(items);
  counts_ = packing.add<std::uint32_t>(items);
  kept_ = packing.add<std::uint32_t>(items);
  thresholds_ = packing.add<float>(items);
  shares_ = packing.add<Share>(items * blocks_);
  overflowed_ = packing.add<std::uint8_t>(items * waves);
  bytes_ = packing.bytes();
  grow(device_block_, Memory::of_gpu, device_, bytes_);
  grow(host_block_, Memory::pinned, device_, bytes_);
  grow(found_, Memory::of_gpu, device_, items * capacity_ * kCandidateBytes);
  grow(fetched_, Memory::pinned, device_, items * most_users_ * kCandidateBytes);
}

void ItemRoom::fill(const std::vector<Column>& columns, std::size_t dim, DeviceFilters& filters, const Stream& stream) {
  const std::size_t items = columns.size(), room = items * capacity_;
  auto* const keys = reinterpret_cast<float*>(found_.data() + room * sizeof(std::int64_t));
  std::memset(on_host<std::int8_t>(limbs_), 0, 2 * items * padded_dim_);
  std::memset(on_host<float>(wholes_), 0, items * padded_dim_ * sizeof(float));
  std::fill_n(on_host<Share>(shares_), items * blocks_, kNoShare);
  on_host<float>(none_)[0] = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < items; ++i) {
    const Search& search = *columns[i].search;
    const Limbs limbs = quantise(search.z + columns[i].item * dim, dim);
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < dim; ++j) {
      const std::int32_t whole = 128 * limbs.high[j] + limbs.low[j];
      on_host<float>(wholes_)[i * padded_dim_ + j] = static_cast<float>(whole);
      sum += whole;
    }
    std::copy(limbs.high.begin(), limbs.high.end(), on_host<std::int8_t>(limbs_) + 2 * i * padded_dim_);
    std::copy(limbs.low.begin(), limbs.low.end(), on_host<std::int8_t>(limbs_) + (2 * i + 1) * padded_dim_);
    const std::int8_t* const high = on_device<std::int8_t>(limbs_) + 2 * i * padded_dim_;
    items_[i] = {high,
                 high + padded_dim_,
                 on_device<float>(wholes_) + i * padded_dim_,
                 filters.bits(search.filter, stream),
                 limbs.scale,
                 error_alone(dim, limbs.high.data(), limbs.low.data()),
                 error_together(dim, limbs.high.data(), limbs.low.data()),
                 search.seeds == nullptr ? 0 : search.seeds[columns[i].item],
                 on_device<std::uint32_t>(peaks_) + i,
                 sum};
    on_host<Item>(item_structs_)[i] = items_[i];
    on_host<std::uint32_t>(peaks_)[i] = kNoPeak;
    on_host<std::uint32_t>(counts_)[i] = on_host<std::uint32_t>(kept_)[i] = 0;
    on_host<float>(thresholds_)[i] = -std::numeric_limits<float>::infinity();
    candidates_[i] = {keys + i * capacity_,
                      keys + room + i * capacity_,
                      reinterpret_cast<std::int64_t*>(found_.data()) + i * capacity_,
                      on_device<std::uint32_t>(counts_) + i,
                      on_device<std::uint32_t>(kept_) + i,
                      on_device<float>(thresholds_) + i,
                      capacity_,
                      static_cast<std::uint32_t>(search.k)};
    on_host<Candidates>(structs_)[i] = candidates_[i];
  }
}

ItemBatch ItemRoom::batch(std::size_t first, std::size_t count, bool denominator) const {
  return {on_device<Item>(item_structs_) + first, all_candidates() + first, denominator ? shares(first) : nullptr,
          static_cast<std::uint32_t>(count), blocks_};
}

Candidates ItemRoom::no_candidates() const {
  Candidates none{};
  none.threshold = on_device<float>(none_);
  none.count = on_device<std::uint32_t>(none_) + 1;
  return none;
}

bool ItemRoom::has_plain_scales() const {
  return std::all_of(items_.begin(), items_.end(),
                     [](const Item& item) { return item.scale > 0x1p-60 && item.scale < 0x1p60; });
}

void ItemRoom::clear_shares(std::size_t column, const Stream& stream) {
  Share* const on_our_side = on_host<Share>(shares_) + column * blocks_;
  std::fill_n(on_our_side, blocks_, kNoShare);
  stream.copy(shares(column), on_our_side, blocks_ * sizeof(Share));
}

void ItemRoom::fetch_states(const Stream& stream) {
  stream.copy(host_block_.data() + counts_, device_block_.data() + counts_, bytes_ - counts_);
  stream.finish();
}

bool ItemRoom::fetch_overflowed(std::size_t wave, std::size_t column, const Stream& stream) {
  std::uint8_t* const mark = on_host<std::uint8_t>(overflowed_) + wave * count() + column;
  stream.copy(mark, overflowed(wave) + column, 1);
  stream.finish();
  return *mark != 0;
}

LogSumExp ItemRoom::denominator(std::size_t column) const {
  LogSumExp sum;
  const Share* const shares = on_host<Share>(shares_) + column * blocks_;
  for (unsigned block = 0; block < blocks_; ++block) sum.add(shares[block].m, shares[block].l);
  return sum;
}

std::vector<std::vector<Candidate>> ItemRoom::fetch_users(const Stream& stream) {
  const std::size_t k = most_users_, items = count();
  auto* const ids = reinterpret_cast<std::int64_t*>(fetched_.data());
  auto* const keys = reinterpret_cast<float*>(ids + items * k);
  float* const scores = keys + items * k;
  const auto fetch = [&](auto* to, const auto* from) {
    const std::size_t each = sizeof *to;
    device_.check(device_.driver().copy_rows(to, k * each, from, capacity_ * each, k * each, items, stream.get()),
                  "fetching users");
  };
  fetch(ids, candidates_[0].ids);
  fetch(keys, candidates_[0].keys);
  fetch(scores, candidates_[0].scores);
  stream.copy(on_host<std::uint32_t>(counts_), on_device<std::uint32_t>(counts_), items * sizeof(std::uint32_t));
  stream.finish();
  std::vector<std::vector<Candidate>> users(items);
  for (std::size_t i = 0; i < items; ++i) {
    const std::size_t found = std::min<std::size_t>(on_host<std::uint32_t>(counts_)[i], candidates_[i].k);
    for (std::size_t at = i * k; at < i * k + found; ++at) users[i].push_back({keys[at], scores[at], ids[at]});
  }
  return users;
}

}  // namespace fllm::cuda

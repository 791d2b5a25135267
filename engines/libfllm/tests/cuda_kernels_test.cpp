// The CUDA kernels, on the emulated GPU or a real one: the same ids, keys and scores as the definition, bit for bit.
#include <algorithm>
#include <cmath>
#include <random>

#include "check.hpp"
#include "found_user.hpp"
#include "gpu.hpp"
#include "plane_codes.hpp"
#include "search/gumbel.hpp"

namespace {

using fllm::cuda::Candidates;
using fllm::cuda::Codes;
using fllm::cuda::Item;
using fllm::cuda::Share;
using fllm::cuda::Wave;

struct Case {
  std::size_t rows, dim;
  bool bias, ids, filter, sample;
  int largest = 127;     // of the codes: small ones make ties
  bool doubled = false;  // every id twice
  bool tiny = false;     // scales that leave nothing of a score but its sign
  Codes kind = Codes::int8;

  std::size_t planes() const { return kind == Codes::int4row ? 2 : kind == Codes::int2 ? 1 : 0; }
};

// A table, an item, and room for candidates.
class Trial {
 public:
  Trial(const Gpu& gpu, const Case& wanted, std::uint32_t capacity) : gpu_(gpu), case_(wanted) {
    std::mt19937 random(static_cast<unsigned>(7 * wanted.rows + wanted.dim));
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    for (std::size_t i = 0; i < wanted.rows * wanted.dim; ++i) {
      const int most = wanted.planes() == 2 ? 15 : 3;
      values_.push_back(static_cast<std::int8_t>(wanted.planes() == 0 ? draw(-wanted.largest, wanted.largest)
                                                                      : 2 * draw(0, most) - most));
    }
    codes_.host.assign(values_.begin(), values_.end());
    if (wanted.planes() > 0) codes_.host = plane_codes(wanted.planes(), wanted.dim, values_);
    high_.host.resize(padded());
    low_.host.resize(padded());
    for (std::size_t j = 0; j < wanted.dim; ++j) {
      high_.host[j] = static_cast<std::int8_t>(draw(-64, 63));
      low_.host[j] = static_cast<std::int8_t>(draw(-64, 63));
    }
    for (std::size_t row = 0; row < wanted.rows; ++row) {
      row_scales_.host.push_back(wanted.tiny             ? 0x1p-149f
                                 : wanted.largest == 127 ? 1e-3f * static_cast<float>(draw(1, 1000))
                                                         : 1.0f);
      bias_.host.push_back(static_cast<float>(draw(-1000, 1000)) * 0.25f);
      row_ids_.host.push_back(static_cast<std::int64_t>(3 * (wanted.doubled ? row / 2 : row) + 5)
                              << (row % 2 == 0 || wanted.doubled ? 0 : 33));
    }
    allowed_.host.resize(wanted.rows / 32 + 1);
    for (std::uint32_t& word : allowed_.host) word = random();
    keys_.host.resize(capacity), scores_.host.resize(capacity), ids_.host.resize(capacity);
    codes_.push(), high_.push(), low_.push(), row_scales_.push(), bias_.push(), row_ids_.push(), allowed_.push();
    keys_.push(), scores_.push(), ids_.push(), counts_.push(), threshold_.push();
  }

  Wave wave(std::size_t first, std::size_t rows) const {
    Wave wave{};
    const std::size_t bytes = case_.planes() == 0 ? case_.dim : plane_row_bytes(case_.planes(), case_.dim);
    wave.codes = reinterpret_cast<const std::int8_t*>(codes_.data()) + first * bytes;
    wave.scales = row_scales_.data() + first;
    wave.bias = case_.bias ? bias_.data() + first : nullptr;
    wave.ids = case_.ids ? row_ids_.data() + first : nullptr;
    wave.first_id = static_cast<std::int64_t>(100 + first);
    wave.first_row = first;
    wave.rows = rows;
    wave.dim = static_cast<std::uint32_t>(case_.dim);
    wave.kind = case_.kind;
    return wave;
  }

  Item item() const {
    const std::uint32_t* const allowed = case_.filter ? allowed_.data() : nullptr;
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < case_.dim; ++j) sum += 128 * high_.host[j] + low_.host[j];
    return {high_.data(), low_.data(), nullptr, allowed, kItemScale, 0, 0, kSeed, counts_.data() + kPeak, sum};
  }

  Candidates candidates(unsigned k) const {
    const auto capacity = static_cast<std::uint32_t>(keys_.host.size());
    return {keys_.data(),           scores_.data(),    ids_.data(), counts_.data() + kCount,
            counts_.data() + kKept, threshold_.data(), capacity,    k};
  }

  // Scores rows with some blocks, whose shares are added to `shares` unless it is null.
  void scan(std::size_t first, std::size_t rows, std::vector<Share>* shares, unsigned blocks) {
    Mirrored<Share> added(gpu_, shares == nullptr ? std::vector<Share>() : *shares);
    Share* const there = shares == nullptr ? nullptr : added.push();
    const Wave scanned = wave(first, rows);
    const Item wanted = item();
    const Candidates out = candidates(1);
    gpu_.finish(gpu_.driver().scan_one(&scanned, &wanted, &out, there, case_.sample, blocks, gpu_.stream().get()));
    if (shares != nullptr) added.pull(), *shares = added.host;
    pull();
  }

  // Whether the candidates did not fit.
  bool prune(unsigned k) {
    Mirrored<Candidates> all(gpu_, {candidates(k)});
    Mirrored<std::uint8_t> overflowed(gpu_, {0});
    gpu_.finish(gpu_.driver().prune(all.push(), 1, overflowed.push(), gpu_.stream().get()));
    overflowed.pull();
    pull();
    return overflowed.host[0] != 0;
  }

  std::vector<User> found() const {
    std::vector<User> users;
    for (std::size_t i = 0; i < std::min<std::size_t>(count(), keys_.host.size()); ++i) {
      users.push_back({keys_.host[i], scores_.host[i], ids_.host[i]});
    }
    std::sort(users.begin(), users.end(), ranks_before);
    return users;
  }

  float score(std::size_t row) const {
    std::int64_t sum = 0;
    for (std::size_t j = 0; j < case_.dim; ++j) {
      sum += values_[row * case_.dim + j] * (128 * high_.host[j] + low_.host[j]);
    }
    const double scaled = static_cast<double>(sum) * (static_cast<double>(row_scales_.host[row]) * kItemScale);
    return static_cast<float>(scaled + (case_.bias ? bias_.host[row] : 0.0f));
  }

  // All users that may be returned, best first.
  std::vector<User> expected() const {
    std::vector<User> users;
    for (std::size_t row = 0; row < case_.rows; ++row) {
      if (case_.filter && (allowed_.host[row / 32] >> (row % 32) & 1u) == 0) continue;
      const std::int64_t id = case_.ids ? row_ids_.host[row] : static_cast<std::int64_t>(100 + row);
      double noise = 0.0;
      if (case_.sample) fllm::gumbel(kSeed, &id, 1, &noise);
      users.push_back({static_cast<float>(static_cast<double>(score(row)) + noise), score(row), id});
    }
    std::sort(users.begin(), users.end(), ranks_before);
    return users;
  }

  double logsumexp() const {
    double m = -kInfinity, sum = 0.0;
    for (std::size_t row = 0; row < case_.rows; ++row) m = std::max(m, static_cast<double>(score(row)));
    for (std::size_t row = 0; row < case_.rows; ++row) sum += std::exp(static_cast<double>(score(row)) - m);
    return m + std::log(sum);
  }

  std::uint32_t count() const { return counts_.host[kCount]; }
  float threshold() const { return threshold_.host[0]; }

 private:
  static constexpr double kItemScale = 3.7e-5;
  static constexpr std::uint64_t kSeed = 0x123456789ABCDEFull;

  std::size_t padded() const { return (case_.dim + 15) / 16 * 16; }

  void pull() { keys_.pull(), scores_.pull(), ids_.pull(), counts_.pull(), threshold_.pull(); }

  const Gpu& gpu_;
  Case case_;
  std::vector<std::int8_t> values_;  // [rows, dim]
  Mirrored<std::uint8_t> codes_{gpu_};
  Mirrored<std::int8_t> high_{gpu_}, low_{gpu_};
  Mirrored<float> row_scales_{gpu_}, bias_{gpu_};
  Mirrored<std::int64_t> row_ids_{gpu_};
  Mirrored<std::uint32_t> allowed_{gpu_};
  Mirrored<float> keys_{gpu_}, scores_{gpu_};
  Mirrored<std::int64_t> ids_{gpu_};
  enum : std::size_t { kCount, kKept, kPeak };
  Mirrored<std::uint32_t> counts_{gpu_, {0, 0, 0xFF800000u}};
  Mirrored<float> threshold_{gpu_, {-kInfinity}};
};

double value(const std::vector<Share>& shares) {
  double m = -kInfinity, sum = 0.0;
  for (const Share& share : shares) m = std::max(m, static_cast<double>(share.m));
  for (const Share& share : shares) sum += share.l * std::exp(static_cast<double>(share.m) - m);
  return m + std::log(sum);
}

void every_row_is_scored_as_defined(const Gpu& gpu, const Case& wanted) {
  Trial trial(gpu, wanted, static_cast<std::uint32_t>(wanted.rows));
  std::vector<Share> shares(3, {-kInfinity, 0.0});
  const std::size_t first = wanted.rows / 2 / 16 * 16;  // waves begin with a block
  trial.scan(0, first, &shares, 3);
  trial.scan(first, wanted.rows - first, &shares, 3);
  CHECK(trial.found() == trial.expected());
  CHECK(std::abs(value(shares) - trial.logsumexp()) < 1e-5 * std::max(1.0, std::abs(trial.logsumexp())));
}

// Wave after wave, a pruning after each: the K best of all rows are left.
void waves_leave_the_best(const Gpu& gpu, const Case& wanted, unsigned k) {
  Trial trial(gpu, wanted, 512);
  for (std::size_t first = 0, rows = 256; first < wanted.rows; first += rows) {
    rows = std::min<std::size_t>(256, wanted.rows - first);
    trial.scan(first, rows, nullptr, 2);
    CHECK(trial.count() <= 512);
    CHECK(!trial.prune(k));
  }
  std::vector<User> best = trial.expected();
  best.resize(std::min<std::size_t>(k, best.size()));
  CHECK(trial.found() == best);
  CHECK(best.size() < k || trial.threshold() == best.back().key);
}

// What does not fit is given up, but not what was kept before, and the threshold rises to what is known to be there.
void an_overflow_is_told(const Gpu& gpu, unsigned k) {
  const Case wanted{1000, 64, false, false, false, false};
  Trial trial(gpu, wanted, 200);
  trial.scan(0, 150, nullptr, 2);
  CHECK(!trial.prune(k));
  const std::vector<User> before = trial.found();
  const float low = trial.threshold();
  trial.scan(150, 850, nullptr, 2);
  if (trial.count() <= 200) return;
  CHECK(trial.prune(k));
  CHECK(trial.count() <= before.size() && trial.threshold() >= low);
  const std::vector<User> all = trial.expected();
  for (const User& user : trial.found()) CHECK(std::count(before.begin(), before.end(), user) == 1);
  CHECK(trial.threshold() <= all[k - 1].key);
  // The rows given up are scored again, in parts that fit.
  for (std::size_t first = 150; first < 1000; first += 50) {
    trial.scan(first, 50, nullptr, 2);
    CHECK(!trial.prune(k));
  }
  CHECK(trial.found() == std::vector<User>(all.begin(), all.begin() + k));
}

void fewer_than_k_stay_as_they_are(const Gpu& gpu) {
  const Case wanted{20, 16, true, false, false, false};
  Trial trial(gpu, wanted, 64);
  trial.scan(0, 20, nullptr, 1);
  CHECK(!trial.prune(30));
  CHECK(trial.count() == 20);
  CHECK(trial.threshold() == -kInfinity);
  CHECK(trial.found() == trial.expected());
}

}  // namespace

int main() {
  const Gpu gpu;
  for (const std::size_t dim : {1, 3, 16, 31, 32, 48, 64, 100, 128, 256, 384, 512, 1000, 1024}) {
    every_row_is_scored_as_defined(gpu, {300, dim, dim % 3 == 0, dim % 2 == 0, dim % 5 == 0, false});
  }
  every_row_is_scored_as_defined(gpu, {333, 64, true, true, false, true});
  every_row_is_scored_as_defined(gpu, {333, 40, true, false, true, true});
  every_row_is_scored_as_defined(gpu, {5, 64, false, false, false, false});
  for (const unsigned k : {1u, 7u, 100u, 256u}) {
    waves_leave_the_best(gpu, {1500, 64, true, true, true, false}, k);
    waves_leave_the_best(gpu, {1500, 32, false, false, false, true}, k);
    waves_leave_the_best(gpu, {1500, 16, false, true, false, false, 0}, k);  // all scores are 0: ids decide
    waves_leave_the_best(gpu, {1500, 4, false, true, false, false, 1}, k);
    waves_leave_the_best(gpu, {1500, 4, false, true, false, false, 0, true}, k);
    waves_leave_the_best(gpu, {1500, 4, false, true, false, false, 1, false, true}, k);
  }
  for (const Codes kind : {Codes::int2, Codes::int4row}) {
    const auto in_planes = [kind](Case wanted) {
      wanted.kind = kind;
      return wanted;
    };
    for (const std::size_t dim : {1, 15, 16, 17, 40, 64, 100, 128, 240, 1000, 16384}) {
      every_row_is_scored_as_defined(
          gpu, in_planes({dim > 1000 ? 40u : 333u, dim, dim % 3 == 0, dim % 2 == 0, dim % 5 == 0, false}));
    }
    every_row_is_scored_as_defined(gpu, in_planes({333, 40, true, true, true, true}));
    every_row_is_scored_as_defined(gpu, in_planes({5, 64, false, false, false, false}));
    waves_leave_the_best(gpu, in_planes({1500, 40, true, true, true, false}), 100);
    waves_leave_the_best(gpu, in_planes({1500, 4, false, true, false, false, 1}), 7);
  }
  for (const unsigned k : {1u, 60u, 140u}) an_overflow_is_told(gpu, k);
  fewer_than_k_stay_as_they_are(gpu);
  return check::result();
}

// The scan for many items, on the emulated GPU or a real one and on rows of every codec: of all rows that reach an
// item's threshold the same scores as the definition, bit for bit. Thresholds are scores of rows, so that the least
// error shows.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>

#include "check.hpp"
#include "cuda/host/item_error.hpp"
#include "found_user.hpp"
#include "gpu.hpp"
#include "plane_codes.hpp"

namespace {

using fllm::cuda::Candidates;
using fllm::cuda::Codes;
using fllm::cuda::Item;
using fllm::cuda::ItemBatch;
using fllm::cuda::Share;
using fllm::cuda::Wave;

enum class Pattern {
  any,         // of all codes
  largest,     // 448 and -448, or those of planes
  mixed,       // 448 and numbers below the normal ones, of both signs
  subnormal,   // the least alone
  few_values,  // 0 and 1: many ties
};

struct Case {
  Codes kind;
  std::size_t rows, dim, items;
  Pattern pattern = Pattern::any;
  float bias = 0;  // the largest magnitude; 0: none

  std::size_t planes() const { return kind == Codes::int4row ? 2 : kind == Codes::int2 ? 1 : 0; }
  std::size_t padded() const { return (dim + 15) / 16 * 16; }
};

double e4m3_value(unsigned code) {
  const int exponent = static_cast<int>(code >> 3 & 15u), mantissa = static_cast<int>(code & 7u);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80u ? -magnitude : magnitude;
}

// As cuda/order.cuh writes a peak.
std::uint32_t descending(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0f);
  return bits & 0x80000000u ? bits : 0x7FFFFFFFu - bits;
}

// A table, items, and room for all rows as everybody's candidates.
class Trial {
 public:
  Trial(const Gpu& gpu, const Case& wanted) : gpu_(gpu), case_(wanted) {
    for (std::size_t i = 0; i < wanted.rows * wanted.dim; ++i) stored_.push_back(code());
    codes_.host.assign(stored_.begin(), stored_.end());
    if (wanted.planes() > 0) codes_.host = plane_codes(wanted.planes(), wanted.dim, stored_);
    limbs_.host.resize(2 * wanted.items * wanted.padded());
    for (std::size_t row = 0; row < case_.rows; ++row) {
      row_scales_.host.push_back(case_.pattern == Pattern::few_values ? 1.0f
                                                                      : 1e-3f * static_cast<float>(draw(1, 1000)));
      bias_.host.push_back(case_.bias * 1e-3f * static_cast<float>(draw(-1000, 1000)));
    }
    allowed_.host.resize(case_.rows / 32 + 1);
    for (std::uint32_t& word : allowed_.host) word = random_();
    for (std::size_t item = 0; item < case_.items; ++item) draw_item(item);
  }

  void matches_the_definition() {
    std::uint32_t together = 0;
    gpu_.finish(gpu_.driver().most_items(case_.kind, static_cast<std::uint32_t>(case_.dim), &together));
    if (together < case_.items) {
      std::printf("not run: %zu items of %zu numbers do not go together on this GPU\n", case_.items, case_.dim);
      return;
    }
    std::vector<std::vector<User>> expected;
    for (std::size_t item = 0; item < case_.items; ++item) expected.push_back(prepare(item));
    scan();
    for (std::size_t item = 0; item < case_.items; ++item) {
      CHECK(found(item) == expected[item]);
      CHECK(std::abs(value(item) - sums_[item]) < 1e-5 * std::max(1.0, std::abs(sums_[item])));
    }
  }

 private:
  static constexpr unsigned kBlocks = 3;
  static constexpr double kItemScale = 3.7e-6;

  int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  std::int8_t code() {
    if (case_.kind == Codes::int8) return static_cast<std::int8_t>(draw(-127, 127));
    if (case_.planes() > 0) {
      const int most = case_.planes() == 2 ? 15 : 3, step = case_.pattern == Pattern::largest ? most : 1;
      return static_cast<std::int8_t>(2 * step * draw(0, most / step) - most);
    }
    const int sign = draw(0, 1) << 7;
    const auto of = [&](int magnitude) { return static_cast<std::int8_t>(sign | magnitude); };
    switch (case_.pattern) {
      case Pattern::any: return of(draw(0, 126));
      case Pattern::largest: return of(126);
      case Pattern::mixed: return of(draw(0, 1) == 0 ? 126 : draw(0, 7));
      case Pattern::subnormal: return of(draw(0, 7));
      default: return static_cast<std::int8_t>(draw(0, 1) == 0 ? 0 : 56);
    }
  }

  // All zeros, one number alone, the largest numbers, those of the worst limbs, numbers of all sizes.
  int whole(std::size_t item, std::size_t column) {
    if (case_.pattern == Pattern::few_values) return draw(-1, 1);
    switch (item % 7) {
      case 0: return 0;
      case 1: return column == 5 ? 1 : 0;
      case 2: return draw(0, 1) == 0 ? 8127 : -8127;
      case 3: return draw(0, 1) == 0 ? 65 : -65;
      default: return draw(-8127, 8127) >> draw(0, 12);
    }
  }

  void draw_item(std::size_t item) {
    for (std::size_t j = 0; j < case_.dim; ++j) {
      const int value = whole(item, j), high = (value + 64) >> 7;
      limb(item, 0)[j] = static_cast<std::int8_t>(high);
      limb(item, 1)[j] = static_cast<std::int8_t>(value - 128 * high);
    }
  }
  std::int8_t* limb(std::size_t item, std::size_t number) {
    return limbs_.host.data() + (2 * item + number) * case_.padded();
  }

  float score(std::size_t item, std::size_t row) {
    double sum = 0;  // of multiples of 2^-9 below 2^42: exact
    for (std::size_t j = 0; j < case_.dim; ++j) {
      const std::int8_t stored = stored_[row * case_.dim + j];
      const double code = case_.kind == Codes::fp8 ? e4m3_value(static_cast<std::uint8_t>(stored)) : stored;
      sum += code * (128 * limb(item, 0)[j] + limb(item, 1)[j]);
    }
    return static_cast<float>(sum * (static_cast<double>(row_scales_.host[row]) * kItemScale) + bias_.host[row]);
  }
  bool is_filtered(std::size_t item) const { return item % 5 == 4; }

  // What must be found for an item; its threshold is the score of the row that comes twelfth, or takes all rows.
  std::vector<User> prepare(std::size_t item) {
    std::vector<User> users;
    float peak = -kInfinity;
    double sum = 0;
    for (std::size_t row = 0; row < case_.rows; ++row) {
      users.push_back({score(item, row), 0, static_cast<std::int64_t>(100 + row)});
      users.back().score = users.back().key;
      peak = std::max(peak, users.back().score);
    }
    for (const User& user : users) sum += std::exp(static_cast<double>(user.score) - peak);
    sums_.push_back(peak + std::log(sum));
    peaks_.host.push_back(descending(peak));
    std::sort(users.begin(), users.end(), ranks_before);
    thresholds_.host.push_back(item % 11 == 10 ? -kInfinity : users[std::min<std::size_t>(11, users.size() - 1)].key);
    std::erase_if(users, [&](const User& user) {
      const auto row = static_cast<std::size_t>(user.id - 100);
      return user.key < thresholds_.host.back() ||
             (is_filtered(item) && (allowed_.host[row / 32] >> (row % 32) & 1u) == 0);
    });
    return users;
  }

  void scan() {
    Wave wave{};
    wave.codes = reinterpret_cast<const std::int8_t*>(codes_.push());
    wave.scales = row_scales_.push();
    wave.bias = case_.bias > 0 ? bias_.push() : nullptr;
    wave.first_id = 100;
    wave.rows = case_.rows;
    wave.dim = static_cast<std::uint32_t>(case_.dim);
    wave.most_bias = case_.bias;
    wave.kind = case_.kind;
    const std::size_t room = case_.items * case_.rows;
    keys_.host.resize(room), scores_.host.resize(room), ids_.host.resize(room);
    counts_.host.resize(case_.items);
    shares_.host.assign(case_.items * kBlocks, {-kInfinity, 0.0});
    keys_.push(), scores_.push(), ids_.push(), counts_.push(), limbs_.push();
    allowed_.push(), peaks_.push(), thresholds_.push();
    Mirrored<Item> items(gpu_);
    Mirrored<Candidates> candidates(gpu_);
    for (std::size_t i = 0; i < case_.items; ++i) {
      const std::int8_t* const high = limbs_.data() + 2 * i * case_.padded();
      items.host.push_back(
          {high, high + case_.padded(), nullptr, is_filtered(i) ? allowed_.data() : nullptr, kItemScale,
           fllm::cuda::error_alone(case_.dim, limb(i, 0), limb(i, 1)),
           fllm::cuda::error_together(case_.dim, limb(i, 0), limb(i, 1)), 0, peaks_.data() + i,
           128 * std::accumulate(limb(i, 0), limb(i, 1), 0) + std::accumulate(limb(i, 1), limb(i + 1, 0), 0)});
      const std::size_t at = i * case_.rows;
      candidates.host.push_back({keys_.data() + at, scores_.data() + at, ids_.data() + at, counts_.data() + i, nullptr,
                                 thresholds_.data() + i, static_cast<std::uint32_t>(case_.rows), 12});
    }
    const ItemBatch batch{items.push(), candidates.push(), shares_.push(), static_cast<std::uint32_t>(case_.items),
                          kBlocks};
    gpu_.finish(gpu_.driver().scan_many(&wave, &batch, kBlocks, gpu_.stream().get()));
    keys_.pull(), scores_.pull(), ids_.pull(), counts_.pull(), shares_.pull();
  }

  std::vector<User> found(std::size_t item) const {
    std::vector<User> users;
    for (std::size_t i = item * case_.rows; i < item * case_.rows + counts_.host[item]; ++i) {
      users.push_back({keys_.host[i], scores_.host[i], ids_.host[i]});
    }
    std::sort(users.begin(), users.end(), ranks_before);
    return users;
  }

  double value(std::size_t item) const {
    double m = -kInfinity, sum = 0.0;
    const Share* const shares = &shares_.host[item * kBlocks];
    for (unsigned b = 0; b < kBlocks; ++b) m = std::max(m, static_cast<double>(shares[b].m));
    for (unsigned b = 0; b < kBlocks; ++b) sum += shares[b].l * std::exp(static_cast<double>(shares[b].m) - m);
    return m + std::log(sum);
  }

  const Gpu& gpu_;
  Case case_;
  std::mt19937 random_{41};
  std::vector<std::int8_t> stored_;  // codes of eight bits, or values: [rows, dim]
  Mirrored<std::uint8_t> codes_{gpu_};
  Mirrored<std::int8_t> limbs_{gpu_};
  Mirrored<float> row_scales_{gpu_}, bias_{gpu_};
  Mirrored<std::uint32_t> allowed_{gpu_}, peaks_{gpu_}, counts_{gpu_};
  Mirrored<float> thresholds_{gpu_}, keys_{gpu_}, scores_{gpu_};
  Mirrored<std::int64_t> ids_{gpu_};
  Mirrored<Share> shares_{gpu_};
  std::vector<double> sums_;
};

}  // namespace

int main() {
  const Gpu gpu;
  for (const Codes kind : {Codes::int8, Codes::fp8, Codes::int2, Codes::int4row}) {
    for (const std::size_t dim : {16, 48, 64, 80, 256, 1024}) Trial(gpu, {kind, 200, dim, 12}).matches_the_definition();
    Trial(gpu, {kind, 300, 64, 40}).matches_the_definition();
    Trial(gpu, {kind, 300, 80, 100}).matches_the_definition();
    Trial(gpu, {kind, 150, 128, 128, Pattern::any, 10}).matches_the_definition();
    Trial(gpu, {kind, 5, 32, 3, Pattern::any, 1e6f}).matches_the_definition();
  }
  for (const Codes kind : {Codes::int2, Codes::int4row}) {
    for (const std::size_t dim : {1, 17, 40, 63, 100}) Trial(gpu, {kind, 201, dim, 12}).matches_the_definition();
    Trial(gpu, {kind, 201, 256, 12, Pattern::largest}).matches_the_definition();
    Trial(gpu, {kind, 333, 40, 128, Pattern::any, 10}).matches_the_definition();
    Trial(gpu, {kind, 700, 20, 33, Pattern::few_values}).matches_the_definition();
  }
  for (const Pattern pattern : {Pattern::largest, Pattern::mixed, Pattern::subnormal, Pattern::few_values}) {
    Trial(gpu, {Codes::fp8, 200, 64, 70, pattern}).matches_the_definition();
    Trial(gpu, {Codes::fp8, 300, 512, 14, pattern, 1e5f}).matches_the_definition();
  }
  return check::result();
}

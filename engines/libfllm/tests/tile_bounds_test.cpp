// Bounds of tiles against the scores of their rows, on every level; the order of tiles; extents that say nothing.
#include "search/tile_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "check.hpp"
#include "machine/cpu.hpp"
#include "shard_writer.hpp"

namespace {

constexpr std::size_t kRows = 700, kDim = 37, kTileRows = 64, kTiles = 11;

struct Rows {
  std::vector<std::int8_t> codes;
  std::vector<float> scales;
};

// Rows around a direction of their tile's own.
Rows draw_rows() {
  std::mt19937 generator(7);
  std::normal_distribution<float> normal;
  Rows rows{std::vector<std::int8_t>(kRows * kDim), std::vector<float>(kRows)};
  std::vector<float> center(kDim);
  for (std::size_t r = 0; r < kRows; ++r) {
    if (r % kTileRows == 0) std::generate(center.begin(), center.end(), [&] { return 40 * normal(generator); });
    for (std::size_t j = 0; j < kDim; ++j) {
      rows.codes[r * kDim + j] =
          static_cast<std::int8_t>(std::clamp(center[j] + 15 * normal(generator), -127.0f, 127.0f));
    }
    rows.scales[r] = std::exp(normal(generator));
  }
  return rows;
}

double value(const Rows& rows, std::size_t r, std::size_t j) {
  return static_cast<double>(rows.codes[r * kDim + j]) * static_cast<double>(rows.scales[r]);
}

struct Bounds {
  std::vector<float> directions, extents;
};

// By the definition, rounded outwards by a good deal.
Bounds describe(const Rows& rows) {
  Bounds bounds{std::vector<float>(kTiles * kDim), std::vector<float>(kTiles * fllm::kTileExtents)};
  for (std::size_t t = 0; t < kTiles; ++t) {
    const std::size_t first = t * kTileRows, last = std::min(kRows, first + kTileRows);
    std::vector<double> mean(kDim, 0.0);
    double length = 0, low = 1e300, high = -1e300, rest = 0;
    for (std::size_t r = first; r < last; ++r) {
      for (std::size_t j = 0; j < kDim; ++j) mean[j] += value(rows, r, j);
    }
    for (const double number : mean) length += number * number;
    float* const direction = bounds.directions.data() + t * kDim;
    for (std::size_t j = 0; j < kDim; ++j) direction[j] = static_cast<float>(mean[j] / std::sqrt(length));
    for (std::size_t r = first; r < last; ++r) {
      double along = 0, squares = 0;
      for (std::size_t j = 0; j < kDim; ++j) along += value(rows, r, j) * static_cast<double>(direction[j]);
      for (std::size_t j = 0; j < kDim; ++j) {
        squares += std::pow(value(rows, r, j) - along * static_cast<double>(direction[j]), 2);
      }
      low = std::min(low, along), high = std::max(high, along), rest = std::max(rest, std::sqrt(squares));
    }
    float* const extents = bounds.extents.data() + t * fllm::kTileExtents;
    const double slack = 1e-6 * (std::abs(low) + std::abs(high) + rest);
    extents[0] = static_cast<float>(low - slack), extents[1] = static_cast<float>(high + slack);
    extents[2] = static_cast<float>(rest + slack), extents[3] = 0;
  }
  return bounds;
}

void write_table(const writer::Directory& directory, const Rows& rows, const Bounds& bounds) {
  std::vector<std::int64_t> ids(kRows);
  for (std::size_t r = 0; r < kRows; ++r) ids[r] = static_cast<std::int64_t>(r);
  directory.write(writer::shard_name(0),
                  writer::shard_of({{"codes", "I8", {kRows, kDim}, writer::bytes_of(rows.codes)},
                                    {"scales", "F32", {kRows}, writer::bytes_of(rows.scales)},
                                    {"ids", "I64", {kRows}, writer::bytes_of(ids)},
                                    {"tile_directions", "F32", {kTiles, kDim}, writer::bytes_of(bounds.directions)},
                                    {"tile_extents", "F32", {kTiles, 4}, writer::bytes_of(bounds.extents)}}));
  writer::Json json = writer::table_json({kRows}, kDim, kTileRows);
  json["tile_bounds"] = true;
  directory.write("table.json", json.dump());
}

std::vector<float> draw_items(std::size_t count) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  std::vector<float> z(count * kDim);
  std::generate(z.begin(), z.end(), [&] { return normal(generator); });
  return z;
}

std::vector<fllm::Column> columns_of(const fllm::Search& search) {
  std::vector<fllm::Column> columns;
  for (std::size_t i = 0; i < search.items; ++i) columns.push_back({&search, i});
  return columns;
}

// The best score of a tile, of the numbers that the engine multiplies.
float best_score(const Rows& rows, const float* z, std::size_t tile) {
  const std::vector<double> item = fllm::as_scored(fllm::Codec::int8, z, kDim);
  double best = -1e300;
  for (std::size_t r = tile * kTileRows; r < std::min(kRows, (tile + 1) * kTileRows); ++r) {
    double sum = 0;
    for (std::size_t j = 0; j < kDim; ++j) sum += value(rows, r, j) * item[j];
    best = std::max(best, sum);
  }
  return static_cast<float>(best);
}

double norm(const float* z) {
  double squares = 0;
  for (std::size_t j = 0; j < kDim; ++j) squares += static_cast<double>(z[j]) * static_cast<double>(z[j]);
  return std::sqrt(squares);
}

double longest_row(const Rows& rows, std::size_t tile) {
  double longest = 0;
  for (std::size_t r = tile * kTileRows; r < std::min(kRows, (tile + 1) * kTileRows); ++r) {
    double squares = 0;
    for (std::size_t j = 0; j < kDim; ++j) squares += std::pow(value(rows, r, j), 2);
    longest = std::max(longest, std::sqrt(squares));
  }
  return longest;
}

void bounds_hold_and_order(const fllm::Table& table, const Rows& rows, const fllm::kernels::Kernels& kernels) {
  fllm::Pool pool(2, false);
  for (const std::size_t items : {1, 3, 20, 130}) {
    const std::vector<float> z = draw_items(items);
    const fllm::Search search{z.data(), items, 10};
    fllm::TileBounds bounds(table, kernels, columns_of(search), pool);
    double uppers = 0, products = 0;  // of bounds, and of the norms of item and longest row
    for (std::size_t item = 0; item < items; ++item) {
      for (std::size_t tile = 0; tile < kTiles; ++tile) {
        const float best = best_score(rows, z.data() + item * kDim, tile);
        CHECK(best <= bounds.upper(tile, item));
        uppers += std::abs(bounds.upper(tile, item));
        products += longest_row(rows, tile) * norm(z.data() + item * kDim);
      }
    }
    CHECK(uppers < 0.8 * products);
    std::vector<std::size_t> order = bounds.order(pool);
    if (items == 1) {
      // The bound of each tile is near enough here for the best one to be among the first.
      float best = -std::numeric_limits<float>::infinity();
      for (std::size_t tile = 0; tile < kTiles; ++tile) best = std::max(best, best_score(rows, z.data(), tile));
      const auto found = std::find_if(order.begin(), order.end(),
                                      [&](std::size_t tile) { return best_score(rows, z.data(), tile) == best; });
      CHECK(found - order.begin() < 4);
    }
    std::sort(order.begin(), order.end());
    for (std::size_t tile = 0; tile < kTiles; ++tile) CHECK(order.size() == kTiles && order[tile] == tile);
  }
}

void extents_that_are_no_numbers_rule_nothing_out(const Rows& rows, Bounds bounds) {
  const float infinity = std::numeric_limits<float>::infinity();
  bounds.extents[2] = std::numeric_limits<float>::quiet_NaN();
  bounds.extents[4 + 1] = infinity;
  std::fill_n(bounds.directions.begin() + 2 * kDim, kDim, 3e38f);
  bounds.directions[3 * kDim] = -std::numeric_limits<float>::quiet_NaN();
  const writer::Directory directory;
  write_table(directory, rows, bounds);
  const fllm::Table table(directory.path());
  fllm::Pool pool(1, false);
  for (const std::size_t items : {1, 20}) {
    const std::vector<float> z(items * kDim, 2.0f);
    const fllm::Search search{z.data(), items, 10};
    fllm::TileBounds found(table, *fllm::kernels::find(""), columns_of(search), pool);
    for (std::size_t tile = 0; tile < 4; ++tile) CHECK(found.upper(tile, 0) == infinity);
    CHECK(found.order(pool).size() == kTiles);
  }
}

}  // namespace

int main() {
  const Rows rows = draw_rows();
  const Bounds bounds = describe(rows);
  const writer::Directory directory;
  write_table(directory, rows, bounds);
  const fllm::Table table(directory.path());
  for (const std::string& isa : fllm::cpu_levels())
    bounds_hold_and_order(table, rows, *fllm::kernels::find(isa.c_str()));
  extents_that_are_no_numbers_rule_nothing_out(rows, bounds);
  return check::result();
}

// Tables and comparisons for tests of whole engines.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fllm/fllm.hpp>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "plane_codes.hpp"
#include "shard_writer.hpp"

namespace engine_cases {

inline constexpr std::uint64_t kDim = 32;

// A table of random rows whose scores for most items rise or fall along the rows when `slope` is not 0.
class RandomTable {
 public:
  struct Kind {
    std::vector<std::uint64_t> shard_rows;
    bool bias = false, ids = false;  // ids that do not count up
    int slope = 0;
    bool fp8 = false;
    std::uint64_t distinct = 0;  // rows that differ, with all that belongs to them; 0: all
    bool alike = false;          // one row all along, scaled by the next float up in the last tenth
    std::size_t planes = 0;      // of two bits: 1 makes the codec int2, 2 int4row
  };

  explicit RandomTable(const Kind& kind) {
    std::mt19937 random(17);
    writer::Json json = writer::table_json(kind.shard_rows, kDim, 512);
    json["bias"] = kind.bias;
    if (kind.fp8) json["codec"] = "fp8";
    if (kind.planes > 0) json["codec"] = kind.planes == 1 ? "int2" : "int4row";
    std::uint64_t all = 0, row = 0;
    for (const std::uint64_t rows : kind.shard_rows) all += rows;
    for (std::size_t shard = 0; shard < kind.shard_rows.size(); ++shard) {
      const std::uint64_t rows = kind.shard_rows[shard];
      std::vector<std::int8_t> codes(rows * kDim);
      std::vector<float> scales(rows), bias(rows);
      std::vector<std::int64_t> ids(rows);
      for (std::uint64_t r = 0; r < rows; ++r, ++row) {
        for (std::uint64_t j = 0; j < kDim; ++j) {
          const unsigned number = random();
          codes[r * kDim + j] = kind.fp8 ? e4m3(number) : kind.planes > 0 ? odd(number, kind.planes) : int8(number);
        }
        scales[r] = 1e-4f * static_cast<float>(1 + random() % 100);
        const double part = static_cast<double>(row) / static_cast<double>(all);
        if (kind.alike) {
          for (std::uint64_t j = 0; j < kDim; ++j) codes[r * kDim + j] = varied(j);
          scales[r] = part < 0.9 ? 1.0f : std::nextafter(1.0f, 2.0f);
        }
        bias[r] = static_cast<float>(kind.slope * 100.0 * part) + static_cast<float>(random() % 64) * 0.25f;
        if (kind.distinct > 0 && r >= kind.distinct) {
          const std::uint64_t same = r % kind.distinct;
          std::copy_n(codes.begin() + static_cast<std::ptrdiff_t>(same * kDim), kDim,
                      codes.begin() + static_cast<std::ptrdiff_t>(r * kDim));
          scales[r] = scales[same];
          bias[r] = bias[same];
        }
        ids[r] = static_cast<std::int64_t>(kind.ids ? 1000000 + 3 * row + row / 700 : 50 + row);
        // Equal rows of later shards win.
        if (kind.distinct > 0) ids[r] = static_cast<std::int64_t>(1000000 * (kind.shard_rows.size() - shard) + r);
      }
      std::vector<writer::Piece> pieces = {codes_piece(kind, rows, codes),
                                           {"scales", "F32", {rows}, writer::bytes_of(scales)}};
      if (kind.bias) pieces.push_back({"bias", "F32", {rows}, writer::bytes_of(bias)});
      pieces.push_back({"ids", "I64", {rows}, writer::bytes_of(ids)});
      directory_.write(writer::shard_name(shard), writer::shard_of(pieces));
    }
    directory_.write("table.json", json.dump());
    rows_ = all;
  }

  fllm::Table open(fllm::TableOptions options) const {
    options.threads = 2;
    return fllm::Table(directory_.path(), options);
  }
  const writer::Directory& directory() const { return directory_; }
  std::uint64_t rows() const { return rows_; }

 private:
  static std::int8_t int8(unsigned number) { return static_cast<std::int8_t>(static_cast<int>(number % 255) - 127); }
  static std::int8_t odd(unsigned number, std::size_t planes) {
    return static_cast<std::int8_t>(planes == 1 ? 2 * static_cast<int>(number % 4) - 3
                                                : 2 * static_cast<int>(number % 16) - 15);
  }
  static writer::Piece codes_piece(const Kind& kind, std::uint64_t rows, const std::vector<std::int8_t>& codes) {
    if (kind.planes == 0) return {"codes", kind.fp8 ? "F8_E4M3" : "I8", {rows, kDim}, writer::bytes_of(codes)};
    std::vector<std::uint64_t> shape = {(rows + 15) / 16, kDim / 16, 64};
    if (kind.planes == 2) shape.insert(shape.begin() + 1, 2);
    return {"codes", "U8", shape, writer::bytes_of(plane_codes(kind.planes, kDim, codes))};
  }
  static std::int8_t e4m3(unsigned number) {
    return static_cast<std::int8_t>((number & 127u) == 127u ? 0 : number & 255u);  // 127 is no number
  }

  // e4m3 numbers of all sizes and both signs.
  static std::int8_t varied(std::uint64_t j) { return static_cast<std::int8_t>(37 * j % 127 + j % 2 * 128); }

  writer::Directory directory_;
  std::uint64_t rows_ = 0;
};

inline std::vector<float> item_vectors(std::size_t items) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> z(items * kDim);
  for (float& x : z) x = normal(random);
  return z;
}

inline void same_answer(const fllm::Answer& found, const fllm::Answer& expected, double tolerance = 1e-5) {
  CHECK(found.user_ids == expected.user_ids);
  CHECK(found.keys == expected.keys);
  CHECK(found.scores == expected.scores);
  CHECK(found.rows_scored == expected.rows_scored);
  CHECK(found.complete == expected.complete);
  for (std::size_t i = 0; i < found.items; ++i) {
    CHECK(found.log_probs_exact[i] == expected.log_probs_exact[i]);
    CHECK(std::isnan(found.logsumexp[i]) == std::isnan(expected.logsumexp[i]));
    CHECK(!(std::abs(found.logsumexp[i] - expected.logsumexp[i]) > tolerance * std::abs(expected.logsumexp[i])));
  }
}

inline fllm_status status_of(const std::function<void()>& work, const std::string& words) {
  try {
    work();
  } catch (const fllm::Error& error) {
    if (std::string(error.what()).find(words) == std::string::npos) std::fprintf(stderr, "%s\n", error.what());
    CHECK(std::string(error.what()).find(words) != std::string::npos);
    return error.status();
  }
  return FLLM_OK;
}

}  // namespace engine_cases

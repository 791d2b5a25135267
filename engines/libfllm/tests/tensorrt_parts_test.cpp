// The parts of the engine `tensorrt`: items as limbs, plan headers, a table as tiles, what is made of a plan's answer,
// and the plan driver over the full TensorRT.
#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "cuda/host/library.hpp"
#include "directory.hpp"
#include "refusal.hpp"
#include "tensorrt/emulation/plan_file.hpp"
#include "tensorrt/host/item_search.hpp"
#include "tensorrt/host/plan.hpp"
#include "tensorrt/host/plan_header.hpp"
#include "tensorrt/host/plan_table.hpp"

using namespace fllm;
using namespace fllm::tensorrt;

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Tiles of int8 or fp8 rows that lie in memory.
struct MemoryTable {
  explicit MemoryTable(Codec codec, std::vector<std::uint64_t> tile_rows, std::size_t dim, bool bias) {
    const std::uint64_t rows = std::accumulate(tile_rows.begin(), tile_rows.end(), std::uint64_t{0});
    layout.codec = codec;
    layout.dim = dim;
    layout.rows = rows;
    layout.bias = bias;
    for (std::uint64_t i = 0; i < rows * dim; ++i) codes.push_back(static_cast<std::uint8_t>(i * 37 % 120));
    for (std::uint64_t row = 0; row < rows; ++row) {
      scales.push_back(0.5f + static_cast<float>(row % 5));
      biases.push_back(static_cast<float>(row % 9) - 4.0f);
      ids.push_back(static_cast<std::int64_t>(row));
    }
    std::uint64_t first = 0;
    for (const std::uint64_t count : tile_rows) {
      Tile tile;
      tile.rows = count;
      tile.first_row = first;
      tile.codes = codes.data() + first * dim;
      tile.scales = scales.data() + first;
      tile.bias = bias ? biases.data() + first : nullptr;
      tile.ids = ids.data() + first;
      tiles.push_back(tile);
      first += count;
    }
  }

  cuda::Rows rows() const { return {layout, tiles}; }

  Layout layout;
  std::vector<std::uint8_t> codes;
  std::vector<float> scales, biases;
  std::vector<std::int64_t> ids;
  std::vector<Tile> tiles;
};

void limbs_are_balanced() {
  const std::size_t dim = 8127 * 2 + 1;
  std::vector<float> z(dim);
  for (std::size_t j = 0; j < dim; ++j) z[j] = static_cast<float>(static_cast<int>(j) - 8127);
  const WholeItem whole(Codec::int8, z.data(), dim), fp8(Codec::fp8, z.data(), dim);
  CHECK(whole.limb_count == 2 && fp8.limb_count == 3 && whole.scale == 1.0);
  for (std::size_t j = 0; j < dim; ++j) {
    const float *two = whole.limbs.data() + j, *three = fp8.limbs.data() + j;
    CHECK(whole.whole[j] == static_cast<int>(j) - 8127);
    CHECK(128 * two[0] + two[dim] == z[j] && std::abs(two[0]) <= 64 && two[dim] >= -64 && two[dim] <= 63);
    CHECK(1024 * three[0] + 32 * three[dim] + three[2 * dim] == z[j]);
    for (std::size_t limb = 1; limb < 3; ++limb) CHECK(three[limb * dim] >= -16 && three[limb * dim] <= 15);
    CHECK(std::abs(three[0]) <= 8);
  }
  CHECK(allowance(whole, 1.0) > 0 && std::isinf(allowance(whole, std::numeric_limits<double>::infinity())));
  for (float& x : z) x *= 1e-30f;
  CHECK(std::isinf(allowance(WholeItem(Codec::int8, z.data(), dim), 1.0)));
}

void headers_are_read() {
  emulation::HeadPlan head;
  head.dim = head.k = 4;
  const std::string plan = emulation::written(head);
  const LibraryFacts rtx{"tensorrt_rtx", {1, 7, 1, 116}}, full{"tensorrt", {11, 0, 0, 1}};
  check_header("p", plan, rtx, "sm80");
  check_header("p", "anything else", full, "sm90");
  REFUSED(check_header("p", plan, rtx, "sm90"), Status::hardware, "was built for sm80; expected sm90, the GPU here");
  REFUSED(check_header("p", plan, full, "sm80"), Status::hardware,
          "p was built by tensorrt_rtx 1.7.1.116; expected tensorrt 11.0.0.1, which libfllm_tensorrt was built with");
}

void full_tensorrt_runs_its_plans(const cuda::Device& device) {
  std::string path = std::getenv("FLLM_TENSORRT_LIBRARY");
  path.replace(path.rfind("fllm_tensorrt_"), 14, "fllm_full_tensorrt_");
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const auto driver = reinterpret_cast<const PlanDriver* (*)()>(dlsym(library, kPlanDriverSymbol));
  LibraryFacts facts{};
  driver()->describe_library(&facts);
  CHECK(library_name(facts) == "tensorrt 11.0.0.1");
  emulation::HeadPlan head;
  head.dim = 16;
  head.k = 7;
  head.profiles = {{1, 1, 1024, 4096}, {1, 6, 2048, 3000}};
  const writer::Directory directory;
  emulation::Header unmarked;
  unmarked.magic[0] = 'x';
  directory.write("head.plan", emulation::written(head, unmarked));
  const MemoryTable table(Codec::int8, {10}, 16, false);
  const Plan plan(*driver(), device, directory.path("head.plan"), table.layout);
  CHECK(plan.k() == 7 && plan.most_batch() == 6 && plan.limbs() == 2 && !plan.has_bias());
  CHECK(plan.least_rows() == 2048 && plan.most_rows(1) == 4096 && plan.most_rows(6) == 2048 && plan.most_rows(7) == 0);
  CHECK(plan.profile(1, 4096) == 0 && plan.profile(3, 2048) == 1);
  directory.write("head.plan", emulation::written(head));
  REFUSED(Plan(*driver(), device, directory.path("head.plan"), table.layout), Status::hardware, "expected tensorrt 11");
}

std::vector<std::uint8_t> fetched(const cuda::Stream& stream, const std::uint8_t* from, std::size_t bytes) {
  std::vector<std::uint8_t> there(bytes);
  stream.copy(there.data(), from, bytes);
  stream.finish();
  return there;
}

// Whether a block lies in the GPU's memory as in the table, and zeros behind it.
void lies_as_it_should(const MemoryTable& table, const Block& block, const BlockAddresses& at,
                       const cuda::Stream& stream) {
  const std::size_t dim = table.layout.dim, size = sizeof(float);
  const auto same = [&](const std::uint8_t* from, const void* own, std::size_t each) {
    std::vector<std::uint8_t> expected(block.rows * each);
    std::copy_n(static_cast<const std::uint8_t*>(own) + block.first * each, block.valid * each, expected.begin());
    return fetched(stream, from, block.rows * each) == expected;
  };
  CHECK(same(at.codes, table.codes.data(), dim));
  CHECK(same(at.scales, table.scales.data(), size));
  CHECK((at.bias != nullptr) == table.layout.bias);
  if (at.bias != nullptr) CHECK(same(at.bias, table.biases.data(), size));
}

void tables_are_tiled(const cuda::Device& device, Codec codec, bool bias, std::uint64_t bytes) {
  const MemoryTable table(codec, {300, 5, 1200, 700}, 24, bias);
  const PlanTable tiled(device, table.rows(), *kernels::find(""), {128, 384, bytes});
  CHECK((tiled.streamed_blocks() > 0) == (bytes < 100000));
  const cuda::Stream stream(device);
  std::uint64_t next = 0;
  for (const Block& block : tiled.blocks(512)) {
    CHECK(block.first == next && block.valid > 0 && block.rows % 128 == 0 && block.rows <= 512);
    next += block.valid;
    lies_as_it_should(table, block, tiled.bring(block, block.first / 128 % 2, stream), stream);
    const Block part{block.first + 128, 128,
                     std::min<std::uint64_t>(128, block.valid - std::min<std::uint64_t>(block.valid, 128))};
    if (part.valid > 0) lies_as_it_should(table, part, tiled.bring(part, 1, stream), stream);
    double reach = 0, most_bias = 0;
    const ExactRows exact(table.rows());
    for (std::uint64_t row = block.first; row < block.first + block.valid; ++row) {
      double squares = 0;
      for (std::size_t j = 0; j < table.layout.dim; ++j) {
        // The score of a row for a unit vector is the number itself.
        std::vector<float> unit(table.layout.dim);
        unit[j] = 1;
        if (row % 97 != 0) break;
        const double score = exact.score(row, WholeItem(codec, unit.data(), unit.size())).score;
        squares += std::pow(score - (bias ? table.biases[row] : 0.0), 2);
      }
      reach = std::max(reach, std::sqrt(squares));
      most_bias = std::max<double>(most_bias, bias ? std::abs(table.biases[row]) : 0.0);
    }
    CHECK(tiled.bounds(block).reach >= reach * (1 - 1e-6) && tiled.bounds(block).bias == most_bias);
  }
  CHECK(next == table.layout.rows);
}

// A plan's answer for one item, and what is known of the rows that it left out.
struct Answered {
  explicit Answered(std::size_t k) : search(item, k, exact) {}

  double take(std::uint64_t valid, std::vector<float> scores, std::vector<std::int64_t> rows) {
    return search.take({0, 128, valid}, {1.0, 4.0}, {scores.data(), rows.data(), rows.size(), 0, 0});
  }

  MemoryTable table{Codec::int8, {128}, 4, true};
  ExactRows exact{table.rows()};
  float z[4] = {1, 0, 0, 0};
  WholeItem item{Codec::int8, z, 4};
  ItemSearch search;
};

void odd_answers_prove_nothing() {
  const auto nothing = [](double upper) { return upper == std::numeric_limits<double>::infinity(); };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Answered plain(2);
  const double upper = plain.take(128, {9, 8, 7}, {3, 5, 4});
  CHECK(upper > 7 && upper < 7.001);
  CHECK(nothing(Answered(2).take(128, {9, nan, 7}, {3, 5, 4})));
  CHECK(nothing(Answered(2).take(128, {9, 8, kNone}, {3, 5, 4})));
  CHECK(nothing(Answered(2).take(100, {9, 8, 7}, {3, 101, 4})));
  CHECK(nothing(Answered(2).take(100, {9, 8, 7}, {3, -1, 4})));
  CHECK(nothing(Answered(2).take(3, {9, 8, 7}, {1, 1, 0})));
  // All rows of a short block, with padding behind them or a row twice: nothing was left out.
  CHECK(Answered(2).take(2, {9, 8, kNone}, {1, 0, 5}) == -std::numeric_limits<double>::infinity());
  CHECK(Answered(2).take(2, {9, 8, kNone}, {1, 0, 0}) == -std::numeric_limits<double>::infinity());
}

void searches_keep_the_best() {
  Answered search(2);
  search.take(128, {9, 8, 7}, {3, 5, 4});
  search.search.rescore();
  search.take(128, {9, 8, 7}, {3, 6, 4});
  search.search.rescore();
  search.search.score_all({0, 128, 128}, true);
  const std::vector<Candidate> best = search.search.best();
  CHECK(best.size() == 2);
  std::vector<Candidate> all;
  for (std::uint64_t row = 0; row < 128; ++row) all.push_back(search.exact.score(row, search.item));
  std::sort(all.begin(), all.end(), ranks_before);
  CHECK(best[0].id == all[0].id && best[1].id == all[1].id && search.search.threshold() == all[1].score);
  double sum = 0;
  for (const Candidate& user : all) sum += std::exp(static_cast<double>(user.score));
  CHECK(std::abs(search.search.denominator().value() - std::log(sum)) < 1e-9);
  CHECK(!search.search.add(kNone, 0.0f) && search.search.add(1.0f, 2.0f));
}

}  // namespace

int main() {
  const cuda::Device device(cuda::load_driver(), 0);
  limbs_are_balanced();
  headers_are_read();
  full_tensorrt_runs_its_plans(device);
  for (const Codec codec : {Codec::int8, Codec::fp8}) {
    for (const bool bias : {false, true}) {
      tables_are_tiled(device, codec, bias, 1000000);
      tables_are_tiled(device, codec, bias, 50000);
    }
  }
  odd_answers_prove_nothing();
  searches_keep_the_best();
  return check::result();
}

// The sketch kernels of every level against plain integer arithmetic, and upper bounds against true scores: random rows
// and those that a bound could fail on.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"
#include "format/sketch.hpp"
#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"
#include "machine/cpu.hpp"

namespace {

using fllm::Aligned;
using fllm::Sketch;
using fllm::SketchQuery;
using namespace fllm::kernels;

using Matrix = std::vector<std::vector<double>>;
std::mt19937_64 generator(7);

double normal() { return std::normal_distribution<double>()(generator); }

float widen(std::uint16_t bfloat) {
  const std::uint32_t bits = static_cast<std::uint32_t>(bfloat) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

// The least bfloat16 not below a number of at least 0.
std::uint16_t bfloat_above(double number) {
  const float narrow = static_cast<float>(number);
  std::uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  auto half = static_cast<std::uint16_t>(bits >> 16);
  while (widen(half) < number) ++half;
  return half;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += a[j] * b[j];
  return sum;
}

// `dims` orthonormal rows of length `dim`, by Gram-Schmidt; with dims > dim the further rows are zero.
std::vector<float> random_basis(std::size_t dims, std::size_t dim) {
  Matrix rows;
  std::vector<float> basis(dims * dim, 0.0f);
  for (std::size_t i = 0; i < std::min(dims, dim); ++i) {
    std::vector<double> row(dim);
    for (double& number : row) number = normal();
    for (int pass = 0; pass < 2; ++pass) {
      for (const auto& other : rows) {
        const double part = dot(row, other);
        for (std::size_t j = 0; j < dim; ++j) row[j] -= part * other[j];
      }
    }
    const double norm = std::sqrt(dot(row, row));
    for (std::size_t j = 0; j < dim; ++j) row[j] /= norm;
    for (std::size_t j = 0; j < dim; ++j) basis[i * dim + j] = static_cast<float>(row[j]);
    rows.push_back(row);
  }
  return basis;
}

// A shard's sketch written the slow way, a number at a time.
struct Written {
  Sketch sketch;
  std::vector<float> basis;
  Aligned<std::uint8_t> coarse, fine;
  std::vector<std::uint16_t> coarse_factors, fine_factors;
};

void write_factors(const std::vector<double>& turned, const std::vector<int>& codes, double outer, std::size_t parts,
                   std::uint16_t* factors) {
  double along = 0.0, squares = 0.0, residual = 0.0;
  for (std::size_t i = 0; i < turned.size(); ++i) along += turned[i] * codes[i], squares += codes[i] * codes[i];
  factors[0] = bfloat_above(std::max(0.0, along / squares));
  const double scale = widen(factors[0]);
  for (std::size_t i = 0; i < turned.size(); ++i) {
    residual += (turned[i] - scale * codes[i]) * (turned[i] - scale * codes[i]);
  }
  const double extra = 1e-5 * std::sqrt(dot(turned, turned)) + (parts == 2 ? outer : 0.0);
  factors[kPlaneRows] = bfloat_above(std::sqrt(residual) + extra);
  if (parts == 3) factors[2 * kPlaneRows] = bfloat_above(outer * (1 + 1e-9));
}

void write_row(Written& w, std::size_t r, const std::vector<double>& row) {
  const std::size_t dim = w.sketch.dim, dims = w.sketch.dims, parts = w.sketch.parts();
  std::vector<double> turned(dims), rest = row;
  for (std::size_t i = 0; i < dims; ++i) {
    for (std::size_t j = 0; j < dim; ++j) turned[i] += static_cast<double>(w.basis[i * dim + j]) * row[j];
  }
  for (std::size_t i = 0; i < dims; ++i) {
    for (std::size_t j = 0; j < dim; ++j) rest[j] -= static_cast<double>(w.basis[i * dim + j]) * turned[i];
  }
  const double rms = std::sqrt(dot(turned, turned) / static_cast<double>(dims));
  std::vector<int> coarse(dims), full(dims);
  const std::size_t block = r / kPlaneRows, lane = r % kPlaneRows;
  for (std::size_t i = 0; i < dims; ++i) {
    const double step = 0.32 * rms;
    const int level = rms > 0 ? std::clamp(static_cast<int>(std::floor(turned[i] / step + 8)), 0, 15) : 8;
    coarse[i] = 2 * (level >> 2) - 3, full[i] = 2 * level - 15;
    const std::size_t g = i / 16, s = i % 16 / 4, j = i % 4;
    const std::size_t at = (block * (dims / 16) + g) * kPlaneBytes + 4 * lane + j;
    w.coarse[at] = static_cast<std::uint8_t>(w.coarse[at] | ((level >> 2) << (2 * s)));
    w.fine[at] = static_cast<std::uint8_t>(w.fine[at] | ((level & 3) << (2 * s)));
  }
  const double outer = std::sqrt(dot(rest, rest));
  write_factors(turned, coarse, outer, parts, &w.coarse_factors[block * parts * kPlaneRows + lane]);
  write_factors(turned, full, outer, parts, &w.fine_factors[block * parts * kPlaneRows + lane]);
}

Written write(const Matrix& rows, std::size_t dim, std::size_t dims) {
  Written w;
  w.sketch.dim = dim, w.sketch.dims = dims;
  w.basis = random_basis(dims, dim);
  const std::size_t blocks = (rows.size() + kPlaneRows - 1) / kPlaneRows;
  w.coarse = Aligned<std::uint8_t>(blocks * dims * 4), w.fine = Aligned<std::uint8_t>(blocks * dims * 4);
  std::fill_n(w.coarse.data(), blocks * dims * 4, std::uint8_t{0});
  std::fill_n(w.fine.data(), blocks * dims * 4, std::uint8_t{0});
  w.coarse_factors.assign(blocks * w.sketch.parts() * kPlaneRows, 0);
  w.fine_factors = w.coarse_factors;
  for (std::size_t r = 0; r < rows.size(); ++r) write_row(w, r, rows[r]);
  w.sketch.basis = w.basis.data();
  w.sketch.coarse = w.coarse.data(), w.sketch.fine = w.fine.data();
  w.sketch.coarse_factors = w.coarse_factors.data(), w.sketch.fine_factors = w.fine_factors.data();
  return w;
}

// Rows as an int8 table holds them, the kinds that are hard on a bound among them.
Matrix make_rows(std::size_t count, std::size_t dim) {
  Matrix rows(count, std::vector<double>(dim));
  for (std::size_t r = 0; r < count; ++r) {
    const auto scale = static_cast<float>(std::exp(2.0 * normal()));
    for (double& number : rows[r]) number = scale * std::clamp(std::nearbyint(40.0 * normal()), -127.0, 127.0);
    if (r % 16 == 1) std::fill(rows[r].begin(), rows[r].end(), 0.0);
    if (r % 16 == 2) std::fill(rows[r].begin(), rows[r].end(), static_cast<double>(scale) * 127.0);
    if (r % 16 == 3) std::fill(rows[r].begin(), rows[r].end(), 0.0), rows[r][r % dim] = scale * 127.0;
    if (r % 16 == 4) rows[r][r % dim] = 1e6;
    if (r % 16 == 5)
      for (double& number : rows[r]) number *= 1e-30;
    if (r % 16 == 6)
      for (double& number : rows[r]) number *= 1e12;
  }
  return rows;
}

// Every level writes what the scalar one does, and the scalar one what the definition says.
void check_levels(const Written& w, std::size_t rows, const std::vector<float>& bias, const SketchItem& item,
                  bool fine) {
  const SketchBlocks blocks = w.sketch.blocks(0, rows, bias.empty() ? nullptr : bias.data(), fine);
  const std::size_t lanes = (rows + 15) / 16 * 16;
  Aligned<float> estimates(lanes), uppers(lanes), wanted_estimates(lanes), wanted_uppers(lanes);
  find("scalar")->sketch_bounds(blocks, item, wanted_estimates.data(), wanted_uppers.data());
  for (const auto& level : fllm::cpu_levels()) {
    const Kernels* kernels = find(level.c_str());
    if (kernels == nullptr) continue;  // the system refuses the tile registers
    kernels->sketch_bounds(blocks, item, estimates.data(), uppers.data());
    for (std::size_t r = 0; r < lanes; ++r) {
      CHECK(estimates[r] == wanted_estimates[r]);
      CHECK(uppers[r] == wanted_uppers[r]);
    }
  }
}

void check_item(const Written& w, const Matrix& rows, const std::vector<float>& bias, const std::vector<double>& q) {
  const SketchQuery query(w.sketch, q.data());
  CHECK(query.usable());
  for (const bool fine : {false, true}) {
    check_levels(w, rows.size(), bias, query.estimating(fine, 2.5), fine);
    check_levels(w, rows.size(), bias, query.proving(fine), fine);
    const SketchBlocks blocks = w.sketch.blocks(0, rows.size(), bias.empty() ? nullptr : bias.data(), fine);
    std::vector<float> estimates(rows.size() + 16), uppers(rows.size() + 16);
    find("scalar")->sketch_bounds(blocks, query.proving(fine), estimates.data(), uppers.data());
    const double slack = fine ? 0.2 : 0.6;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const double plus = bias.empty() ? 0.0 : bias[r];
      const double score = dot(rows[r], q) + plus;
      const double size = std::sqrt(dot(rows[r], rows[r]) * dot(q, q));
      CHECK(static_cast<float>(score) <= uppers[r]);
      // The bound is of use only if it is near: by far below the norms' product where the basis leaves nothing out.
      const double near = slack * size + 1e-5 * std::fabs(plus) + 1e-30;
      if (w.sketch.parts() == 2 && r % 16 > 6) CHECK(uppers[r] - score <= near);
    }
  }
}

void check_bounds(std::size_t dim, std::size_t dims, std::size_t count, bool with_bias) {
  const Matrix rows = make_rows(count, dim);
  const Written w = write(rows, dim, dims);
  std::vector<float> bias;
  for (std::size_t r = 0; with_bias && r < count; ++r) bias.push_back(static_cast<float>(100.0 * normal()));
  for (int item = 0; item < 12; ++item) {
    std::vector<double> q(dim);
    for (double& number : q) number = normal();
    if (item == 1) std::fill(q.begin(), q.end(), 0.0);
    if (item == 2) std::fill(q.begin(), q.end(), 0.0), q[dim / 2] = 3.0;
    if (item == 3)
      for (double& number : q) number *= 1e-12;
    if (item == 4)
      for (double& number : q) number *= 1e-40;
    if (item == 5)
      for (double& number : q) number *= 1e6;
    // What is left of a row after coarse coding points its own way; an item along it strains the bound most.
    if (item > 7) q = rows[static_cast<std::size_t>(item) % count];
    check_item(w, rows, bias, q);
  }
}

// An item whose bounds could overflow, or that is no number, is refused.
void check_unusable() {
  const Written w = write(make_rows(16, 32), 32, 32);
  for (const double number : {1e30, std::numeric_limits<double>::quiet_NaN(), 1e300}) {
    const std::vector<double> q(32, number);
    CHECK(!SketchQuery(w.sketch, q.data()).usable());
  }
}

// Blocks in the middle of a shard are those that their rows say.
void check_offset() {
  const Matrix rows = make_rows(96, 64);
  const Written w = write(rows, 64, 48);
  const std::vector<double> q(64, 0.5);
  const SketchQuery query(w.sketch, q.data());
  std::vector<float> all(96), part(64), uppers(96);
  find("scalar")->sketch_bounds(w.sketch.blocks(0, 96, nullptr, true), query.proving(true), all.data(), uppers.data());
  find("scalar")->sketch_bounds(w.sketch.blocks(32, 64, nullptr, true), query.proving(true), part.data(),
                                uppers.data());
  CHECK(std::equal(part.begin(), part.end(), all.begin() + 32));
}

}  // namespace

int main() {
  for (const bool bias : {false, true}) {
    check_bounds(128, 128, 64, bias);
    check_bounds(128, 64, 61, bias);
    check_bounds(96, 96, 17, bias);
    check_bounds(100, 112, 40, bias);
    check_bounds(20, 16, 9, bias);
    check_bounds(256, 192, 33, bias);
  }
  check_unusable();
  check_offset();
  return check::result();
}

#include "changes/segment.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <numeric>

#include "changes/tile_order.hpp"
#include "format/shard.hpp"
#include "status.hpp"
#include "write/parallel.hpp"
#include "write/sketch_rows.hpp"
#include "write/tile_extents.hpp"

namespace fllm::changes {

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kShardBytes = std::uint64_t{256} << 20;  // where table.json does not say
constexpr std::uint64_t kTileBytes = std::uint64_t{8} << 20, kTileRowsMin = 1024, kTileRowsMax = 65536;
constexpr std::uint64_t kClusteredRows = 1024;

const kernels::Writing& kernels_here() { return kernels::find("")->writing; }

std::uint64_t shard_bytes_of(const nlohmann::json& document, const std::string& path) {
  if (!document.contains("shard_bytes")) return kShardBytes;
  const nlohmann::json& value = document["shard_bytes"];
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > 0 && value.get<std::uint64_t>() <= INT64_MAX) {
    return value.get<std::uint64_t>();
  }
  throw Error(Status::bundle, sentence(path + ": `shard_bytes` is " + value.dump(), "an integer of at least 1"));
}

// As fllm_export.table.footprint.row_counts and SegmentMaker there.
std::uint64_t full_rows(const Layout& layout, std::uint64_t shard_bytes) {
  const std::uint64_t dim = layout.dim, planes = facts_of(layout.codec).planes;
  std::uint64_t row_bytes = code_bytes(layout.codec, layout.dim) + group_bytes(layout.codec, layout.dim) + 4;
  if (layout.sketch_dims > 0) row_bytes += plane_groups(layout.dim) * kernels::kPlaneDims / 2 + 12;
  const std::uint64_t wanted = std::clamp(kTileBytes / row_bytes, kTileRowsMin, kTileRowsMax);
  const std::uint64_t most = std::min(wanted, shard_bytes / row_bytes);
  std::uint64_t step = most > 0 ? std::bit_floor(most) : 1;
  if (layout.sketch_dims > 0 || planes > 0) step = std::max<std::uint64_t>(kernels::kPlaneRows, step);
  const std::uint64_t tile = std::min(kClusteredRows, step);
  const std::uint64_t beside = layout.tile_bounds ? (4 * (dim + kTileExtents) + tile - 1) / tile : 0;
  const std::uint64_t rows = std::max<std::uint64_t>(1, shard_bytes / ((row_bytes + beside) * step)) * step;
  return std::max<std::uint64_t>(1, rows / layout.tile_rows) * layout.tile_rows;
}

// By how much a basis [m, dim] deviates from an orthonormal one (fllm_export.table.sketch.Encoder).
double defect_of(const float* basis, std::size_t m, std::size_t dim) {
  const bool whole = m >= dim;
  const std::size_t extent = whole ? dim : m, others = whole ? m : dim;
  std::vector<double> columns(others * extent);  // [others, extent]: the matrix so that sums run along `extent`
  for (std::size_t r = 0; r < m; ++r) {
    for (std::size_t j = 0; j < dim; ++j)
      columns[whole ? r * extent + j : j * extent + r] = static_cast<double>(basis[r * dim + j]);
  }
  std::vector<double> squares(extent);
  writing::for_parts(extent, 16, [&](std::size_t start, std::size_t stop) {
    std::vector<double> products(extent);
    for (std::size_t i = start; i < stop; ++i) {
      std::fill(products.begin(), products.end(), 0.0);
      for (std::size_t k = 0; k < others; ++k) {
        const double factor = columns[k * extent + i], *row = columns.data() + k * extent;
        for (std::size_t j = 0; j < extent; ++j) products[j] += factor * row[j];
      }
      products[i] -= 1;
      for (const double product : products) squares[i] += product * product;
    }
  });
  constexpr double kNormSlack = 1e-9;
  return (whole ? 3 : 1) * std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0)) + kNormSlack;
}

// What a basis loses by its numbers being rounded to fixed point.
double snapped_of(const float* basis, std::size_t numbers) {
  double squares = 0;
  for (std::size_t i = 0; i < numbers; ++i) {
    const auto number = static_cast<double>(basis[i]);
    const double lost = number - std::nearbyint(number * writing::kWeight) / writing::kWeight;
    squares += lost * lost;
  }
  return std::sqrt(squares);
}

template <typename T>
T* numbers_in(Bytes& bytes) {
  return reinterpret_cast<T*>(bytes.data());
}

template <typename T>
Bytes bytes_of(const std::vector<T>& values) {
  const auto* first = reinterpret_cast<const std::uint8_t*>(values.data());
  return {first, first + values.size() * sizeof(T)};
}

// The tensors of a shard by name; those of the table's own form, all of the right size.
class Tensors {
 public:
  Tensors(const Layout& layout, std::size_t rows, std::size_t uneven_tiles)
      : forms_(shard_tensors(layout, rows, uneven_tiles)) {
    for (const TensorForm& form : forms_) {
      const std::uint64_t item = form.dtype == "I64" ? 8 : form.dtype == "F32" ? 4 : form.dtype.ends_with("16") ? 2 : 1;
      data_[form.name].resize(std::accumulate(form.shape.begin(), form.shape.end(), item, std::multiplies<>()));
    }
  }

  Bytes& operator[](const std::string& name) { return data_.at(name); }

  std::vector<Piece> pieces() const {
    std::vector<Piece> pieces;
    for (const TensorForm& form : forms_) {
      const Bytes& bytes = data_.at(form.name);
      pieces.push_back({form.name, form.dtype, form.shape, bytes.data(), bytes.size()});
    }
    return pieces;
  }

 private:
  std::vector<TensorForm> forms_;
  std::map<std::string, Bytes> data_;
};

void describe_tiles(const StoredRows& rows, const Layout& layout, const std::vector<std::uint64_t>& ends,
                    Tensors& tensors) {
  const std::size_t dim = layout.dim, step = static_cast<std::size_t>(layout.tile_rows);
  const std::size_t tiles = ends.empty() ? (rows.size() + step - 1) / step : ends.size();
  std::vector<std::uint64_t> starts(tiles + 1, 0);
  for (std::size_t t = 0; t < tiles; ++t)
    starts[t + 1] = ends.empty() ? std::min(rows.size(), (t + 1) * step) : ends[t];
  auto *directions = numbers_in<float>(tensors["tile_directions"]),
       *extents = numbers_in<float>(tensors["tile_extents"]);
  writing::for_parts(tiles, 1, [&](std::size_t tile, std::size_t) {
    const auto start = static_cast<std::size_t>(starts[tile]), stop = static_cast<std::size_t>(starts[tile + 1]);
    const std::vector<float> part = rows.decoded(start, stop);
    writing::describe_tile(kernels_here(), part.data(), stop - start, dim,
                           layout.bias ? rows.bias().data() + start : nullptr, directions + tile * dim,
                           extents + tile * kTileExtents);
  });
}

void sketch(const StoredRows& rows, const Layout& layout, const float* basis, Tensors& tensors) {
  const std::size_t dims = layout.sketch_dims, dim = layout.dim;
  std::copy(basis, basis + dims * dim, numbers_in<float>(tensors["sketch_basis"]));
  const writing::Weights weights(basis, dims, dim);
  const writing::SketchBasis by{weights, dims, dim, defect_of(basis, dims, dim), snapped_of(basis, dims * dim)};
  const std::size_t codes = dims * 4, factors = by.parts() * kernels::kPlaneRows;
  std::uint8_t *coarse = tensors["sketch_coarse"].data(), *fine = tensors["sketch_fine"].data();
  auto *coarse_factors = numbers_in<std::uint16_t>(tensors["sketch_coarse_factors"]),
       *fine_factors = numbers_in<std::uint16_t>(tensors["sketch_fine_factors"]);
  writing::for_parts(rows.size(), writing::rows_of_part(dim), [&](std::size_t start, std::size_t stop) {
    const std::vector<float> part = rows.decoded(start, stop);
    const std::size_t block = start / kernels::kPlaneRows;
    writing::sketch_rows(kernels_here(), by, part.data(), stop - start,
                         {coarse + block * codes, fine + block * codes, coarse_factors + block * factors,
                          fine_factors + block * factors});
  });
}

StoredRows by_id(const StoredRows& rows) {
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return rows.ids()[a] < rows.ids()[b]; });
  return rows.ordered(order);
}

}  // namespace

SegmentMaker::SegmentMaker(const Snapshot& now)
    : table_(now.table),
      layout_(now.table.layout()),
      shard_rows_(static_cast<std::size_t>(full_rows(layout_, shard_bytes_of(now.document, now.path)))) {}

FileFacts SegmentMaker::write(const StoredRows& rows, const std::string& name, Publication& publication) const {
  StoredRows ordered = by_id(rows);
  std::vector<std::uint64_t> ends;
  if (layout_.tile_bounds && rows.size() > layout_.tile_rows) {
    TileOrder order = tile_order(ordered, layout_, layout_.tile_ends);
    ordered = ordered.ordered(order.rows);
    ends = std::move(order.ends);
  }
  Tensors tensors(layout_, ordered.size(), ends.size());
  if (!ends.empty()) std::copy(ends.begin(), ends.end(), numbers_in<std::int64_t>(tensors["tile_ends"]));
  tensors["codes"] = ordered.codes();
  if (facts_of(layout_.codec).grouped) tensors["groups"] = ordered.groups();
  tensors["scales"] = bytes_of(ordered.scales());
  if (layout_.bias) tensors["bias"] = bytes_of(ordered.bias());
  tensors["ids"] = bytes_of(ordered.ids());
  if (layout_.tile_bounds) describe_tiles(ordered, layout_, ends, tensors);
  if (layout_.sketch_dims > 0) sketch(ordered, layout_, table_.sketches().front().basis, tensors);
  return publication.write(name,
                           {{"format", "fllm-users"}, {"format_version", "1"}, {"codec", codec_name(layout_.codec)}},
                           tensors.pieces());
}

}  // namespace fllm::changes

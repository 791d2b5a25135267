#include "write/tiling.hpp"

#include <algorithm>
#include <numeric>

#include "format/table.hpp"
#include "write/centres.hpp"
#include "write/parallel.hpp"
#include "write/row_order.hpp"

namespace fllm::writing {

namespace {

using kernels::kPlaneRows;
using kernels::kPointFloats;
using kernels::Writing;

constexpr std::size_t kRowsOfPart = 4096, kClustersOfPart = 8;

std::size_t divided_up(std::size_t n, std::size_t by) { return (n + by - 1) / by; }

// The rows of a shard by cluster; at the end those of none.
class Clusters {
 public:
  Clusters(const Centres& centres, const float* points, std::size_t n)
      : rows_(n), squares_(n), starts_(centres.count() + 2, 0) {
    std::vector<std::int32_t> owners(n);
    for_parts(n, kRowsOfPart, [&](std::size_t start, std::size_t stop) {
      centres.owners(points + start * kPointFloats, stop - start, owners.data() + start, squares_.data() + start);
    });
    for (const std::int32_t owner : owners) ++starts_[static_cast<std::size_t>(owner) + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
    for (std::size_t row = 0; row < n; ++row)
      rows_[next[static_cast<std::size_t>(owners[row])]++] = static_cast<std::uint32_t>(row);
  }

  std::size_t count() const { return starts_.size() - 2; }
  std::uint32_t* rows(std::size_t cluster) { return rows_.data() + starts_[cluster]; }
  std::size_t size(std::size_t cluster) const { return starts_[cluster + 1] - starts_[cluster]; }
  std::size_t whole(std::size_t cluster) const {
    return cluster == count() ? 0 : size(cluster) / kPlaneRows * kPlaneRows;
  }

  // Moves the rows that are left over of whole blocks, those farthest from the centre, behind the others, which ascend.
  void part(std::size_t cluster) {
    std::uint32_t *const begin = rows(cluster), *const end = begin + size(cluster),
                         *const middle = begin + whole(cluster);
    if (middle == end) return;
    std::nth_element(begin, middle, end, [this](std::uint32_t a, std::uint32_t b) {
      return squares_[a] != squares_[b] ? squares_[a] < squares_[b] : a < b;
    });
    std::sort(begin, middle);
  }

 private:
  std::vector<std::uint32_t> rows_;
  std::vector<std::int32_t> squares_;
  std::vector<std::size_t> starts_;
};

}  // namespace

std::vector<std::uint64_t> tile_rows_of(const Writing& kernels, const float* points, std::size_t n,
                                        std::size_t tile_rows, std::int64_t* order) {
  std::optional<Centres> centres;
  if (n > tile_rows && tile_rows % kPlaneRows == 0) centres = Centres::find(kernels, points, n);
  if (!centres) {
    order_rows(kernels, points, n, tile_rows, order);
    return {};
  }
  Clusters clusters(*centres, points, n);
  // Rows of each tile of a cluster but the last: one tile, or as few as can be, of about one size.
  const auto step = [&](std::size_t whole) {
    if (whole <= kUnevenTile * tile_rows) return whole;
    return divided_up(whole / kPlaneRows, divided_up(whole, tile_rows)) * kPlaneRows;
  };
  for_parts(clusters.count(), kClustersOfPart, [&](std::size_t start, std::size_t stop) {
    for (std::size_t c = start; c < stop; ++c) {
      clusters.part(c);
      const std::size_t whole = clusters.whole(c);
      if (whole > kUnevenTile * tile_rows) split_rows(kernels, points, step(whole), clusters.rows(c), whole);
    }
  });
  std::vector<std::uint64_t> ends;
  std::vector<std::uint32_t> left;
  std::size_t at = 0;
  for (std::size_t c = 0; c <= clusters.count(); ++c) {
    const std::uint32_t* const rows = clusters.rows(c);
    const std::size_t whole = clusters.whole(c);
    std::copy_n(rows, whole, order + at);
    left.insert(left.end(), rows + whole, rows + clusters.size(c));
    for (std::size_t start = 0; start < whole; start += step(whole))
      ends.push_back(at + std::min(whole, start + step(whole)));
    at += whole;
  }
  std::sort(left.begin(), left.end());
  split_rows_together(kernels, points, tile_rows, left.data(), left.size());
  std::copy(left.begin(), left.end(), order + at);
  for (; at < n; at = static_cast<std::size_t>(ends.back())) ends.push_back(std::min(n, at + tile_rows));
  return ends;
}

}  // namespace fllm::writing

#include "write/user_sums.hpp"

#include <algorithm>

#include "write/parallel.hpp"

namespace fllm::writing {

namespace {

// Where users have many items, all of them are given a panel of columns before the next panel begins: the columns of
// all vectors then stay in the cache. It pays where they fit there, and are read several times.
constexpr std::size_t kPanelColumns = 64, kPanelBytes = 8 << 20, kPanelUsers = 512;
constexpr std::size_t kPanelItems = 16;  // per user; with fewer, rows are written in pieces for too little
constexpr std::size_t kPanelReads = 2;   // per vector

bool by_panels(std::size_t count, std::size_t dim, const UserItems& of) {
  const auto total = static_cast<std::size_t>(of.starts[of.users] - of.starts[0]);
  return dim > kPanelColumns && count * kPanelColumns * sizeof(float) <= kPanelBytes &&
         total >= kPanelItems * of.users && total >= kPanelReads * count;
}

}  // namespace

void sum_user_rows(const kernels::Writing& kernels, const float* vectors, std::size_t count, std::size_t dim,
                   const UserItems& of, const double* factors, float* rows) {
  const bool panels = by_panels(count, dim, of);
  const std::size_t width = panels ? kPanelColumns : dim, step = panels ? kPanelUsers : rows_of_part(dim);
  const std::size_t groups = (of.users + step - 1) / step, bands = (dim + width - 1) / width;
  // Parts are taken in this order: the threads are in the same panel.
  for_parts(groups * bands, 1, [&](std::size_t part, std::size_t) {
    const std::size_t column = part / groups * width, first = part % groups * step;
    const std::size_t last = std::min(of.users, first + step), columns = std::min(width, dim - column);
    for (std::size_t user = first; user < last; ++user) {
      const std::size_t own = of.length(user),
                        after = static_cast<std::size_t>(of.starts[last] - of.starts[user]) - own;
      kernels.sum_picked({vectors + column, dim, of.items + of.starts[user], own, after}, columns, factors[user],
                         rows + user * dim + column);
    }
  });
}

}  // namespace fllm::writing

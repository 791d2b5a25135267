// Rows of users as sums of the vectors of their items.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/writing.hpp"

namespace fllm::writing {

struct UserItems {
  const std::int32_t* items;   // of all users, one user after the other
  const std::int64_t* starts;  // [users + 1]: where those of each begin
  std::size_t users;
  std::size_t length(std::size_t user) const { return static_cast<std::size_t>(starts[user + 1] - starts[user]); }
};

// rows[u] = factors[u] * the sum of the vectors [count, dim] of the items of user u, added in float64 in their order.
// All threads that a call may use take part.
void sum_user_rows(const kernels::Writing& kernels, const float* vectors, std::size_t count, std::size_t dim,
                   const UserItems& of, const double* factors, float* rows);

}  // namespace fllm::writing

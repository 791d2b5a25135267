// Which users may be returned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/table.hpp"

namespace fllm {

// One bit a row, in scan order. Immutable.
class UserFilter {
 public:
  // Allows the users of `ids`, or all others when `deny`. Ids that the table lacks are ignored, and no deleted row is
  // allowed.
  UserFilter(const Table& table, const std::int64_t* ids, std::size_t n, bool deny);

  bool allows(std::uint64_t row) const { return ((bits_[row / 64] >> (row % 64)) & 1u) != 0; }
  std::uint64_t allowed() const { return allowed_; }
  const std::vector<std::uint64_t>& bits() const { return bits_; }
  std::uint64_t number() const { return number_; }  // no other filter of the process has it
  const Table* table() const { return table_; }     // for comparison only: it may be gone

 private:
  void set(std::uint64_t row);
  // Set the bits of the rows of some ids: by looking up each row among them, or, where they are few and ascend, each id
  // among the rows.
  template <typename Ids>
  void look_up(const Table& table, const Ids& wanted);
  void find(const Table& table, const std::vector<std::int64_t>& wanted);

  const Table* table_;
  std::uint64_t number_;
  std::vector<std::uint64_t> bits_;
  std::uint64_t allowed_ = 0;
};

}  // namespace fllm

// A user that a kernel found, and the order users come in.
#pragma once

#include <cstdint>
#include <limits>
#include <tuple>

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct User {
  float key, score;
  std::int64_t id;
  bool operator==(const User&) const = default;
};

inline bool ranks_before(const User& a, const User& b) { return std::tuple(-a.key, a.id) < std::tuple(-b.key, b.id); }

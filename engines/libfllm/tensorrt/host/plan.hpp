// A head plan: what it was built for, checked against the table that it shall score.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/host/device.hpp"
#include "format/table.hpp"
#include "tensorrt/plan_driver.hpp"

namespace fllm::tensorrt {

// The inputs and outputs of a head plan (fllm_export/graphs/head.py), B items and T rows:
//   codes [T, d], scales [T], bias [T] of a table that has one, valid_rows (rows from there on are padding),
//   limbs [L, B, d] and query_scale [B] of the items; scores and rows [B, K], m and l [B].
enum class Tensor : std::size_t { codes, scales, bias, valid_rows, limbs, query_scale, scores, rows, m, l };
inline constexpr std::size_t kTensors = 10;

const char* tensor_name(Tensor tensor);

inline constexpr std::uint64_t kChunkRows = 1024;  // a tile is of whole chunks

// The batches and tiles that a profile of the plan allows.
struct Profile {
  std::int64_t least_batch, most_batch;
  std::int64_t least_rows, most_rows;

  bool allows(std::size_t batch, std::uint64_t rows) const {
    const auto b = static_cast<std::int64_t>(batch), t = static_cast<std::int64_t>(rows);
    return least_batch <= b && b <= most_batch && least_rows <= t && t <= most_rows;
  }
};

class Plan {
 public:
  // Loads the plan of a file. Throws Error: Status::bundle when it cannot be read or is no head plan, Status::hardware
  // when it is of another library, version or GPU, Status::usage when it is not for such a table.
  Plan(const PlanDriver& driver, const cuda::Device& device, const std::string& path, const Layout& table);

  const PlanDriver& driver() const { return driver_; }
  const cuda::Device& device() const { return device_; }
  void* get() const { return plan_.get(); }
  const std::string& path() const { return path_; }

  std::size_t dim() const { return dim_; }
  std::size_t k() const { return k_; }
  std::size_t limbs() const { return limbs_; }
  bool has_bias() const { return has_[static_cast<std::size_t>(Tensor::bias)]; }
  bool on_host(Tensor tensor) const { return on_host_[static_cast<std::size_t>(tensor)]; }

  std::size_t most_batch() const;
  // The fewest rows of a tile, in whole chunks, that every profile allows.
  std::uint64_t least_rows() const;
  // The most rows of a tile for so many items, in multiples of least_rows(); 0: no profile allows them.
  std::uint64_t most_rows(std::size_t batch) const;
  // The first profile that allows such a tile.
  std::int32_t profile(std::size_t batch, std::uint64_t rows) const;

  // Throws unless a call of the plan driver succeeded; `doing` says what it was for.
  void check(int status, const char* doing) const;

 private:
  void describe(const Layout& table);
  void check_tensor(const TensorFacts& facts, const Layout& table);
  void read_profiles();

  const PlanDriver& driver_;
  const cuda::Device& device_;
  std::string path_;
  cuda::Owned plan_{nullptr, nullptr};
  std::size_t dim_, k_ = 0, limbs_ = 0;
  std::array<bool, kTensors> has_{}, on_host_{};
  std::vector<Profile> profiles_;
};

}  // namespace fllm::tensorrt

// The item vectors of one pass, in the forms that the kernels read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "machine/aligned.hpp"
#include "search/search.hpp"

namespace fllm {

// One item of one search.
struct Column {
  const Search* search;
  std::size_t item;
};

inline constexpr std::size_t kGroupColumns = 64;  // columns whose sums of one block stay in the nearest caches

// An item vector as integers of two 7-bit limbs, z = scale * (128 high + low); the integers are at most 8127. The
// same numbers as fllm_export.engines.query.
struct Limbs {
  double scale = 1.0;
  std::vector<std::int8_t> high, low;  // [dim]
};

Limbs quantise(const float* z, std::size_t dim);

// The numbers [dim] that rows of a codec are multiplied with: the integers times their scale, or z itself.
std::vector<double> as_scored(Codec codec, const float* z, std::size_t dim);

// Up to kGroupColumns columns whose scores one call of a many-item kernel makes. A table of int8 values (codecs int8,
// int4row, int2 and int1) has its packed limbs, any other the packed float32 numbers [padded dim, items].
struct QueryGroup {
  std::size_t count = 0;                 // columns
  std::size_t items = 0;                 // the same, padded
  std::uint32_t columns[kGroupColumns];  // of the pass
  const void* high = nullptr;
  const void* low = nullptr;  // null for the first limb only
  const float* floats = nullptr;
  const float* scales = nullptr;  // [items] in float32, and
  const float* errors = nullptr;  // the error bounds of kernels::Items
};

// Room for a group of any columns.
struct GatheredGroup {
  Aligned<std::uint8_t> high, low;
  Aligned<float> floats, scales, errors;
};

// The columns of a pass over rows. Rows of codecs that take integers meet those; fp32 and fp16 rows meet z
// itself.
class Queries {
 public:
  // `first_limb_only`: the many-item sums leave the low limb out, and errors() covers what that may cost.
  Queries(const Layout& layout, const kernels::Kernels& kernels, const std::vector<Column>& columns,
          bool first_limb_only);

  std::size_t count() const { return scales_.size(); }
  std::size_t groups() const { return (count() + kGroupColumns - 1) / kGroupColumns; }

  // A table of int8 values.
  const void* one_high(std::size_t column) const { return one_high_.data() + column * one_bytes_; }
  const void* one_low(std::size_t column) const { return one_low_.data() + column * one_bytes_; }

  // Any other table: float32 [padded dim] of one column.
  const float* one_float(std::size_t column) const { return one_float_.data() + column * padded_dim_; }
  std::size_t padded_dim() const { return padded_dim_; }

  double scale(std::size_t column) const { return scales_[column]; }
  float float_scale(std::size_t column) const { return float_scales_[column]; }
  float error(std::size_t column) const { return errors_[column]; }

  // Columns [64 number, 64 number + 64), as far as there are any.
  QueryGroup group(std::size_t number) const;
  // Any columns, at most kGroupColumns, packed into `room`.
  QueryGroup gather(const std::uint32_t* columns, std::size_t count, GatheredGroup& room) const;

 private:
  void gather_floats(QueryGroup& group, float* floats) const;
  std::size_t padded(std::size_t group) const;  // columns of a group, padding included
  void prepare_int8(const std::vector<Column>& columns, Codec codec);
  void prepare_float(const std::vector<Column>& columns, bool whole_numbers);

  const kernels::Kernels& kernels_;
  std::size_t dim_, padded_dim_;
  std::size_t code_dims_;  // that int8 kernels read: dim, and zeros where the codec fills rows up
  bool first_limb_only_;
  std::size_t one_bytes_ = 0, group_bytes_ = 0;
  Aligned<std::uint8_t> one_high_, one_low_, many_high_, many_low_;
  Aligned<float> one_float_, many_float_;
  std::vector<double> scales_;
  Aligned<float> float_scales_, errors_;
};

}  // namespace fllm

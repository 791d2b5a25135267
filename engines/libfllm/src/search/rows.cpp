#include "search/rows.hpp"

#include <bit>

namespace fllm {

std::unique_ptr<Rows> make_rows(const Layout& layout, const kernels::Kernels& kernels, const Queries& queries) {
  const CodecFacts& codec = facts_of(layout.codec);
  auto* const make = codec.decode != nullptr ? make_decoded_rows : codec.planes > 0 ? make_plane_rows : make_int8_rows;
  return make(layout, kernels, queries);
}

bool all_finite(const float* numbers, std::size_t n) {
  if (numbers == nullptr) return true;
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t others = 0;
  for (std::size_t i = 0; i < n; ++i) others |= (std::bit_cast<std::uint32_t>(numbers[i]) & kExponent) == kExponent;
  return others == 0;
}

Error not_finite(const Table& table, const Tile& tile, std::size_t row) {
  return Error(Status::bundle,
               sentence(table.place_of(tile, row) + " has no finite score",
                        "finite values, scale and bias in every row", "Write the table again from finite rows"));
}

}  // namespace fllm

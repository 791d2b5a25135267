#include "format/refinement.hpp"

#include <algorithm>
#include <filesystem>

#include "format/safetensors.hpp"

namespace fllm {

namespace {

constexpr std::size_t kProbes = 16;  // rows that are looked for in memory, which takes some microseconds

Layout rows_layout(const Layout& table) {
  Layout layout;
  layout.codec = table.refinement->codec;
  layout.dim = table.refinement->dim;
  layout.bias = table.bias;
  return layout;
}

}  // namespace

Refinement::Refinement(const std::string& directory, const Layout& layout, const std::vector<Shard>& shards)
    : rows_layout_(rows_layout(layout)), row_bytes_(code_bytes(rows_layout_.codec, rows_layout_.dim)) {
  std::uint64_t first_row = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const ShardEntry& entry = layout.refinement->shards[i];
    const std::string path = (std::filesystem::path(directory) / entry.name).string();
    auto mapping = std::make_unique<Mapping>(path);
    const Tensors tensors = read_tensors(mapping->data(), mapping->size(), path);
    const Shard rows = Shard::view_refinement(tensors, rows_layout_, entry.rows, path);
    files_.push_back({std::move(mapping), first_row, rows.codes, rows.scales, shards[i].bias});
    first_row += entry.rows;
  }
}

const Refinement::File& Refinement::file_of(std::uint64_t row) const {
  const auto after = std::upper_bound(files_.begin(), files_.end(), row,
                                      [](std::uint64_t number, const File& file) { return number < file.first_row; });
  return *(after - 1);
}

Refinement::Row Refinement::row(std::uint64_t number) const {
  const File& file = file_of(number);
  const std::uint64_t inside = number - file.first_row;
  return {file.codes + inside * row_bytes_, file.scales + inside, file.bias == nullptr ? nullptr : file.bias + inside};
}

bool Refinement::prefetch_row(std::uint64_t number) const {
  const File& file = file_of(number);
  const std::uint64_t inside = number - file.first_row;
  const auto offset = [&](const void* data) {
    return static_cast<std::size_t>(static_cast<const std::uint8_t*>(data) - file.mapping->data());
  };
  if (!file.mapping->prefetch(offset(file.codes + inside * row_bytes_), row_bytes_)) return false;
  file.mapping->prefetch(offset(file.scales + inside), sizeof(float));
  return true;
}

void Refinement::prefetch(const std::vector<std::uint64_t>& rows) const {
  const std::size_t step = std::max<std::size_t>(1, rows.size() / kProbes);
  bool absent = false;
  for (std::size_t i = 0; i < rows.size(); i += step) absent = prefetch_row(rows[i]) || absent;
  if (!absent) return;
  for (const std::uint64_t row : rows) prefetch_row(row);
}

}  // namespace fllm

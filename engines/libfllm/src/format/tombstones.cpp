#include "format/tombstones.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>

#include "format/safetensors.hpp"
#include "machine/mapping.hpp"
#include "status.hpp"

namespace fllm {

namespace {

constexpr const char* kTensor = "deleted";

}  // namespace

Tombstones::Tombstones(const std::string& directory, const TombstonesEntry& entry) {
  const std::string path = (std::filesystem::path(directory) / entry.name).string();
  const Mapping mapping(path);
  const Tensors tensors = read_tensors(mapping.data(), mapping.size(), path);
  const auto found = tensors.find(kTensor);
  const std::vector<std::uint64_t> shape{(entry.rows + 7) / 8};
  if (found == tensors.end() || found->second.dtype != "U8" || found->second.shape != shape) {
    const std::string tensor = path + ": tensor `" + kTensor + "` is ";
    throw Error(Status::bundle,
                sentence(found == tensors.end() ? tensor + "missing"
                                                : tensor + described(found->second.dtype, found->second.shape),
                         described("U8", shape) + ", a bit for each of " + std::to_string(entry.rows) + " rows"));
  }
  words_.resize((entry.rows + kWordRows - 1) / kWordRows);
  std::memcpy(words_.data(), found->second.data, shape[0]);  // little-endian, as all of a table
  if (entry.rows % kWordRows != 0 && words_.back() >> (entry.rows % kWordRows) != 0) {
    throw Error(Status::bundle,
                sentence(path + " marks rows beyond " + std::to_string(entry.rows), "zero bits after the last row"));
  }
  const std::uint64_t deleted = count(0, entry.rows);
  if (deleted != entry.deleted) {
    throw Error(Status::bundle, sentence(path + " marks " + std::to_string(deleted) + " rows as deleted",
                                         std::to_string(entry.deleted) + ", as table.json says"));
  }
}

std::uint64_t Tombstones::word(std::uint64_t row) const {
  const std::uint64_t at = row / kWordRows, shift = row % kWordRows;
  const std::uint64_t low = at < words_.size() ? words_[at] >> shift : 0;
  const std::uint64_t high = shift != 0 && at + 1 < words_.size() ? words_[at + 1] << (kWordRows - shift) : 0;
  return low | high;
}

Tombstones Tombstones::slice(std::uint64_t first, std::uint64_t rows) const {
  Tombstones found;
  if (count(first, rows) == 0) return found;
  for (std::uint64_t row = 0; row < rows; row += kWordRows) {
    const std::uint64_t inside = std::min<std::uint64_t>(rows - row, kWordRows);
    const std::uint64_t bits = word(first + row);
    found.words_.push_back(inside == kWordRows ? bits : bits & ((std::uint64_t{1} << inside) - 1));
  }
  return found;
}

std::uint64_t Tombstones::count(std::uint64_t first, std::uint64_t rows) const {
  std::uint64_t found = 0;
  const std::uint64_t end = std::min<std::uint64_t>(first + rows, words_.size() * kWordRows);
  for (std::uint64_t row = first; row < end; row += kWordRows) {
    std::uint64_t bits = word(row);
    if (end - row < kWordRows) bits &= (std::uint64_t{1} << (end - row)) - 1;
    found += static_cast<std::uint64_t>(std::popcount(bits));
  }
  return found;
}

}  // namespace fllm

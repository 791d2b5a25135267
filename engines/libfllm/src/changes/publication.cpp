#include "changes/publication.hpp"

#include <array>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "changes/refusal.hpp"
#include "changes/sha256.hpp"
#include "format/safetensors.hpp"
#include "format/table.hpp"

namespace fllm::changes {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kOpenFiles = 8;
constexpr std::array<char, kPageBytes> kZeros{};

std::uint64_t up_to_page(std::uint64_t offset) { return (kPageBytes - offset % kPageBytes) % kPageBytes; }

Json entry(const std::string& dtype, const std::vector<std::uint64_t>& shape, std::uint64_t begin,
           std::uint64_t bytes) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, begin + bytes}}};
}

// Zero bytes after a piece: up to the next page, but for the last piece.
std::uint64_t gap_after(const std::vector<Piece>& pieces, std::size_t number, std::uint64_t end) {
  return number + 1 < pieces.size() ? up_to_page(end) : 0;
}

// Length and JSON, filled up to a page, as fllm_export.safetensors_layout lays them out.
std::string header_of(const std::vector<std::pair<std::string, std::string>>& metadata,
                      const std::vector<Piece>& pieces) {
  Json header;
  for (const auto& [name, value] : metadata) header["__metadata__"][name] = value;
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    header[pieces[i].name] = entry(pieces[i].dtype, pieces[i].shape, offset, pieces[i].bytes);
    offset += pieces[i].bytes;
    const std::uint64_t gap = gap_after(pieces, i, offset);
    if (gap > 0) header["padding." + std::to_string(i)] = entry("U8", {gap}, offset, gap);
    offset += gap;
  }
  std::string text = header.dump();
  text.append(up_to_page(8 + text.size()), ' ');
  std::string length;
  for (int i = 0; i < 8; ++i) length += static_cast<char>(std::uint64_t{text.size()} >> (8 * i) & 255u);
  return length + text;
}

bool has_no_links(int code) { return code == EPERM || code == EOPNOTSUPP || code == ENOSYS || code == EMLINK; }

}  // namespace

Publication::Publication(Disk& disk, std::string directory, std::string token)
    : disk_(disk), directory_(std::move(directory)), token_(std::move(token)) {}

Publication::~Publication() {
  close_all();
  if (begun_) return;
  for (const std::string& path : created_) disk_.remove(path);
}

std::string Publication::path(const std::string& name) const {
  return (std::filesystem::path(directory_) / name).string();
}

// A hidden name, which the next change removes where it was left over.
std::string Publication::beside(const std::string& name) const {
  std::string hidden(".");
  hidden.append(name).append(".").append(token_);
  return path(hidden);
}

int Publication::create(const std::string& path) {
  if (open_.size() == kOpenFiles) sync_files();
  int file = -1;
  require_done(disk_.create(path, file), path);
  open_.push_back({path, file});
  created_.push_back(path);
  return file;
}

FileFacts Publication::write(const std::string& name, const std::vector<std::pair<std::string, std::string>>& metadata,
                             const std::vector<Piece>& pieces) {
  const std::string place = path(name);
  const int file = create(place);
  Sha256 hash;
  FileFacts facts{name, 0, {}};
  const auto put = [&](const void* data, std::size_t bytes) {
    require_done(disk_.write(file, data, bytes), place);
    hash.add(data, bytes);
    facts.bytes += bytes;
  };
  const std::string header = header_of(metadata, pieces);
  put(header.data(), header.size());
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    put(pieces[i].data, pieces[i].bytes);
    const std::uint64_t gap = gap_after(pieces, i, facts.bytes);  // the header ends on a page
    if (gap > 0) put(kZeros.data(), gap);
  }
  facts.sha256 = hash.digest();
  return facts;
}

void Publication::keep_previous(const std::string& now) {
  const std::string aside = beside(Layout::kPreviousName), previous = path(Layout::kPreviousName);
  const int code = disk_.link(path(Layout::kFileName), aside);
  if (has_no_links(code)) {
    const int file = create(aside);
    require_done(disk_.write(file, now.data(), now.size()), aside);
    require_done(disk_.sync(file), aside);  // it must be whole before it takes the name of one that is
  } else {
    require_done(code, aside);
    created_.push_back(aside);
  }
  require_done(disk_.rename(aside, previous), previous);
  // A rename of one name of a file to another of its names does nothing, and leaves both.
  require_done(disk_.remove(aside), aside);
}

void Publication::sync_files() {
  for (const OpenFile& file : open_) require_done(disk_.sync(file.descriptor), file.path);
  close_all();
}

void Publication::prepare(const std::string& now, const std::string& next) {
  keep_previous(now);
  const std::string staged = beside(Layout::kFileName);
  const int file = create(staged);
  require_done(disk_.write(file, next.data(), next.size()), staged);
  sync_files();
  require_done(disk_.sync_directory(directory_), directory_);
}

void Publication::publish() {
  begun_ = true;
  const std::string place = path(Layout::kFileName);
  require_done(disk_.rename(beside(Layout::kFileName), place), place);
  require_done(disk_.sync_directory(directory_), directory_);
}

void Publication::close_all() {
  for (const OpenFile& file : open_) disk_.close(file.descriptor);
  open_.clear();
}

}  // namespace fllm::changes

// Tables opened, cut into tiles and kept: against files written here and against frozen bundles.
#include "format/table.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <numeric>
#include <thread>

#include "machine/memory.hpp"
#include "refusal.hpp"
#include "shard_writer.hpp"

namespace {

using fllm::Codec;
using fllm::Status;

constexpr std::uint64_t kDim = 12;

void check_rows(const fllm::Table& table, const std::vector<std::uint64_t>& tile_rows) {
  CHECK(table.tiles().size() == tile_rows.size());
  std::uint64_t row = 0;
  for (std::size_t i = 0; i < tile_rows.size(); ++i) {
    const fllm::Tile& tile = table.tiles()[i];
    CHECK(tile.rows == tile_rows[i] && tile.first_row == row);
    CHECK(tile.bias == nullptr && tile.groups == nullptr);
    const std::vector<writer::Piece> pieces = writer::int8_pieces(row, tile.rows, kDim);
    CHECK(std::memcmp(tile.codes, pieces[0].bytes.data(), pieces[0].bytes.size()) == 0);
    CHECK(std::memcmp(tile.scales, pieces[1].bytes.data(), pieces[1].bytes.size()) == 0);
    CHECK(std::memcmp(tile.ids, pieces[2].bytes.data(), pieces[2].bytes.size()) == 0);
    row += tile.rows;
  }
  CHECK(row == table.layout().rows);
}

void tiles_in_scan_order() {
  const writer::Directory directory;
  writer::write_table(directory, {1000, 512, 1, 300}, kDim, 256);
  const std::vector<std::uint64_t> tile_rows{256, 256, 256, 232, 256, 256, 1, 256, 44};
  for (const bool resident : {false, true}) check_rows(fllm::Table(directory.path(), {resident}), tile_rows);
  writer::write_table(directory, {10}, kDim, std::uint64_t{1} << 40);
  check_rows(fllm::Table(directory.path() + "/"), {10});
}

// Rows in blocks of 16: a tile begins with one, and a shard's last block is whole however few rows it holds.
void tiles_of_blocks() {
  const writer::Directory directory;
  constexpr std::uint64_t kGroups = 3, kRows[] = {70, 1};
  writer::Json document = writer::table_json({kRows[0], kRows[1]}, 16 * kGroups, 32);
  for (const std::uint64_t bits : {1, 2, 4}) {
    document["codec"] = bits == 1 ? "int1" : bits == 2 ? "int2" : "int4row";
    const std::uint64_t planes = bits == 4 ? 2 : 1, places = bits == 1 ? (kGroups + 1) / 2 : kGroups;
    const std::size_t block_bytes = planes * places * 64;
    directory.write("table.json", document.dump());
    for (std::size_t shard = 0; shard < 2; ++shard) {
      std::vector<writer::Piece> pieces = writer::int8_pieces(shard * kRows[0], kRows[shard], 1);
      const std::uint64_t blocks = (kRows[shard] + 15) / 16;
      std::vector<std::uint64_t> shape{blocks, places, 64};
      if (planes == 2) shape.insert(shape.begin() + 1, planes);
      std::string bytes(blocks * block_bytes, '\0');
      for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i / block_bytes + 1);
      pieces[0] = {"codes", "U8", shape, bytes};
      directory.write(writer::shard_name(shard), writer::shard_of(pieces));
    }
    const fllm::Table table(directory.path());
    CHECK(table.tiles().size() == 4);
    for (std::size_t i = 0; i < 3; ++i) {
      const fllm::Tile& tile = table.tiles()[i];
      CHECK(tile.codes[0] == 2 * i + 1 && tile.codes[block_bytes - 1] == 2 * i + 1);
    }
    CHECK(table.tiles()[2].rows == 6 && table.tiles()[3].rows == 1 && table.tiles()[3].codes[block_bytes - 1] == 1);
  }
}

struct Frozen {
  const char* name;
  Codec codec;
  std::uint64_t tile_rows, shards;
  // Sums over rows r = 0, 1, ... of (r + 1) times the row's value, as Python reads them.
  std::uint64_t ids, codes, groups;
  double scales, bias;
};

constexpr Frozen kFrozen[] = {
    {"fp32", Codec::fp32, 64, 5, 24447435375, 273631265, 0, 45150.0, 3337.7073628050275},
    {"fp16", Codec::fp16, 128, 3, 25879791783, 129498232, 0, 129927.0, 2419.045870153699},
    {"int8", Codec::int8, 128, 3, 25879791783, 70118527, 0, 685.5074360533617, 2419.045870153699},
    {"fp8", Codec::fp8, 128, 3, 25879791783, 95514183, 0, 194.32911668880843, 2419.045870153699},
    {"int4", Codec::int4, 256, 2, 28380894487, 35963430, 11513250, 48.72775163681945, 1982.6894122986123},
    {"int4row", Codec::int4row, 256, 2, 28380894487, 11256617, 0, 6141.376886345446, 1982.6894122986123},
    {"int2", Codec::int2, 256, 2, 28380894487, 5660217, 0, 22009.27397403121, 1982.6894122986123},
    {"int1", Codec::int1, 256, 2, 28380894487, 1884556, 0, 35576.92071455717, 1982.6894122986123},
};

// The sum of the bytes that hold a row's codes.
std::uint64_t code_sum(const fllm::Layout& layout, const fllm::Tile& tile, std::size_t row) {
  const std::size_t bytes = fllm::code_bytes(layout.codec, layout.dim);
  if (fllm::facts_of(layout.codec).planes == 0) {
    return std::accumulate(tile.codes + row * bytes, tile.codes + (row + 1) * bytes, std::uint64_t{0});
  }
  // Four bytes in each 64 of its block.
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < bytes / 4; ++i) {
    const std::uint8_t* lane = tile.codes + row / 16 * 16 * bytes + i * 64 + row % 16 * 4;
    sum = std::accumulate(lane, lane + 4, sum);
  }
  return sum;
}

void check_frozen(const Frozen& expected, const fllm::Table& table) {
  const fllm::Layout& layout = table.layout();
  CHECK(layout.codec == expected.codec && std::string(fllm::codec_name(layout.codec)) == expected.name);
  CHECK(layout.dim == kDim && layout.rows == 300 && layout.tile_rows == expected.tile_rows);
  CHECK(layout.bias && layout.generation == 1 && layout.shards.size() == expected.shards);
  const std::size_t group_bytes = fllm::group_bytes(layout.codec, kDim);
  std::uint64_t weight = 0, ids = 0, codes = 0, groups = 0;
  double scales = 0, bias = 0;
  for (const fllm::Tile& tile : table.tiles()) {
    CHECK(tile.first_row == weight && (tile.groups != nullptr) == (group_bytes != 0));
    CHECK(std::is_sorted(tile.ids, tile.ids + tile.rows, std::less_equal<>()));
    for (std::size_t r = 0; r < tile.rows; ++r) {
      ++weight;
      ids += weight * static_cast<std::uint64_t>(tile.ids[r]);
      codes += weight * code_sum(layout, tile, r);
      for (std::size_t g = 0; g < group_bytes; ++g) groups += weight * tile.groups[r * group_bytes + g];
      scales += static_cast<double>(weight) * tile.scales[r];
      bias += static_cast<double>(weight) * tile.bias[r];
    }
  }
  CHECK(weight == 300 && ids == expected.ids && codes == expected.codes && groups == expected.groups);
  CHECK(scales == expected.scales && bias == expected.bias);
}

void frozen_bundles() {
  for (const Frozen& frozen : kFrozen) {
    const std::string users = std::string(FLLM_FORMAT_DIR) + "/v1/" + frozen.name + "/users";
    for (const bool resident : {false, true}) check_frozen(frozen, fllm::Table(users, {resident}));
  }
}

void shards_unlike_the_table() {
  const writer::Directory directory;
  writer::write_table(directory, {64, 20}, kDim, 32);
  const std::string second = directory.path(writer::shard_name(1));
  const auto open = [&](bool resident) { fllm::Table(directory.path(), {resident}); };
  const auto change = [&](const char* key, const writer::Json& value) {
    writer::Json document = writer::table_json({64, 20}, kDim, 32);
    document[key] = value;
    directory.write("table.json", document.dump());
  };
  change("codec", "fp16");
  REFUSED(open(false), Status::bundle, "tensor `codes` is I8 [64, 12]; expected F16 [64, 12].");
  change("codec", "fp32");
  REFUSED(open(false), Status::bundle, "tensor `codes` is I8 [64, 12]; expected F32 [64, 12].");
  change("codec", "fp8");
  REFUSED(open(false), Status::bundle, "tensor `codes` is I8 [64, 12]; expected F8_E4M3 [64, 12].");
  change("codec", "int4");
  REFUSED(open(true), Status::bundle, "tensor `codes` is I8 [64, 12]; expected U8 [64, 6].");
  change("codec", "int2");
  REFUSED(open(true), Status::bundle, "tensor `codes` is I8 [64, 12]; expected U8 [4, 1, 64].");
  change("codec", "int4row");
  REFUSED(open(false), Status::bundle, "tensor `codes` is I8 [64, 12]; expected U8 [4, 2, 1, 64].");
  change("bias", true);
  REFUSED(open(true), Status::bundle, "has no tensor `bias`; expected codes, scales, bias, ids.");
  change("bias", false);
  directory.write(writer::shard_name(1), writer::shard_of(writer::int8_pieces(64, 21, kDim)));
  REFUSED(open(true), Status::bundle, second + ": tensor `codes` is I8 [21, 12]; expected I8 [20, 12].");
  directory.write(writer::shard_name(1), "");
  REFUSED(open(false), Status::bundle, second + " has 0 bytes and its header claims 0; expected a complete file.");
  std::filesystem::remove(second);
  REFUSED(open(true), Status::bundle, second + " is missing; expected a shard of the table. Build it again.");
  std::filesystem::create_directory(second);
  REFUSED(open(false), Status::bundle, second + " is not a file");
  std::filesystem::remove(second);
  CHECK(mkfifo(second.c_str(), 0600) == 0);  // must not wait for a writer
  REFUSED(open(false), Status::bundle, second + " is not a file");
  std::filesystem::remove(second);
  std::filesystem::create_symlink(second, second);
  REFUSED(open(false), Status::bundle, second + " cannot be opened (");
}

std::size_t open_files() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

void files_are_closed_and_replaceable() {
  const writer::Directory directory;
  writer::write_table(directory, {64, 20}, kDim, 32);
  const std::size_t before = open_files();
  const fllm::Table mapped(directory.path()), resident(directory.path(), {true});
  CHECK(open_files() == before);
  for (const fllm::Tile& tile : mapped.tiles()) mapped.prefetch(tile);
  for (const fllm::Tile& tile : resident.tiles()) resident.prefetch(tile);
  // Replaced by renaming, as every writer of tables does: both keep what they opened.
  for (std::size_t i = 0; i < 2; ++i) {
    directory.write("new", "other bytes");
    std::filesystem::rename(directory.path("new"), directory.path(writer::shard_name(i)));
  }
  check_rows(mapped, {32, 32, 20});
  check_rows(resident, {32, 32, 20});
}

void a_resident_table_survives_truncation() {
  const writer::Directory directory;
  writer::write_table(directory, {64, 20}, kDim, 32);
  const fllm::Table table(directory.path(), {true});
  for (std::size_t i = 0; i < 2; ++i) std::filesystem::resize_file(directory.path(writer::shard_name(i)), 0);
  check_rows(table, {32, 32, 20});
}

// Emulators of other processors refuse mappings that the system would grant.
bool may_be_mapped(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY);
  const std::size_t bytes = std::filesystem::file_size(path);
  void* address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return address != MAP_FAILED && munmap(address, bytes) == 0;
}

void a_resident_table_that_does_not_fit() {
  const std::uint64_t rows = std::uint64_t{1} << 32, dim = 128;
  const auto available = fllm::available_memory();
  if (!available || *available > rows * dim) return;
  const writer::Directory directory;
  const std::uint64_t ids = rows * (dim + 4);
  const auto entry = [](const char* dtype, std::vector<std::uint64_t> shape, std::uint64_t begin, std::uint64_t bytes) {
    return writer::Json{{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, begin + bytes}}};
  };
  const writer::Json header = {{"codes", entry("I8", {rows, dim}, 0, rows * dim)},
                               {"scales", entry("F32", {rows}, rows * dim, rows * 4)},
                               {"ids", entry("I64", {rows}, ids, rows * 8)}};
  directory.write(writer::shard_name(0), writer::file_of(header.dump(), ""));
  directory.write("table.json", writer::table_json({rows}, dim, rows).dump());
  std::filesystem::resize_file(directory.path(writer::shard_name(0)), 4096 + ids + rows * 8);  // all of it a hole
  if (!may_be_mapped(directory.path(writer::shard_name(0)))) return;
  const fllm::Table mapped(directory.path());
  CHECK(mapped.tiles().size() == 1 && mapped.tiles()[0].ids[rows - 1] == 0);
  REFUSED(fllm::Table(directory.path(), {true}), Status::memory, "bytes of memory and ");
  REFUSED(fllm::Mapping(directory.path(writer::shard_name(0)), true), Status::memory,
          "expected enough memory for all of it.");
}

void resident_bytes_lie_on_huge_pages() {
  const writer::Directory directory;
  std::string bytes((std::size_t{5} << 20) + 123, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  directory.write("file", bytes);
  const fllm::Mapping mapping(directory.path("file"), true);
  CHECK(reinterpret_cast<std::uintptr_t>(mapping.data()) % (std::size_t{2} << 20) == 0);
  CHECK(mapping.size() == bytes.size() && std::memcmp(mapping.data(), bytes.data(), bytes.size()) == 0);
}

// Pages of a file that the system holds in memory.
std::size_t cached_pages(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY);
  const std::size_t bytes = std::filesystem::file_size(path);
  void* address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  std::vector<unsigned char> pages((bytes + 4095) / 4096);
  mincore(address, bytes, pages.data());
  munmap(address, bytes);
  return static_cast<std::size_t>(std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; }));
}

// Emulators of other processors ignore advice, even advice that does not exist.
bool advice_is_heeded() {
  constexpr int kNoAdvice = 9999;
  void* address = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const bool refused = madvise(address, 4096, kNoAdvice) != 0;
  munmap(address, 4096);
  return refused;
}

void opening_reads_headers_only() {
  if (!advice_is_heeded()) return;
  const writer::Directory directory;
  const std::uint64_t rows = 400000;
  writer::write_table(directory, {rows}, kDim, 100000);
  const std::string path = directory.path(writer::shard_name(0));
  const int file = open(path.c_str(), O_RDWR);
  fsync(file);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  close(file);
  if (cached_pages(path) != 0) return;  // a file system that does not let go, such as one in memory
  const fllm::Table table(directory.path());
  CHECK(cached_pages(path) <= 4);
  table.prefetch(table.tiles()[2]);
  const std::size_t wanted = 100000 * (kDim + sizeof(float)) / 4096;
  for (int i = 0; i < 500 && cached_pages(path) < wanted; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(cached_pages(path) >= wanted && cached_pages(path) < 2 * wanted);
}

}  // namespace

int main() {
  tiles_in_scan_order();
  tiles_of_blocks();
  frozen_bundles();
  shards_unlike_the_table();
  files_are_closed_and_replaceable();
  a_resident_table_survives_truncation();
  a_resident_table_that_does_not_fit();
  resident_bytes_lie_on_huge_pages();
  opening_reads_headers_only();
  return check::result();
}

// Deleted rows: what is read of them, how lies are refused, and that no search finds one.
#include "format/tombstones.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "format/table.hpp"
#include "kernels/kernels.hpp"
#include "refusal.hpp"
#include "search/cpu_engine.hpp"
#include "search/filter.hpp"
#include "shard_writer.hpp"

namespace {

using fllm::Status;
using writer::Json;

constexpr std::uint64_t kRows = 300, kBits = 207, kDim = 16;  // rows from kBits on were appended later
constexpr const char* kName = "00000002-ab-tombstones.safetensors";

std::string bitmap(const std::set<std::uint64_t>& deleted, std::uint64_t rows) {
  std::string bits((rows + 7) / 8, '\0');
  for (const std::uint64_t row : deleted) bits[row / 8] = static_cast<char>(bits[row / 8] | 1 << row % 8);
  return bits;
}

std::string file_of(const std::string& bits, const char* dtype = "U8") {
  return writer::shard_of({{"deleted", dtype, {bits.size()}, bits}});
}

Json layout_of(std::uint64_t deleted) {
  Json document = writer::table_json({200, 100}, kDim, 64);
  document["reader_features"] = Json::array({"tombstones"});
  document["rows"] = kRows - deleted;
  document["tombstones"] = {{"name", kName}, {"rows", kBits}, {"deleted", deleted}, {"bytes", 0}, {"sha256", ""}};
  return document;
}

void write_table(const writer::Directory& directory, const std::set<std::uint64_t>& deleted) {
  writer::write_table(directory, {200, 100}, kDim, 64);
  directory.write("table.json", layout_of(deleted.size()).dump());
  directory.write(kName, file_of(bitmap(deleted, kBits)));
}

void bits_by_row() {
  const writer::Directory directory;
  const std::set<std::uint64_t> deleted{0, 1, 63, 64, 128, 129, 130, 199, 206};
  write_table(directory, deleted);
  const fllm::Table table(directory.path());
  CHECK(table.layout().rows == kRows - deleted.size() && table.layout().stored_rows == kRows);
  for (std::uint64_t row = 0; row < kRows + 100; ++row) {
    CHECK(table.tombstones().holds(row) == deleted.contains(row));
    CHECK((table.tombstones().word(row) & 1u) == (deleted.contains(row) ? 1u : 0u));
    for (const std::uint64_t rows : {0, 1, 63, 64, 65, 190}) {
      const auto among = std::count_if(deleted.begin(), deleted.end(),
                                       [&](std::uint64_t each) { return each >= row && each < row + rows; });
      CHECK(table.tombstones().count(row, rows) == static_cast<std::uint64_t>(among));
    }
  }
  CHECK(!fllm::Tombstones().holds(0) && fllm::Tombstones().empty() && fllm::Tombstones().count(0, 100) == 0);
}

void lies() {
  const writer::Directory directory;
  const auto open = [&] { fllm::Table table(directory.path()); };
  write_table(directory, {5});
  open();
  directory.write(kName, file_of(bitmap({5, 6}, kBits)));
  REFUSED(open(), Status::bundle, "marks 2 rows as deleted; expected 1, as table.json says");
  directory.write(kName, file_of(bitmap({207}, 208)));
  REFUSED(open(), Status::bundle, "marks rows beyond 207");
  directory.write(kName, file_of(bitmap({5}, 216)));
  REFUSED(open(), Status::bundle, "tensor `deleted` is U8 [27]; expected U8 [26]");
  directory.write(kName, file_of(bitmap({5}, kBits), "I8"));
  REFUSED(open(), Status::bundle, "tensor `deleted` is I8 [26]");
  directory.write(kName, file_of(bitmap({5}, kBits)).substr(0, 4100));
  REFUSED(open(), Status::bundle, kName);
  directory.write(kName, "");
  REFUSED(open(), Status::bundle, kName);
}

void layouts() {
  const auto parse = [](const Json& document) { return fllm::Layout::parse(document.dump(), "users/table.json"); };
  CHECK(parse(layout_of(9)).tombstones.deleted == 9);
  const auto with = [](const char* key, const Json& value) {
    Json document = layout_of(1);
    document["tombstones"][key] = value;
    return document;
  };
  REFUSED(parse(with("name", "../x")), Status::bundle, "tombstones name '../x'");
  REFUSED(parse(with("rows", kRows + 1)), Status::bundle, "1 of 301 rows are deleted; expected at most the 300");
  REFUSED(parse(with("rows", 0)), Status::bundle, "tombstones of 0 rows");
  REFUSED(parse(with("deleted", 0)), Status::bundle, "expected at least 1");
  REFUSED(parse(with("deleted", -1)), Status::bundle, "expected at least 1");
  REFUSED(parse(with("deleted", 208)), Status::bundle, "208 of 207 rows are deleted");
  REFUSED(parse(with("deleted", 2)), Status::bundle, "the shards hold 298 rows; expected 299");
  REFUSED(parse(with("sha256", 1)), Status::bundle, "`sha256` is 1");
  Json document = layout_of(1);
  document.erase("tombstones");
  REFUSED(parse(document), Status::bundle, "`tombstones` is None; expected an object, and only with the reader");
  document = layout_of(1);
  document["reader_features"] = Json::array();
  REFUSED(parse(document), Status::bundle, "only with the reader feature tombstones");
}

void the_layout_before() {
  const writer::Directory directory;
  write_table(directory, {5});
  directory.write("table.previous.json", writer::table_json({200, 100}, kDim, 64).dump());
  CHECK(!fllm::Layout::load(directory.path()).recovered);
  for (const std::string& text : {std::string(), std::string(500, '\0'), std::string("{\"rows\": 3")}) {
    directory.write("table.json", text);
    const fllm::Layout layout = fllm::Layout::load(directory.path());
    CHECK(layout.recovered && layout.rows == kRows);
  }
  directory.write("table.json", layout_of(250).dump());  // readable, and wrong
  REFUSED(fllm::Layout::load(directory.path()), Status::bundle, "250 of 207");
}

void no_search_finds_one() {
  const writer::Directory directory;
  std::set<std::uint64_t> deleted;
  for (std::uint64_t row = 0; row < kBits; ++row) {
    if (row % 3 == 0 || (row >= 64 && row < 128)) deleted.insert(row);  // one tile of deleted rows alone
  }
  write_table(directory, deleted);
  const fllm::Table table(directory.path());
  fllm::CpuEngine engine(table, *fllm::kernels::find(""), 2, false);
  std::vector<float> z(12 * kDim);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = std::sin(static_cast<float>(i));
  for (const std::size_t items : {1, 12}) {
    fllm::Search search;
    search.z = z.data();
    search.items = items;
    search.k = static_cast<std::size_t>(table.layout().rows);
    std::vector<fllm::Column> columns;
    for (std::size_t item = 0; item < items; ++item) columns.push_back({&search, item});
    for (const fllm::ItemAnswer& answer : engine.scan(columns)) {
      CHECK(answer.users.size() == search.k && answer.rows_scored == search.k && answer.complete);
      double sum = 0;
      for (const fllm::Candidate& user : answer.users) {
        CHECK(!deleted.contains(static_cast<std::uint64_t>(user.id) / 3));
        sum += std::exp(static_cast<double>(user.score - answer.users[0].score));
      }
      const double best = answer.users[0].score;
      CHECK(std::abs(answer.logsumexp - (best + std::log(sum))) < 1e-4 + 1e-6 * std::abs(best));
    }
  }
  const std::int64_t ids[] = {0, 3, 6, 9, 12};  // of rows 0 to 4; 0 and 3 are deleted
  CHECK(fllm::UserFilter(table, ids, 5, false).allowed() == 3);
  CHECK(fllm::UserFilter(table, ids, 5, true).allowed() == table.layout().rows - 3);
}

}  // namespace

int main() {
  bits_by_row();
  lies();
  layouts();
  the_layout_before();
  no_search_finds_one();
  return check::result();
}

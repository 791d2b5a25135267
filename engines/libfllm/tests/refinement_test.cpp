// Refinement rows: files that are read, and files that are refused.
#include "format/refinement.hpp"

#include <cstring>

#include "refinement_writer.hpp"
#include "refusal.hpp"

namespace {

using fllm::Status;
using writer::Json;

void rows_by_their_number() {
  const writer::Directory directory;
  writer::write_refined(directory);
  for (const bool resident : {false, true}) {
    const fllm::Table table(directory.path(), {resident});
    const fllm::Refinement* refinement = table.refinement();
    CHECK(refinement != nullptr && refinement->row_bytes() == writer::kDim &&
          table.layout().item_dim() == writer::kDim);
    std::vector<std::uint64_t> numbers;
    for (const std::uint64_t number : {0, 999, 1000, 1499}) {
      const std::vector<writer::Piece> pieces = writer::refinement_pieces(number, 1);
      const fllm::Refinement::Row row = refinement->row(number);
      CHECK(std::memcmp(row.codes, pieces[0].bytes.data(), writer::kDim) == 0);
      CHECK(std::memcmp(row.scale, pieces[1].bytes.data(), sizeof(float)) == 0 && row.bias == nullptr);
      numbers.push_back(number);
    }
    refinement->prefetch(numbers);
    refinement->prefetch(std::vector<std::uint64_t>{});
  }
}

template <typename Edit>
void refused(Edit edit, const std::string& words) {
  Json document = writer::refined_json();
  edit(document);
  REFUSED(fllm::Layout::parse(document.dump(), "users/table.json"), Status::bundle, words);
}

void layouts_that_lie() {
  const auto set = [](const char* key, const Json& value) {
    return [key, value](Json& document) { document["refinement"][key] = value; };
  };
  refused(set("codec", "fp8"), "the codec of the refinement is 'fp8'; expected one of int8, fp16");
  refused(set("codec", 1), "`codec` is 1");
  refused(set("dim", 7), "the refinement has 7 dimensions; expected at least the 8 of the rows");
  refused(set("dim", 0), "dim is 0; expected at least 1");
  refused(set("dim", std::uint64_t{1} << 60), "dim is 1152921504606846976; expected less than");
  refused(set("shards", Json::array()), "the shards of the refinement hold other rows than those of the table");
  refused(set("shards", "none"), "`shards` is 'none'");
  refused([](Json& document) { document["refinement"]["shards"][1]["rows"] = 501; }, "hold other rows");
  refused([](Json& document) { document["refinement"]["shards"][1]["name"] = "../a"; }, "shard name '../a'");
  refused([](Json& document) { document["refinement"] = Json::array(); }, "`refinement` is ");
  refused([](Json& document) { document.erase("refinement"); }, "`refinement` is missing; expected both or neither");
  refused([](Json& document) { document.erase("reader_features"); }, "`refinement` is not one of the reader features");
}

void files_that_lie() {
  const writer::Directory directory;
  writer::write_refined(directory);
  const auto open = [&] { fllm::Table table(directory.path()); };
  const auto lie = [&](const std::vector<writer::Piece>& pieces, const std::string& words) {
    directory.write(writer::refinement_name(1), writer::shard_of(pieces));
    REFUSED(open(), Status::bundle, words);
  };
  lie(writer::refinement_pieces(1000, 499),
      "refine-00001.safetensors: tensor `codes` is I8 [499, 12]; expected I8 [500, 12]");
  lie(writer::int8_pieces(1000, 500, writer::kScanDim), "tensor `codes` is I8 [500, 8]; expected I8 [500, 12]");
  std::vector<writer::Piece> pieces = writer::refinement_pieces(1000, 500);
  pieces.pop_back();
  lie(pieces, "has no tensor `scales`; expected codes, scales");
  const std::string whole = writer::shard_of(writer::refinement_pieces(1000, 500));
  for (const std::size_t length : {std::size_t{0}, std::size_t{4}, whole.size() - 1}) {
    directory.write(writer::refinement_name(1), whole.substr(0, length));
    REFUSED(open(), Status::bundle, "refine-00001.safetensors");
  }
}

}  // namespace

int main() {
  rows_by_their_number();
  layouts_that_lie();
  files_that_lie();
  return check::result();
}

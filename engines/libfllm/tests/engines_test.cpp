// The table of engines: what it lists is what is served, and what it does not list is refused by name.
#include <cstring>
#include <fllm/fllm.hpp>
#include <fstream>
#include <string>

#include "check.hpp"
#include "engine_cases.hpp"

using namespace engine_cases;

namespace {

fllm::TableOptions named(const std::string& engine) {
  fllm::TableOptions options;
  options.engine = engine;
  return options;
}

void engines_are_listed() {
  const std::vector<fllm_engine_info> listed = fllm::engines();
  CHECK(listed.size() == 3);
  CHECK(std::strcmp(listed[0].name, "native") == 0 &&
        std::strcmp(listed[0].codecs, "fp32,fp16,int8,fp8,int4,int4row,int2,int1") == 0);
  CHECK(std::strcmp(listed[1].name, "cuda") == 0 && std::strcmp(listed[1].codecs, "int8,fp8,int4row,int2") == 0);
  CHECK(listed[0].takes_plan == 0 && listed[1].takes_plan == 0 && listed[2].takes_plan == 1);
  fllm_engine_info first;
  CHECK(fllm_engines(&first, 1) == listed.size());
  CHECK(std::strcmp(first.name, "native") == 0);
}

void an_open_table_knows_its_engine(const RandomTable& table) {
  CHECK(table.open({}).describe().engine == std::string("native"));
  CHECK(table.open(named("cuda")).describe().engine == std::string("cuda"));
}

void what_is_not_listed_is_refused(const RandomTable& table) {
  CHECK(status_of([&] { table.open(named("quantum")); },
                  "there is no engine 'quantum'; expected 'native', 'cuda' or 'tensorrt'") == FLLM_USAGE);
  writer::Json json = writer::table_json({64}, kDim / 2, 64);
  json["codec"] = "fp16";
  writer::Directory halves;
  const std::vector<std::uint16_t> codes(64 * kDim / 2);
  const std::vector<float> scales(64, 1.0f);
  std::vector<std::int64_t> ids(64);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int64_t>(i);
  halves.write(writer::shard_name(0), writer::shard_of({{"codes", "F16", {64, kDim / 2}, writer::bytes_of(codes)},
                                                        {"scales", "F32", {64}, writer::bytes_of(scales)},
                                                        {"ids", "I64", {64}, writer::bytes_of(ids)}}));
  halves.write("table.json", json.dump());
  for (const fllm_engine_info& kind : fllm::engines()) {
    fllm::TableOptions options = named(kind.name);
    if (kind.takes_plan != 0) options.plan = "no such file";
    const std::string codecs =
        kind.name == std::string("cuda") ? "'int8', 'fp8', 'int4row' or 'int2'" : "'int8' or 'fp8'";
    const fllm_status status =
        status_of([&] { fllm::Table(halves.path(), options); },
                  "cannot scan fp16 rows; expected a table of codec " + codecs + ". Use the engine 'native'");
    CHECK(status == (std::strstr(kind.codecs, "fp16") != nullptr ? FLLM_OK : FLLM_USAGE));
  }
}

void powers_are_refused_where_exponentials_are_computed() {
  const RandomTable table({{64}});
  writer::Json json = writer::Json::parse(std::ifstream(table.directory().path() + "/table.json"));
  json["reader_features"] = writer::Json::array({"link"});
  json["link"] = {{"kind", "power"}, {"exponent", 2}};
  std::ofstream(table.directory().path() + "/table.json") << json.dump();
  CHECK(table.open({}).describe().link_exponent == 2);
  fllm::TableOptions options = named("tensorrt");
  options.plan = "no such file";
  for (const fllm::TableOptions& each : {named("cuda"), options}) {
    CHECK(status_of([&] { table.open(each); }, "computes exponentials, and the link of this table is a power") ==
          FLLM_USAGE);
  }
}

}  // namespace

int main() {
  const RandomTable table({{3000}});
  engines_are_listed();
  an_open_table_knows_its_engine(table);
  what_is_not_listed_is_refused(table);
  powers_are_refused_where_exponentials_are_computed();
  return check::result();
}

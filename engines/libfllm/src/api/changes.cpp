// The C interface of changes of a table.
#include <cstring>
#include <optional>

#include "api/boundary.hpp"
#include "changes/living_table.hpp"
#include "fllm/fllm.h"

namespace {

using fllm::guarded;
using fllm::read_options;
using fllm::require;
using fllm::changes::Change;
using fllm::changes::GivenRows;
using fllm::changes::LivingTable;

using Generation = std::optional<std::int64_t>;

// Makes a change, and tells the caller what has become of the table. `make` takes the table and the wanted generation.
template <typename Make>
void changed(const char* directory, const fllm_change_options* options, fllm_change* told, Make&& make) {
  require(directory != nullptr, "directory is NULL", "the path of a table");
  const fllm_change_options given =
      read_options(options, fllm_change_options FLLM_CHANGE_OPTIONS_INIT, "fllm_change_options");
  fllm_change out = read_options(told, fllm_change FLLM_CHANGE_INIT, "fllm_change");
  require(given.if_generation >= 0, "if_generation is below 0", "a generation, or 0 for any");
  fllm::changes::Disk disk;
  LivingTable table(directory, disk);
  const Change change = make(table, given.if_generation == 0 ? Generation() : Generation(given.if_generation));
  if (told == nullptr) return;
  const std::size_t size = out.size;
  out = {size,           change.generation, change.users,  change.appended,
         change.updated, change.deleted,    change.shards, change.deleted_rows};
  std::memcpy(told, &out, size);
}

GivenRows given_rows(const float* rows, std::size_t n, const float* bias, const std::int64_t* ids) {
  require(rows != nullptr && ids != nullptr, "rows or user_ids is NULL", "arrays");
  return {rows, bias, ids, n};
}

}  // namespace

fllm_status fllm_users_delete(const char* directory, const int64_t* user_ids, size_t n,
                              const fllm_change_options* options, fllm_change* change, fllm_error* error) {
  return guarded(error, [&] {
    require(user_ids != nullptr, "user_ids is NULL", "an array of n ids");
    changed(directory, options, change,
            [&](LivingTable& table, Generation wanted) { return table.remove({user_ids, n}, wanted); });
  });
}

fllm_status fllm_users_append(const char* directory, const float* rows, size_t n, size_t dim, const float* bias,
                              const int64_t* user_ids, const fllm_change_options* options, fllm_change* change,
                              fllm_error* error) {
  return guarded(error, [&] {
    const GivenRows given = given_rows(rows, n, bias, user_ids);
    changed(directory, options, change,
            [&](LivingTable& table, Generation wanted) { return table.append(given, dim, wanted); });
  });
}

fllm_status fllm_users_update(const char* directory, const float* rows, size_t n, size_t dim, const float* bias,
                              const int64_t* user_ids, const fllm_change_options* options, fllm_change* change,
                              fllm_error* error) {
  return guarded(error, [&] {
    const GivenRows given = given_rows(rows, n, bias, user_ids);
    changed(directory, options, change,
            [&](LivingTable& table, Generation wanted) { return table.update(given, dim, wanted); });
  });
}

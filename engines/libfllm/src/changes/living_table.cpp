#include "changes/living_table.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>

#include "changes/refusal.hpp"
#include "changes/unused_files.hpp"
#include "changes/user_rows.hpp"
#include "changes/writer_lock.hpp"
#include "write/fixed_point.hpp"

namespace fllm::changes {

namespace {

[[noreturn]] void refuse(const std::string& found, const std::string& expected, const std::string& fix = "") {
  throw Error(Status::usage, sentence(found, expected, fix));
}

void check_ids(std::span<const std::int64_t> ids) {
  if (ids.empty()) return;
  std::vector<std::int64_t> ascending(ids.begin(), ids.end());
  std::sort(ascending.begin(), ascending.end());
  if (ascending.front() < 0) refuse("a user id is " + std::to_string(ascending.front()), "ids from 0 to 2^63 - 1");
  const auto twice = std::adjacent_find(ascending.begin(), ascending.end());
  if (twice != ascending.end()) refuse("the ids hold " + std::to_string(*twice) + " twice", "each id once");
}

void check_numbers(const float* numbers, std::size_t n, std::size_t width, const std::string& what) {
  const auto end = numbers + n * width;
  const auto found = std::find_if_not(numbers, end, [](float number) { return std::isfinite(number); });
  if (found == end) return;
  refuse(what + " " + std::to_string(static_cast<std::size_t>(found - numbers) / width) +
             " (counted from 0) holds a number that is not finite",
         "finite numbers");
}

void check_rows(const GivenRows& given, std::size_t dim, const Layout& layout) {
  if (dim != layout.dim) {
    refuse("the rows have " + std::to_string(dim) + " dimensions", std::to_string(layout.dim) + ", as the table's");
  }
  if (dim > writing::kDimMax) refuse("the rows have " + std::to_string(dim) + " dimensions", "at most 65536");
  if (given.n == 0) refuse("no rows were given", "at least one user");
  if (layout.bias != (given.bias != nullptr)) {
    refuse(layout.bias ? "no bias was given" : "bias was given",
           layout.bias ? "bias for every row" : "no bias, as the table has none");
  }
  check_numbers(given.rows, given.n, dim, "row");
  if (layout.bias) check_numbers(given.bias, given.n, 1, "bias");
}

// The rows of users, all of which must be in the table.
std::vector<std::uint64_t> found(const Table& table, std::span<const std::int64_t> ids, const std::string& fix) {
  std::vector<std::uint64_t> rows = find_users(table, ids);
  const auto missing = std::find(rows.begin(), rows.end(), kNoRow);
  if (missing != rows.end()) {
    refuse("user id " + std::to_string(ids[static_cast<std::size_t>(missing - rows.begin())]) + " is not in the table",
           "ids of users that the table has", fix);
  }
  return rows;
}

void require_new(const Table& table, std::span<const std::int64_t> ids) {
  const std::vector<std::uint64_t> rows = find_users(table, ids);
  const auto known = std::find_if(rows.begin(), rows.end(), [](std::uint64_t row) { return row != kNoRow; });
  if (known == rows.end()) return;
  refuse("user id " + std::to_string(ids[static_cast<std::size_t>(known - rows.begin())]) + " is in the table already",
         "ids of new users", "Use update for users that the table has");
}

Change change_of(const nlohmann::json& document) {
  Change change;
  change.generation = document["generation"].get<std::int64_t>();
  change.users = document["rows"].get<std::uint64_t>();
  change.shards = document["shards"].size();
  if (document.contains("tombstones")) change.deleted_rows = document["tombstones"]["deleted"].get<std::uint64_t>();
  return change;
}

// Before anything is made in a directory that holds something else.
void require_table(const std::string& directory) {
  std::error_code code;
  if (std::filesystem::is_regular_file(std::filesystem::path(directory) / Layout::kFileName, code)) return;
  throw Error(Status::bundle, sentence(directory + " holds no " + Layout::kFileName, "a user table",
                                       "Name the directory that holds it"));
}

// What a change that the system refused has left, for the message.
std::string state_of(const Snapshot* now, bool publishing) {
  if (!publishing) return "the table is unchanged";
  try {
    return now->text_now() == now->text ? "the table is unchanged" : "the change was made, and a power cut may undo it";
  } catch (const Error&) {
    return "open it again to see whether the change was made";
  }
}

}  // namespace

Change LivingTable::drafted(std::optional<std::int64_t> if_generation, bool gives_rows, const Work& work) {
  require_table(directory_);
  std::unique_ptr<Snapshot> now;
  std::unique_ptr<Draft> draft;
  try {
    const WriterLock lock(directory_);
    now = std::make_unique<Snapshot>(directory_);
    const std::int64_t generation = now->table.layout().generation;
    if (if_generation && *if_generation != generation) {
      refuse(directory_ + " is of generation " + std::to_string(generation),
             std::to_string(*if_generation) + ", as if_generation says", "Open the table again, and decide again");
    }
    now->require_changeable(gives_rows);
    draft = std::make_unique<Draft>(*now, disk_);
    work(*now, *draft);
    draft->publish();
    remove_unused(directory_, draft->document(), now->document, disk_);
    return change_of(draft->document());
  } catch (const Refusal& refusal) {
    throw error_of(refusal, state_of(now.get(), draft != nullptr && draft->publishing()));
  }
}

Change LivingTable::remove(std::span<const std::int64_t> ids, std::optional<std::int64_t> if_generation) {
  check_ids(ids);
  if (ids.empty()) refuse("no ids were given", "at least one user");
  Change change = drafted(if_generation, false, [&](const Snapshot& now, Draft& draft) {
    const std::uint64_t users = now.table.layout().rows;
    if (ids.size() >= users) {
      refuse(std::to_string(ids.size()) + " users are to be deleted of " + std::to_string(users), "a user that stays");
    }
    draft.remove(found(now.table, ids, "Leave it out"));
  });
  change.deleted = ids.size();
  return change;
}

Change LivingTable::put(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation, bool fresh) {
  const std::span<const std::int64_t> ids(rows.ids, rows.n);
  check_ids(ids);
  return drafted(if_generation, true, [&](const Snapshot& now, Draft& draft) {
    check_rows(rows, dim, now.table.layout());
    if (fresh) {
      require_new(now.table, ids);
    } else {
      draft.remove(found(now.table, ids, "Use append for new users"));
    }
    draft.add(rows);
    draft.merge();
  });
}

Change LivingTable::append(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation) {
  Change change = put(rows, dim, if_generation, true);
  change.appended = rows.n;
  return change;
}

Change LivingTable::update(const GivenRows& rows, std::size_t dim, std::optional<std::int64_t> if_generation) {
  Change change = put(rows, dim, if_generation, false);
  change.updated = rows.n;
  return change;
}

}  // namespace fllm::changes

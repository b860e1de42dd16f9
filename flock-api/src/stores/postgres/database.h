// SPDX-License-Identifier: Apache-2.0
// PostgreSQL over libpq's pipeline mode on the loop's descriptors. Every statement runs inside a
// tenant wall: row-level security reads `flock.org_id`, which is set for the one transaction and
// never for the connection.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "base/error.h"
#include "base/id.h"
#include "base/secret.h"
#include "base/time.h"

namespace flock::postgres {

// Whose rows a statement may see. `system()` is for the jobs that serve all tenants: key lookup
// before the tenant is known, the scheduler and the ingester. Their statements still name `org_id`
// wherever they know it.
class Scope {
 public:
  static Scope tenant(const OrgId& org) { return Scope(org.text()); }
  // Only what belongs to these fleets, and what belongs to no fleet in particular.
  static Scope fleets(const OrgId& org, const std::vector<std::string>& fleet_ids);
  static Scope system() { return Scope(""); }
  const std::string& org() const noexcept { return org_; }
  const std::string& fleets() const noexcept { return fleets_; }  // "*" for all

 private:
  explicit Scope(std::string org) : org_(std::move(org)) {}
  std::string org_, fleets_ = "*";
};

// Values for $1, $2, ...; text on the wire, so the statement casts where PostgreSQL cannot know the
// type.
class Params {
 public:
  Params& text(std::string value);
  Params& text(const std::optional<std::string>& value);
  Params& integer(std::int64_t value);
  Params& real(double value);
  Params& boolean(bool value);
  Params& time(TimePoint value);
  Params& time(const std::optional<TimePoint>& value);
  Params& bytes(std::string_view value);                  // bytea
  Params& texts(const std::vector<std::string>& values);  // text[] or uuid[]
  const std::vector<std::optional<std::string>>& values() const noexcept { return values_; }

 private:
  std::vector<std::optional<std::string>> values_;
};

class Row {
 public:
  Row(std::shared_ptr<const std::vector<std::string>> columns,
      std::vector<std::optional<std::string>> values)
      : columns_(std::move(columns)), values_(std::move(values)) {}
  // Each throws Error{kInternal} for an unknown column or, where it is not optional, for NULL.
  const std::string& text(std::string_view column) const;
  std::optional<std::string> optional_text(std::string_view column) const;
  // An array, selected with array_to_string(column, ','): of what holds no comma.
  std::vector<std::string> texts(std::string_view column) const;
  std::optional<std::vector<std::string>> optional_texts(std::string_view column) const;
  std::int64_t integer(std::string_view column) const;
  std::optional<std::int64_t> optional_integer(std::string_view column) const;
  double real(std::string_view column) const;
  bool boolean(std::string_view column) const;
  TimePoint time(std::string_view column) const;  // select with flock_ms(column)
  std::optional<TimePoint> optional_time(std::string_view column) const;
  std::string bytes(std::string_view column) const;

 private:
  const std::optional<std::string>& value(std::string_view column) const;
  std::shared_ptr<const std::vector<std::string>> columns_;
  std::vector<std::optional<std::string>> values_;
};

struct Rows {
  std::shared_ptr<std::vector<std::string>> columns;
  std::vector<Row> rows;
  std::int64_t affected = 0;
  bool empty() const noexcept { return rows.empty(); }
  const Row* first() const noexcept { return rows.empty() ? nullptr : &rows.front(); }
};

class Connection;

class Transaction {
 public:
  explicit Transaction(Connection& connection) : connection_(connection) {}
  Task<Rows> query(const char* sql, Params params = {});
  // What was done is undone at the end instead of committed.
  void roll_back() noexcept { rolled_back_ = true; }
  bool rolled_back() const noexcept { return rolled_back_; }

 private:
  Connection& connection_;
  bool rolled_back_ = false;
};

struct Options {
  std::string url;
  Secret password;
  std::int64_t pool_size = 8;
  Duration statement_time = Duration(30'000);
};

class Database;

// One leadership of the process (Database::lead). What is asked through it is refused, with
// Error{kConflict} that deposed() knows, from the moment that another process leads: who was
// stopped for a while and goes on does nothing a second time.
class Term {
 public:
  // Grows with each leadership.
  std::int64_t number() const noexcept { return number_; }
  // As Database's.
  Task<Rows> query(Scope scope, const char* sql, Params params = {});
  Task<void> transaction(Scope scope, std::function<Task<void>(Transaction&)> work);

 private:
  friend class Database;
  Term(Database& db, std::int64_t key, std::int64_t number)
      : db_(&db), key_(key), number_(number) {}
  Database* db_;
  std::int64_t key_, number_;
};
bool deposed(const Error& error);

class Database {
 public:
  Database(Executor executor, Options options);
  ~Database();

  // One statement in a transaction of its own, sent in one round trip. Unique and foreign keys:
  // kConflict with `constraint` in the context. Connection lost: kUnavailable.
  Task<Rows> query(Scope scope, const char* sql, Params params = {});
  // Commits when `work` returns, rolls back when it throws. A serialization failure runs `work`
  // again, up to 3 times in all.
  Task<void> transaction(Scope scope, std::function<Task<void>(Transaction&)> work);
  // Runs `work` while this process holds the session lock `key`; waits until it gets it. A holder
  // that gave no sign of life for kLease loses it. When the lock is lost, or `work` ends because it
  // was deposed, `work` is cancelled and the wait begins anew. Ends with kCancelled.
  Task<void> lead(std::int64_t key, std::function<Task<void>(Term)> work);
  // Applies what is missing of the embedded migrations, under a lock. Throws when an applied one
  // was changed.
  Task<void> migrate();
  // Closes idle connections.
  void close();

 private:
  friend class Term;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// How long a leader that gives no sign of life is believed.
inline constexpr Duration kLease{10'000};

// The embedded files of flock-api/migrations, in order.
struct Migration {
  std::string_view name, sql;
};
std::vector<Migration> embedded_migrations();

}  // namespace flock::postgres

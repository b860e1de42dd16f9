// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/database.h"

#include <deque>

#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/log.h"
#include "crypto/keys.h"
#include "stores/postgres/connection.h"

namespace flock::postgres {
namespace {

constexpr Duration kConnectTime{10'000};
constexpr std::int64_t kMigrationLock = 0x666c6f636b01;  // "flock", 1

// `true`: for this transaction only.
constexpr const char* kEnterTenant =
    "SELECT set_config('flock.org_id', $1, true), set_config('flock.fleets', $2, true)";
constexpr const char* kEnterSystem = "SELECT set_config('flock.system', 'on', true)";

Command enter(const Scope& scope) {
  if (scope.org().empty()) return {kEnterSystem, {}};
  return {kEnterTenant, Params().text(scope.org()).text(scope.fleets())};
}

// `lock`: a session's, which goes with its connection. The lease beside it says who holds it, and
// since when that one gave no sign of life. Whoever takes it waits for what was begun in the term
// before (flock_fence).
constexpr const char* kLock = "SELECT pg_try_advisory_lock($1::bigint) AS got";
constexpr const char* kTakeLease =
    "INSERT INTO leases AS l (key, term, expires_at) VALUES ($1::bigint, 1, clock_timestamp() + "
    "$2::bigint * interval '1 millisecond') ON CONFLICT (key) DO UPDATE SET term = l.term + 1, "
    "expires_at = excluded.expires_at RETURNING term";
constexpr const char* kKeepLease =
    "UPDATE leases SET expires_at = clock_timestamp() + $3::bigint * interval '1 millisecond' "
    "WHERE key = $1::bigint AND term = $2::bigint RETURNING 1 AS kept";
constexpr const char* kEndSilentLeader =
    "SELECT pg_terminate_backend(l.pid) AS ended FROM pg_locks l JOIN leases s ON s.key = "
    "$1::bigint AND s.expires_at < clock_timestamp() WHERE l.locktype = 'advisory' AND l.granted "
    "AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database WHERE datname = "
    "current_database()) AND (l.classid::bigint << 32) | l.objid::bigint = $1::bigint";
constexpr const char* kFence = "SELECT flock_fence($1::bigint, $2::bigint)";
constexpr Duration kKeepEvery{2000};

std::string state_of(const Error& error) {
  for (const auto& [key, value] : error.context())
    if (key == "sqlstate") return value;
  return "";
}
bool worth_retrying(const Error& error) {
  const std::string state = state_of(error);
  return state == "40001" || state == "40P01";
}

}  // namespace

bool deposed(const Error& error) { return state_of(error) == kDeposed; }

struct Database::Impl {
  using ConnectionPtr = std::unique_ptr<Connection>;

  Impl(Executor e, Options o) : executor(std::move(e)), options(std::move(o)) {}

  Task<ConnectionPtr> open() {
    Task<ConnectionPtr> opening = Connection::open(options);
    co_return co_await with_deadline(std::move(opening), kConnectTime,
                                     "connecting to the database");
  }

  Task<ConnectionPtr> take() {
    co_await take_place();
    if (!idle.empty()) {
      ConnectionPtr connection = std::move(idle.back());
      idle.pop_back();
      co_return connection;
    }
    std::exception_ptr failure;
    try {
      co_return co_await open();
    } catch (...) {
      failure = std::current_exception();
    }
    free_place();
    std::rethrow_exception(failure);
  }

  void give_back(ConnectionPtr connection) {
    if (connection->broken()) {
      idle.clear();  // the server went: the others are as dead
    } else {
      idle.push_back(std::move(connection));
    }
    free_place();
  }

  // Who came first is served first: under load nobody waits much longer than the others.
  struct Waiter {
    explicit Waiter(Executor e) : woken(std::move(e)) {}
    Event woken;
    bool has_place = false;
  };

  Task<void> take_place() {
    if (in_use < options.pool_size) {
      ++in_use;
      co_return;
    }
    const auto me = std::make_shared<Waiter>(executor);
    waiting.push_back(me);
    std::exception_ptr failure;
    try {
      co_await me->woken.wait_for(options.statement_time);
    } catch (...) {
      failure = std::current_exception();
    }
    if (me->has_place && !failure) co_return;
    if (me->has_place)
      free_place();
    else
      std::erase(waiting, me);
    if (failure) std::rethrow_exception(failure);
    throw Error(Code::kUnavailable, "no database connection became free in time");
  }

  Task<Rows> query(std::vector<Command> commands);
  Task<void> transaction(std::vector<Command> begin, std::function<Task<void>(Transaction&)> work);
  Task<std::int64_t> take_lease(Connection& connection, std::int64_t key);
  Task<void> keep_lease(Connection& connection, std::int64_t key, std::int64_t term, Event& ended);

  void free_place() {
    if (waiting.empty()) {
      --in_use;
      return;
    }
    const auto next = std::move(waiting.front());
    waiting.pop_front();
    next->has_place = true;
    next->woken.set();
  }

  Executor executor;
  Options options;
  std::vector<ConnectionPtr> idle;
  std::int64_t in_use = 0;  // places of the pool
  std::deque<std::shared_ptr<Waiter>> waiting;
};

Database::Database(Executor executor, Options options)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options))) {}
Database::~Database() = default;
void Database::close() { impl_->idle.clear(); }

Task<Rows> Transaction::query(const char* sql, Params params) {
  std::vector<Command> commands;
  commands.push_back({sql, std::move(params)});
  auto results = co_await connection_.run(std::move(commands));
  co_return std::move(results.at(0));
}

Scope Scope::fleets(const OrgId& org, const std::vector<std::string>& fleet_ids) {
  Scope scope(org.text());
  // No fleet has this id, so that an empty list is none and not all.
  scope.fleets_ = "none";
  for (const std::string& id : fleet_ids) scope.fleets_ += "," + id;
  return scope;
}

Task<Rows> Database::query(Scope scope, const char* sql, Params params) {
  const auto impl = impl_;
  std::vector<Command> commands;
  commands.push_back(enter(scope));
  commands.push_back({sql, std::move(params)});
  co_return co_await impl->query(std::move(commands));
}

Task<void> Database::transaction(Scope scope, std::function<Task<void>(Transaction&)> work) {
  const auto impl = impl_;
  std::vector<Command> begin;
  begin.push_back({"BEGIN", {}});
  begin.push_back(enter(scope));
  co_await impl->transaction(std::move(begin), std::move(work));
}

Task<Rows> Term::query(Scope scope, const char* sql, Params params) {
  const auto impl = db_->impl_;
  std::vector<Command> commands;
  commands.push_back(enter(scope));
  commands.push_back({kFence, Params().integer(key_).integer(number_)});
  commands.push_back({sql, std::move(params)});
  co_return co_await impl->query(std::move(commands));
}

Task<void> Term::transaction(Scope scope, std::function<Task<void>(Transaction&)> work) {
  const auto impl = db_->impl_;
  std::vector<Command> begin;
  begin.push_back({"BEGIN", {}});
  begin.push_back(enter(scope));
  begin.push_back({kFence, Params().integer(key_).integer(number_)});
  co_await impl->transaction(std::move(begin), std::move(work));
}

// What stands between two syncs of a pipeline is one transaction by itself, which an error undoes.
// Answers what the last command does.
Task<Rows> Database::Impl::query(std::vector<Command> commands) {
  ConnectionPtr connection = co_await take();
  std::exception_ptr failure;
  std::vector<Rows> results;
  try {
    results = co_await connection->run(std::move(commands));
  } catch (...) {
    failure = std::current_exception();
  }
  give_back(std::move(connection));
  if (failure) std::rethrow_exception(failure);
  co_return std::move(results.back());
}

Task<void> Database::Impl::transaction(std::vector<Command> begin,
                                       std::function<Task<void>(Transaction&)> work) {
  for (int attempt = 1;; ++attempt) {
    ConnectionPtr connection = co_await take();
    std::exception_ptr failure;
    bool again = false;
    try {
      co_await connection->run(begin);
      Transaction transaction(*connection);
      co_await work(transaction);
      std::vector<Command> commit;
      commit.push_back({transaction.rolled_back() ? "ROLLBACK" : "COMMIT", {}});
      co_await connection->run(std::move(commit));
    } catch (const Error& error) {
      failure = std::current_exception();
      again = worth_retrying(error) && attempt < 3;
    } catch (...) {
      failure = std::current_exception();
    }
    if (failure && !connection->broken()) {
      try {
        std::vector<Command> rollback;
        rollback.push_back({"ROLLBACK", {}});
        co_await connection->run(std::move(rollback));
      } catch (const Error&) {
      }
    }
    give_back(std::move(connection));
    if (!failure) co_return;
    if (!again) std::rethrow_exception(failure);
  }
}

// The number of the term that begins, or 0: another process leads.
Task<std::int64_t> Database::Impl::take_lease(Connection& connection, std::int64_t key) {
  std::vector<Command> ask;
  ask.push_back({kLock, Params().integer(key)});
  const bool got = (co_await connection.run(std::move(ask))).at(0).rows.at(0).boolean("got");
  std::vector<Command> take;
  take.push_back(enter(Scope::system()));
  take.push_back(got ? Command{kTakeLease, Params().integer(key).integer(kLease.count())}
                     : Command{kEndSilentLeader, Params().integer(key)});
  const Rows answer = (co_await connection.run(std::move(take))).at(1);
  if (!got && !answer.empty()) log::warn("a leader that gives no sign of life loses its place");
  co_return got ? answer.rows.at(0).integer("term") : 0;
}

// The lock lives as long as the session: a lost connection shows when the lease is extended.
Task<void> Database::Impl::keep_lease(Connection& connection, std::int64_t key, std::int64_t term,
                                      Event& ended) {
  while (!co_await ended.wait_for(kKeepEvery)) {
    std::vector<Command> keep;
    keep.push_back(enter(Scope::system()));
    keep.push_back({kKeepLease, Params().integer(key).integer(term).integer(kLease.count())});
    if ((co_await connection.run(std::move(keep))).at(1).empty())
      throw Error(Code::kConflict, "another process leads now");
  }
}

Task<void> Database::lead(std::int64_t key, std::function<Task<void>(Term)> work) {
  const auto impl = impl_;
  Backoff backoff(Duration(500), Duration(1500));
  for (;;) {
    Impl::ConnectionPtr connection;
    std::int64_t term = 0;
    try {
      connection = co_await impl->open();
      term = co_await impl->take_lease(*connection, key);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot ask for the leader's lock", error);
    }
    if (term == 0) {
      connection.reset();
      co_await sleep_for(Duration(500) + backoff.next());
      continue;
    }
    log::info("this process leads now", {{"term", term}});
    backoff.reset();
    TaskScope scope(impl->executor);
    std::exception_ptr failure;
    Event ended(impl->executor);
    scope.on_failure([&](const std::string&, std::exception_ptr error) {
      failure = error;
      ended.set();
    });
    scope.spawn("leader", work(Term(*this, key, term)));
    std::exception_ptr end;
    bool by_itself = false;
    try {
      co_await impl->keep_lease(*connection, key, term, ended);
      by_itself = true;
      end = failure;
    } catch (...) {
      end = std::current_exception();
    }
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await scope.finish();
    co_await asio::this_coro::throw_if_cancelled(true);
    try {
      std::rethrow_exception(end);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled || (by_itself && !deposed(error))) throw;
      log::warn("this process leads no more", error);
    }
  }
}

Task<void> Database::migrate() {
  const auto impl = impl_;
  Impl::ConnectionPtr connection = co_await impl->open();
  const auto run = [&](std::string sql, Params params) -> Task<Rows> {
    std::vector<Command> commands;
    commands.push_back({std::move(sql), std::move(params)});
    auto results = co_await connection->run(std::move(commands));
    co_return std::move(results.at(0));
  };
  co_await run("SELECT pg_advisory_lock($1::bigint)", Params().integer(kMigrationLock));
  co_await run(
      "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL, "
      "applied_at timestamptz NOT NULL DEFAULT now())",
      {});
  const Rows applied = co_await run("SELECT name, sha256 FROM schema_migrations", {});
  for (const Migration& migration : embedded_migrations()) {
    const std::string name(migration.name), sum = to_hex(crypto::sha256(migration.sql));
    bool done = false;
    for (const Row& row : applied.rows) {
      if (row.text("name") != name) continue;
      done = true;
      if (row.text("sha256") != sum) {
        throw Error(Code::kCorrupt, "an applied migration was changed since")
            .with("migration", name)
            .hint("migrations are forward only: add a new file");
      }
    }
    if (done) continue;
    co_await connection->run_script("BEGIN;" + std::string(migration.sql) +
                                    "; INSERT INTO schema_migrations(name, sha256) VALUES ('" +
                                    name + "', '" + sum + "'); COMMIT;");
    log::info("migration applied", {{"migration", name}});
  }
}

}  // namespace flock::postgres

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

bool worth_retrying(const Error& error) {
  for (const auto& [key, value] : error.context()) {
    if (key == "sqlstate") return value == "40001" || value == "40P01";
  }
  return false;
}

}  // namespace

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

// What stands between two syncs of a pipeline is one transaction by itself, which an error undoes.
Task<Rows> Database::query(Scope scope, const char* sql, Params params) {
  const auto impl = impl_;
  Impl::ConnectionPtr connection = co_await impl->take();
  std::vector<Command> commands;
  commands.push_back(enter(scope));
  commands.push_back({sql, std::move(params)});
  std::exception_ptr failure;
  std::vector<Rows> results;
  try {
    results = co_await connection->run(std::move(commands));
  } catch (...) {
    failure = std::current_exception();
  }
  impl->give_back(std::move(connection));
  if (failure) std::rethrow_exception(failure);
  co_return std::move(results.at(1));
}

Task<void> Database::transaction(Scope scope, std::function<Task<void>(Transaction&)> work) {
  const auto impl = impl_;
  for (int attempt = 1;; ++attempt) {
    Impl::ConnectionPtr connection = co_await impl->take();
    std::exception_ptr failure;
    bool again = false;
    try {
      std::vector<Command> begin;
      begin.push_back({"BEGIN", {}});
      begin.push_back(enter(scope));
      co_await connection->run(std::move(begin));
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
    impl->give_back(std::move(connection));
    if (!failure) co_return;
    if (!again) std::rethrow_exception(failure);
  }
}

Task<void> Database::lead(std::int64_t key, std::function<Task<void>()> work) {
  const auto impl = impl_;
  Backoff backoff(Duration(500), Duration(5000));
  for (;;) {
    Impl::ConnectionPtr connection;
    bool leads = false;
    try {
      connection = co_await impl->open();
      std::vector<Command> commands;
      commands.push_back({"SELECT pg_try_advisory_lock($1::bigint) AS got", Params().integer(key)});
      leads = (co_await connection->run(std::move(commands))).at(0).rows.at(0).boolean("got");
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot ask for the leader's lock", error);
    }
    if (!leads) {
      connection.reset();
      co_await sleep_for(Duration(500) + backoff.next());
      continue;
    }
    log::info("this process leads now");
    backoff.reset();
    TaskScope scope(impl->executor);
    std::exception_ptr failure;
    Event ended(impl->executor);
    scope.on_failure([&](const std::string&, std::exception_ptr error) {
      failure = error;
      ended.set();
    });
    scope.spawn("leader", work());
    std::exception_ptr stopped;
    try {
      // The lock lives as long as the session: a lost connection shows at the next question.
      while (!co_await ended.wait_for(Duration(2000))) {
        std::vector<Command> ping;
        ping.push_back({"SELECT 1", {}});
        co_await connection->run(std::move(ping));
      }
    } catch (...) {
      stopped = std::current_exception();
    }
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await scope.finish();
    co_await asio::this_coro::throw_if_cancelled(true);
    if (stopped) {
      try {
        std::rethrow_exception(stopped);
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("lost the leader's lock", error);
      }
    } else if (failure) {
      std::rethrow_exception(failure);
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

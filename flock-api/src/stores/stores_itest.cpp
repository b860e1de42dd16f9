// SPDX-License-Identifier: Apache-2.0
// The stores against real servers: PostgreSQL and Valkey (or Redis).
#include <gtest/gtest.h>

#include <boost/system/system_error.hpp>
#include <random>

#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/files.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

class PostgresStore : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!flock::testing::require({"postgres", "initdb", "psql"})) return;
    server = std::make_unique<flock::testing::Postgres>();
    server->start();
  }
  static void TearDownTestSuite() { server.reset(); }
  void SetUp() override {
    if (!server) GTEST_SKIP() << "PostgreSQL is not installed";
  }
  static postgres::Options options() {
    postgres::Options out;
    out.url = server->url();
    out.password = Secret(read_secret_file(server->password_file()));
    out.pool_size = 4;
    return out;
  }
  static Task<OrgId> make_org(postgres::Database& db) {
    const OrgId id = OrgId::fresh();
    co_await db.query(Scope::system(),
                      "INSERT INTO organizations(id, name, slug) VALUES ($1, 'o', $2)",
                      Params().text(id.text()).text(id.text()));
    co_return id;
  }
  static std::unique_ptr<flock::testing::Postgres> server;
};
std::unique_ptr<flock::testing::Postgres> PostgresStore::server;

TEST_F(PostgresStore, MigratesOnceAndKeepsTenantsApart) {
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        co_await db.migrate();
        co_await db.migrate();
        const OrgId mine = co_await make_org(db), theirs = co_await make_org(db);
        const char* insert = "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'f')";
        co_await db.query(Scope::tenant(mine), insert, Params().text(new_uuid()).text(mine.text()));
        // A statement that forgets org_id still sees nothing of others, and cannot write for them.
        const auto seen = co_await db.query(Scope::tenant(theirs), "SELECT id FROM fleets");
        EXPECT_TRUE(seen.empty());
        const auto forge = [&]() -> Task<void> {
          co_await db.query(Scope::tenant(theirs), insert,
                            Params().text(new_uuid()).text(mine.text()));
        };
        EXPECT_EQ(co_await code_of_task(forge()), Code::kInternal);
        // The wall does not stay on the connection: the next statement has its own.
        const auto own = co_await db.query(Scope::tenant(mine), "SELECT id FROM fleets");
        EXPECT_EQ(own.rows.size(), 1u);
        const auto all = co_await db.query(Scope::system(), "SELECT id FROM fleets");
        EXPECT_EQ(all.rows.size(), 1u);
      },
      Duration(20'000));
}

// The second wall stands for tables that are still to come, too.
TEST_F(PostgresStore, PutsRowLevelSecurityUnderEveryTableOfTenants) {
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        co_await db.migrate();
        const auto open = co_await db.query(
            Scope::system(),
            "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = "
            "c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname "
            "NOT IN ('setup', 'schema_migrations') AND NOT (c.relrowsecurity AND "
            "c.relforcerowsecurity AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = "
            "c.oid AND p.polwithcheck IS NOT NULL))");
        for (const auto& row : open.rows) ADD_FAILURE() << row.text("name") << " has no wall";
        const auto walled = co_await db.query(
            Scope::system(), "SELECT count(*) AS n FROM pg_policy WHERE polname = 'tenant'");
        EXPECT_GE(walled.rows.at(0).integer("n"), 9);
      },
      Duration(20'000));
}

TEST_F(PostgresStore, TellsConflictsAndRollsBack) {
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        co_await db.migrate();
        const OrgId org = co_await make_org(db);
        const auto add = [&](std::string slug) -> Task<void> {
          co_await db.query(Scope::tenant(org),
                            "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', $3)",
                            Params().text(new_uuid()).text(org.text()).text(slug));
        };
        co_await add("one");
        EXPECT_EQ(co_await code_of_task(add("one")), Code::kConflict);
        const auto failing = [&](postgres::Transaction& tx) -> Task<void> {
          co_await tx.query(
              "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'two')",
              Params().text(new_uuid()).text(org.text()));
          throw Error(Code::kConflict, "changed my mind");
        };
        EXPECT_EQ(co_await code_of_task(db.transaction(Scope::tenant(org), failing)),
                  Code::kConflict);
        const auto rows = co_await db.query(Scope::tenant(org), "SELECT slug FROM fleets");
        EXPECT_EQ(rows.rows.size(), 1u);
      },
      Duration(20'000));
}

TEST_F(PostgresStore, SurvivesAServerThatIsKilledAndStartedAgain) {
  run_task(
      [&]() -> Task<void> {
        postgres::Database db(co_await asio::this_coro::executor, options());
        co_await db.query(Scope::system(), "SELECT 1");
        server->kill9();
        const auto ask = [&]() -> Task<void> { co_await db.query(Scope::system(), "SELECT 1"); };
        EXPECT_EQ(co_await code_of_task(ask()), Code::kUnavailable);
        server->start();
        co_await ask();
      },
      Duration(60'000));
}

// A statement that is cancelled at any moment leaves no connection out of the pool, and no answer
// of its own for the next one.
TEST_F(PostgresStore, KeepsItsPoolWhenStatementsAreCancelled) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        postgres::Database db(executor, options());
        const auto ask = [&](std::int64_t number) -> Task<void> {
          const auto work = [&](postgres::Transaction& tx) -> Task<void> {
            for (int i = 0; i < 3; ++i) {
              const auto rows = co_await tx.query("SELECT $1::bigint AS n, pg_sleep(0.0005)",
                                                  Params().integer(number));
              EXPECT_EQ(rows.rows.at(0).integer("n"), number);
            }
          };
          if (number % 2 == 0) {
            co_await db.transaction(Scope::system(), work);
          } else {
            const auto rows = co_await db.query(Scope::system(), "SELECT $1::bigint AS n",
                                                Params().integer(number));
            EXPECT_EQ(rows.rows.at(0).integer("n"), number);
          }
        };
        for (std::int64_t i = 0; i < 300; ++i) {
          TaskScope scope(executor);
          scope.on_failure([](const std::string&, std::exception_ptr failure) {
            EXPECT_THROW(std::rethrow_exception(failure), boost::system::system_error);
          });
          for (int n = 0; n < 6; ++n) scope.spawn("statement", ask(i * 8 + n));
          for (unsigned turns = random() % 40; turns > 0; --turns) co_await yield_now();
          if (random() % 3 == 0) co_await sleep_for(Duration(random() % 4));
          scope.cancel();
          co_await scope.join();
        }
        std::vector<int> answered;
        TaskScope scope(executor);
        const auto last = [&]() -> Task<void> {
          co_await db.query(Scope::system(), "SELECT pg_sleep(0.05)");
          answered.push_back(1);
        };
        for (int i = 0; i < 4; ++i) scope.spawn("last", last());
        Task<void> joining = scope.join();
        co_await with_deadline(std::move(joining), Duration(5000), "the whole pool");
        EXPECT_EQ(answered.size(), 4u);
      },
      Duration(50'000));
}

TEST_F(PostgresStore, HasOneLeaderAtATime) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        postgres::Database first(executor, options()), second(executor, options());
        co_await first.migrate();
        int leading = 0, most = 0, terms = 0;
        Event changed(executor);
        std::vector<std::int64_t> numbers;
        const auto lead = [&](postgres::Term term) -> Task<void> {
          numbers.push_back(term.number());
          most = std::max(most, ++leading);
          ++terms;
          changed.set();
          Event forever(executor);
          try {
            co_await forever.wait();
          } catch (const Error&) {
          }
          --leading;
        };
        TaskScope one(executor), two(executor);
        one.spawn("one", first.lead(77, lead));
        co_await changed.wait();
        changed.reset();
        two.spawn("two", second.lead(77, lead));
        EXPECT_FALSE(co_await changed.wait_for(Duration(1200)));
        one.cancel();
        co_await one.join();
        co_await changed.wait();
        EXPECT_EQ(most, 1);
        EXPECT_EQ(terms, 2);
        EXPECT_EQ(numbers, (std::vector<std::int64_t>{1, 2}));
        two.cancel();
        co_await two.join();
      },
      Duration(30'000));
}

// A leader that lost its place without noticing, as one that was stopped for a while.
TEST_F(PostgresStore, RefusesWhatADeposedLeaderWrites) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        postgres::Database first(executor, options()), second(executor, options());
        co_await first.migrate();
        std::optional<postgres::Term> old, present;
        Event changed(executor);
        const auto lead_as = [&](std::optional<postgres::Term>& term) {
          return [&](postgres::Term now) -> Task<void> {
            term = now;
            changed.set();
            Event forever(executor);
            co_await forever.wait();
          };
        };
        TaskScope one(executor), two(executor);
        one.on_failure([](const std::string&, std::exception_ptr) {
          ADD_FAILURE() << "who lost its place gave up";
        });
        one.spawn("one", first.lead(78, lead_as(old)));
        co_await changed.wait();
        changed.reset();
        const OrgId org = co_await make_org(second);
        const auto write = [&](postgres::Term& term) -> Task<void> {
          const auto work = [&](postgres::Transaction& tx) -> Task<void> {
            co_await tx.query(
                "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1::uuid, $2, 'f', $1::text)",
                Params().text(new_uuid()).text(org.text()));
          };
          co_await term.transaction(Scope::system(), work);
        };
        co_await write(*old);
        // It gives no sign of life any more: this one takes its place, and ends its session.
        co_await second.query(
            Scope::system(),
            "UPDATE leases SET expires_at = now() - interval '1 second' WHERE key "
            "= 78");
        two.spawn("two", second.lead(78, lead_as(present)));
        co_await changed.wait();
        EXPECT_GT(present->number(), old->number());
        try {
          co_await write(*old);
          ADD_FAILURE() << "a deposed leader wrote";
        } catch (const Error& error) {
          EXPECT_TRUE(postgres::deposed(error)) << error.describe();
          EXPECT_EQ(error.code(), Code::kConflict);
          EXPECT_NE(error.describe().find("term 1 of this leader is over"), std::string::npos)
              << error.describe();
        }
        co_await write(*present);
        const auto rows = co_await second.query(Scope::tenant(org), "SELECT id FROM fleets");
        EXPECT_EQ(rows.rows.size(), 2u);
        // It noticed, and waits until it may lead again.
        changed.reset();
        two.cancel();
        co_await two.join();
        co_await changed.wait();
        EXPECT_GT(old->number(), present->number());
        one.cancel();
        co_await one.join();
      },
      Duration(30'000));
}

Task<void> live_state_contract(stores::LiveState& store) {
  const DeviceId a = DeviceId::fresh(), b = DeviceId::fresh();
  // "late", or what was told.
  const auto put = [&](const DeviceId& device, std::int64_t seq,
                       std::string value) -> Task<std::string> {
    std::vector<stores::Report> one{{device, seq, std::move(value)}};
    const stores::Put put = (co_await store.put_reported(std::move(one))).at(0);
    co_return put.stands ? "told " + put.told : "late";
  };
  const auto tell = [&](const DeviceId& device, std::string what) -> Task<void> {
    std::vector<stores::Told> one{{device, std::move(what)}};
    co_await store.mark_told(std::move(one));
  };
  EXPECT_EQ(co_await put(a, 5, "five"), "told ");
  EXPECT_EQ(co_await put(a, 5, "five"), "told ");  // nobody was told yet
  co_await tell(a, "of five");
  EXPECT_EQ(co_await put(a, 5, "five"), "told of five");
  EXPECT_EQ(co_await put(a, 5, "again"), "late");
  EXPECT_EQ(co_await put(a, 4, "older"), "late");
  EXPECT_EQ(co_await put(a, 1'764'000'000'000, std::string("bin\0ary", 7)), "told of five");
  std::vector<DeviceId> asked{a, b};
  const auto values = co_await store.get_reported(std::move(asked));
  EXPECT_EQ(values.at(0), std::string("bin\0ary", 7));
  EXPECT_FALSE(values.at(1).has_value());
}

TEST(LiveState, MemoryKeepsTheContract) {
  run_task([]() -> Task<void> {
    const auto store = stores::make_memory_live_state();
    co_await live_state_contract(*store);
  });
}

TEST(LiveState, ValkeyKeepsTheContractAndComesBack) {
  if (!flock::testing::require({"redis-server"})) GTEST_SKIP();
  flock::testing::Valkey server;
  server.start();
  run_task(
      [&]() -> Task<void> {
        const auto store = stores::make_valkey_live_state(co_await asio::this_coro::executor,
                                                          server.address(), "");
        co_await live_state_contract(*store);
        server.kill9();
        EXPECT_EQ(co_await code_of_task(store->ping()), Code::kUnavailable);
        server.start();
        co_await live_state_contract(*store);
      },
      Duration(30'000));
}

}  // namespace
}  // namespace flock

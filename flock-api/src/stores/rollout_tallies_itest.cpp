// SPDX-License-Identifier: Apache-2.0
// The kept counters of rollouts against a recount, while everything that changes a rollout's
// devices happens at once and by chance.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "async/loop.h"
#include "async/scope.h"
#include "base/files.h"
#include "stores/postgres/database.h"
#include "stores/postgres/deployment_row.h"
#include "stores/postgres/device_statements.h"
#include "stores/postgres/presence_statements.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/selection_query.h"
#include "stores/postgres/variable_statements.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock {
namespace {

namespace sql = postgres::sql;
using flock::testing::run_task;
using postgres::Params;
using postgres::Scope;

constexpr int kDevices = 40, kRollouts = 3, kWorkers = 4;

// What is kept and what is there, where they differ. One statement, so that both are of one
// instant.
constexpr const char* kDifferences =
    "WITH kept AS (SELECT org_id, rollout_id, stage, state, online, wanted, unhealthy, restarting, "
    "CASE WHEN began_at > now() - interval '1 minute' THEN began_at ELSE '-infinity' END, CASE "
    "WHEN settled_at > now() - interval '10 minutes' THEN settled_at ELSE '-infinity' END, "
    "sum(count)::bigint AS n FROM rollout_tallies GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 HAVING "
    "sum(count) <> 0), counted AS (SELECT org_id, rollout_id, stage, state, online, wanted, "
    "unhealthy, restarting, CASE WHEN began_at > now() - interval '1 minute' THEN began_at ELSE "
    "'-infinity' END, CASE WHEN flock_settled_minute(state, updated_at) > now() - interval '10 "
    "minutes' THEN flock_settled_minute(state, updated_at) ELSE '-infinity' END, count(*) AS n "
    "FROM rollout_devices GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), more AS (TABLE kept EXCEPT "
    "TABLE counted), less AS (TABLE counted EXCEPT TABLE kept) SELECT 'kept ' || more::text AS "
    "what "
    "FROM more UNION ALL SELECT 'counted ' || less::text FROM less";

// A tenant with two fleets and devices in the first; each step is what a program of ours does.
class Site {
 public:
  Site(postgres::Database& db, unsigned seed) : db_(db), random_(seed) {}

  Task<void> fill() {
    co_await run(
        "INSERT INTO organizations(id, name, slug) VALUES ($1::uuid, 'Acme', $1::uuid::text)",
        Params().text(org_));
    for (const std::string& fleet : {fleet_, other_})
      co_await run(
          "INSERT INTO fleets(id, org_id, name, slug) VALUES ($2::uuid, $1, 'f', $2::uuid::text)",
          Params().text(org_).text(fleet));
    co_await run(
        "INSERT INTO releases(id, org_id, version, compose, workload, digest) VALUES ($2, $1, '1', "
        "'x', '{\"services\":[]}', 'x')",
        Params().text(org_).text(release_));
    for (int i = 0; i < kDevices; ++i) {
      devices_.push_back(new_uuid());
      co_await run(
          "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, online) "
          "VALUES "
          "($3::uuid, $1, $2, $3::uuid::text, $3::uuid::text, 'arm64', $4::boolean)",
          Params().text(org_).text(fleet_).text(devices_.back()).boolean(chance(2)));
    }
    for (int i = 0; i < kRollouts; ++i) co_await begin();
  }

  // One thing that happens, alone or as a part of a transaction that may be undone. Some things are
  // done by one process alone, which `leads`.
  Task<void> step(bool leads) {
    const int parts = 1 + static_cast<int>(pick(3));
    const bool undone = chance(5);
    const auto work = [&](postgres::Transaction& tx) -> Task<void> {
      for (int i = 0; i < parts; ++i) {
        const auto [statement, params] = something(leads);
        co_await tx.query(statement.c_str(), params);
      }
      if (undone) tx.roll_back();
    };
    try {
      co_await db_.transaction(Scope::system(), work);
    } catch (const Error& error) {
      // Three of them waited for each other, three times in a row.
      if (error.describe().find("deadlock") == std::string::npos) throw;
    }
  }

  Task<int> differences() {
    const auto rows = co_await db_.query(Scope::system(), kDifferences);
    for (const auto& row : rows.rows) ADD_FAILURE() << row.text("what");
    co_return static_cast<int>(rows.rows.size());
  }

  // Presence and "what it is to run comes from here", held against the devices themselves.
  Task<void> copies_are_true() {
    const auto rows = co_await db_.query(
        Scope::system(),
        "SELECT x.device_id FROM rollout_devices x JOIN devices d ON d.id = x.device_id JOIN "
        "rollouts r ON r.id = x.rollout_id WHERE (r.ended_at IS NULL OR x.wanted) AND x.online <> "
        "d.online");
    EXPECT_TRUE(rows.empty()) << rows.rows.size() << " devices are not where their rollout "
                              << "believes them";
    const auto untold = co_await db_.query(
        Scope::system(),
        "SELECT x.device_id FROM rollout_devices x JOIN devices d ON d.id = x.device_id JOIN "
        "rollouts r ON r.id = x.rollout_id WHERE r.ended_at IS NULL AND d.revoked_at IS NOT NULL "
        "AND x.state IN ('WAITING', 'PENDING', 'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING')");
    EXPECT_TRUE(untold.empty()) << untold.rows.size() << " revoked devices are waited for";
  }
  Task<void> hear_of_devices() { co_await run(sql::kDeviceTurns, {}); }

 private:
  Task<void> run(const char* statement, Params params) {
    co_await db_.query(Scope::system(), statement, std::move(params));
  }
  std::size_t pick(std::size_t below) { return random_() % below; }
  bool chance(std::size_t one_in) { return pick(one_in) == 0; }
  const std::string& device() { return devices_.at(pick(devices_.size())); }
  const std::string& rollout() { return rollouts_.at(pick(rollouts_.size())); }

  postgres::Selection fleet_selection() const {
    postgres::Selection selection{OrgId::trusted(org_)};
    selection.selector.fleet = fleet_;
    return selection;
  }

  Task<void> begin() {
    const std::string deployment = new_uuid();
    rollouts_.push_back(new_uuid());
    co_await run(sql::kDeploymentInsert, postgres::DeploymentRow{.id = deployment,
                                                                 .org = org_,
                                                                 .release = release_,
                                                                 .fleet = fleet_,
                                                                 .created_by = "test"}
                                             .params());
    co_await run(sql::kRolloutInsert, Params()
                                          .text(rollouts_.back())
                                          .text(org_)
                                          .text(deployment)
                                          .text(release_)
                                          .text(fleet_)
                                          .text(std::string("RUNNING"))
                                          .texts({"10", "20", "40"})
                                          .text(std::string("{}")));
    const postgres::Statement assign =
        postgres::rollout_assign(fleet_selection(), rollouts_.back(), "", system_clock().now());
    co_await run(assign.text.c_str(), assign.params);
    co_await run("UPDATE fleets SET deployment_id = $2 WHERE id = $1",
                 Params().text(fleet_).text(deployment));
  }

  postgres::Statement something(bool leads) {
    const std::string& where = rollout();
    const std::string& who = device();
    const auto of_rollout = [&] { return Params().text(org_).text(where); };
    const auto of_device = [&] { return Params().text(org_).text(where).text(who); };
    const auto of_devices = [&] { return of_rollout().texts({who}); };
    const auto one = [&] { return Params().text(org_).texts({who}); };
    switch (pick(20)) {
      case 0:
        return {sql::kRolloutLetGo, of_rollout()
                                        .integer(static_cast<std::int64_t>(pick(3)))
                                        .integer(static_cast<std::int64_t>(pick(15)))
                                        .boolean(chance(2))};
      case 1:
      case 2:
      case 3:
        if (leads) return {sql::kRolloutDevicesMade, of_devices().texts({"1"})};
        return {
            "UPDATE rollout_devices SET desired_version = 1 WHERE org_id = $1 AND rollout_id = "
            "$2 AND device_id = $3",
            of_device()};
      case 4:
        return {sql::kRolloutDevicesDelivered,
                Params().texts({org_}).texts({who}).texts({"1"}).texts({where})};
      case 5:
      case 6:
      case 7:
      case 8: {
        constexpr const char* kStates[] = {"DOWNLOADING", "STARTING", "SOAKING", "CONFIRMED",
                                           "FAILED"};
        return {sql::kRolloutDeviceStates, Params()
                                               .texts({org_})
                                               .texts({who})
                                               .texts({"1"})
                                               .texts({kStates[pick(5)]})
                                               .texts({chance(2) ? "exited" : ""})
                                               .texts({chance(4) ? "t" : "f"})
                                               .texts({chance(4) ? "t" : "f"})};
      }
      case 9:
        return {sql::kRolloutReturn, of_rollout().integer(static_cast<std::int64_t>(pick(10)))};
      case 10:
        return {sql::kWantedElsewhere, one().text(where)};
      case 11:
        return {sql::kPresenceOff,
                Params().texts({who}).integer(1'764'000'000'000).text(std::string("silent"))};
      case 12:
        return {"UPDATE devices SET online = NOT online WHERE org_id = $1 AND id = ANY($2::uuid[])",
                one()};
      case 13:
        if (leads) return {sql::kDeviceTurns, {}};
        return {sql::kRolloutSkip, of_rollout()};
      case 14:
        return {sql::kTalliesFold, of_rollout()};
      case 15:
        return {sql::kRolloutTimeouts, of_rollout().integer(0)};
      case 16:
        return {sql::kSupersede, one().text(where)};
      case 17:
        // Time passes for one device: what is told by the minute is told no more.
        return {
            "UPDATE rollout_devices SET began_at = began_at - interval '2 minutes', updated_at = "
            "updated_at - interval '11 minutes' WHERE org_id = $1 AND device_id = ANY($2::uuid[])",
            one()};
      case 18:
        return rare(leads);
      default:
        return {sql::kRolloutDevicesFailed, of_devices().texts({"no platform"})};
    }
  }

  // What ends a device's part, or the rollout.
  postgres::Statement rare(bool leads) {
    const std::string& who = device();
    switch (pick(leads ? 6 : 4)) {
      case 0:
        return {sql::kDeviceRevoke, Params().text(org_).text(who)};
      case 1:
        return {sql::kMoveLeave, Params().text(org_).texts({who}).text(other_)};
      case 2:
        return {
            "DELETE FROM rollout_devices WHERE org_id = $1 AND device_id = ANY($2::uuid[]) AND "
            "state = 'FAILED'",
            Params().text(org_).texts({who})};
      case 4:
        return postgres::rollout_adopt(fleet_selection(), rollout(), system_clock().now());
      case 3:
        return {"UPDATE rollouts SET ended_at = now() WHERE org_id = $1 AND id = $2",
                Params().text(org_).text(rollouts_.back())};
      default:
        return {sql::kRolloutNewcomer, Params().text(org_).text(rollout()).text(who)};
    }
  }

  postgres::Database& db_;
  std::mt19937 random_;
  const std::string org_ = new_uuid(), fleet_ = new_uuid(), other_ = new_uuid(),
                    release_ = new_uuid();
  std::vector<std::string> devices_, rollouts_;
};

TEST(RolloutTallies, EqualARecountAtAnyTime) {
  if (!flock::testing::require({"postgres", "initdb", "psql"})) GTEST_SKIP();
  flock::testing::Postgres server;
  server.start();
  postgres::Options options;
  options.url = server.url();
  options.password = Secret(read_secret_file(server.password_file()));
  options.pool_size = kWorkers + 1;
  const char* given = std::getenv("FLOCK_SEED");
  const unsigned seed = given ? static_cast<unsigned>(std::stoul(given)) : std::random_device{}();
  SCOPED_TRACE("FLOCK_SEED=" + std::to_string(seed));
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        postgres::Database db(executor, options);
        co_await db.migrate();
        Site site(db, seed);
        co_await site.fill();
        int looks = 0, working = kWorkers;
        const auto work = [&](bool leads) -> Task<void> {
          struct Done {
            int& working;
            ~Done() { --working; }
          } done{working};
          for (int i = 0; i < 400; ++i) co_await site.step(leads);
        };
        TaskScope workers(executor);
        workers.on_failure([](const std::string&, std::exception_ptr failure) {
          try {
            std::rethrow_exception(failure);
          } catch (const Error& error) {
            ADD_FAILURE() << error.describe();
          }
        });
        for (int i = 0; i < kWorkers; ++i) workers.spawn("worker", work(i == 0));
        for (; working > 0; ++looks)
          if (co_await site.differences() > 0) break;
        co_await workers.join();
        EXPECT_GT(looks, 100);
        EXPECT_EQ(co_await site.differences(), 0);
        co_await site.hear_of_devices();
        co_await site.copies_are_true();
        EXPECT_EQ(co_await site.differences(), 0);
      },
      Duration(120'000));
}

}  // namespace
}  // namespace flock

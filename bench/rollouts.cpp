// SPDX-License-Identifier: Apache-2.0
// A rollout over a million devices on private servers: what the engine's statements cost beside the
// bare ones that they cannot do without, how many decisions a core makes, what a scheduler spends
// on confirmations, and how long it takes to decide.
//   bench_rollouts [COUNT]
#include <algorithm>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "async/loop.h"
#include "base/error.h"
#include "domain/rollout_decide.h"
#include "rollouts_live.h"
#include "services/rollout_engine.h"
#include "services/rollout_plan_json.h"
#include "stores/postgres/database.h"
#include "stores/postgres/deployment_row.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/selection_query.h"

using namespace flock;

namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Scope;
using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

domain::RolloutPlan staged() {
  domain::RolloutPlan plan;
  plan.stages = {{.share = 0.1, .soak = Duration(60'000)}, {.share = 0.5}, {.share = 1}};
  plan.gates = {{.signal = domain::Signal::kConfirmed, .limit = 0.9},
                {.signal = domain::Signal::kFailed, .limit = 0.1}};
  return plan;
}

void decisions() {
  const domain::RolloutPlan plan = staged();
  domain::RolloutProgress progress;
  domain::RolloutSeen seen;
  seen.ends = domain::stage_ends(plan, 1'000'000);
  seen.counts.total = 1'000'000;
  seen.gates.resize(2);
  constexpr int kRounds = 2'000'000;
  std::size_t words = 0;
  const auto start = Clock::now();
  for (int i = 0; i < kRounds; ++i) {
    seen.now_ms = i;
    seen.counts.updating = 100'000 - i % 100'000;
    seen.counts.confirmed = i % 100'000;
    for (std::size_t g = 0; g < 2; ++g)
      seen.gates[g] = domain::look(plan.gates[g], seen.counts, 0, seen.gates[g], i);
    words += domain::decide(plan, progress, seen).why.size();
  }
  const double rate = kRounds / ms_since(start) * 1000;
  std::printf("decisions with two gates, one core: %.2f million a second (promise: at least 1)%s\n",
              rate / 1e6, words == 0 ? " " : "");
}

// The fleet and its devices, as the superuser: triggers and checks are off.
std::string fill_script(const std::string& org, const std::string& fleet,
                        const std::string& release, const std::string& count) {
  return R"(\c flock
SET session_replication_role = replica;
INSERT INTO organizations(id, name, slug) VALUES (')" +
         org + R"(', 'Acme', 'acme');
INSERT INTO fleets(id, org_id, name, slug) VALUES (')" +
         fleet + "', '" + org + R"(', 'Edge', 'edge');
INSERT INTO releases(id, org_id, version, compose, workload, digest) VALUES (')" +
         release + "', '" + org +
         R"(', '1', 'x', '{"services":[]}', 'x');
INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, online)
  SELECT md5('d' || n)::uuid, ')" +
         org + "', '" + fleet + R"(', 'device-' || n, 'key-' || n, 'arm64', n % 10 > 0
  FROM generate_series(1, )" +
         count + R"() n;
VACUUM ANALYZE devices;
)";
}

class Bench {
 public:
  Bench(const faults::Stack& stack, std::string count)
      : count_(std::move(count)), stack_(stack), postgres_(stack.postgres) {}

  Task<void> run() {
    postgres::Options options = stack_.database();
    options.statement_time = Duration(600'000);
    db_.emplace(co_await asio::this_coro::executor, options);
    co_await db_->migrate();
    postgres_.execute(fill_script(org_, fleet_, release_, count_));
    const std::string ours = co_await make_rollout(), bare = co_await make_rollout();
    keep_tallies(false);  // they are ours
    const double bare_plan = co_await time(
        "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, online, place, stage) "
        "SELECT org_id, $2::uuid, id, 'WAITING', online, row_number() OVER () - 1, 0 FROM devices "
        "WHERE org_id = $1 AND fleet_id = $3::uuid",
        Params().text(org_).text(bare).text(fleet_));
    keep_tallies(true);
    postgres::Selection selection{OrgId::trusted(org_)};
    selection.selector.fleet = fleet_;
    const postgres::Statement assign =
        postgres::rollout_assign(selection, ours, "", system_clock().now());
    const double plan = co_await time(assign.text.c_str(), assign.params);
    show("planning: membership and stages", plan, bare_plan, "the bare INSERT ... SELECT", 1.5);
    postgres_.execute("\\c flock\nVACUUM ANALYZE rollout_devices;");
    keep_tallies(false);
    const double bare_advance = co_await time(
        "UPDATE rollout_devices SET state = 'PENDING', began_at = now(), updated_at "
        "= now() WHERE org_id = $1 AND rollout_id = $2 AND place < 100000",
        Params().text(org_).text(bare));
    keep_tallies(true);
    const double advance = co_await time(
        sql::kRolloutLetGo,
        Params().text(org_).text(ours).integer(stage_of_100000()).integer(100'000).boolean(false));
    show("advancing a stage of 100,000", advance, bare_advance, "the bare UPDATE", 2);
    co_await decision(ours);
    // They have been measured, and go on no more.
    postgres_.execute(
        "\\c flock\nTRUNCATE rollout_devices, rollout_tallies; UPDATE deployments SET state = "
        "'EXECUTED'; UPDATE rollouts SET state = 'ABORTED', ended_at = now();");
    co_await bench::run_live(stack_, *db_, {.org = org_});
    db_->close();
  }

 private:
  Task<std::string> make_rollout() {
    const std::string deployment = new_uuid(), rollout = new_uuid();
    const postgres::DeploymentRow row{
        .id = deployment,
        .org = org_,
        .release = release_,
        .fleet = fleet_,
        .strategy = boost::json::serialize(services::plan_json(staged())),
        .created_by = "bench"};
    co_await db_->query(Scope::system(), sql::kDeploymentInsert, row.params());
    std::vector<std::string> ends;
    for (const auto end : domain::stage_ends(staged(), std::stoll(count_)))
      ends.push_back(std::to_string(end));
    co_await db_->query(Scope::system(), sql::kRolloutInsert,
                        Params()
                            .text(rollout)
                            .text(org_)
                            .text(deployment)
                            .text(release_)
                            .text(fleet_)
                            .text(std::string("RUNNING"))
                            .texts(ends)
                            .text(services::progress_json({})));
    co_return rollout;
  }

  // The first that has so many devices.
  std::int64_t stage_of_100000() const {
    const auto ends = domain::stage_ends(staged(), std::stoll(count_));
    return std::find_if(ends.begin(), ends.end(), [](auto end) { return end >= 100'000; }) -
           ends.begin();
  }

  void keep_tallies(bool on) const {
    postgres_.execute(std::string("\\c flock\nALTER TABLE rollout_devices ") +
                      (on ? "ENABLE" : "DISABLE") + " TRIGGER USER;");
  }

  // A whole decision: the rollout's row under its lock, its counts, its gates, what is to be done.
  Task<void> decision(std::string rollout) {
    std::vector<double> kept, counted;
    for (int i = 0; i < 21; ++i) {
      const auto start = Clock::now();
      const auto work = [&](postgres::Transaction& tx) -> Task<void> {
        const auto locked = co_await services::lock_rollout(tx, org_, rollout);
        const auto seen = co_await services::look_at(tx, *locked, 0);
        if (seen.counts.total != std::stoll(count_)) std::abort();
        domain::decide(locked->plan, locked->progress, seen);
      };
      co_await db_->transaction(Scope::system(), work);
      kept.push_back(ms_since(start));
    }
    for (int i = 0; i < 3; ++i)
      counted.push_back(co_await time(
          "SELECT x.state, x.stage, x.unhealthy, x.restarting, d.online, count(*) FROM "
          "rollout_devices x JOIN devices d ON d.org_id = x.org_id AND d.id = x.device_id WHERE "
          "x.org_id = $1 AND x.rollout_id = $2 GROUP BY 1, 2, 3, 4, 5",
          Params().text(org_).text(rollout)));
    std::sort(kept.begin(), kept.end());
    std::sort(counted.begin(), counted.end());
    std::printf(
        "a decision with its gates over %s devices: %.1f ms, counting them %.0f ms (promise: at "
        "most 50)\n",
        count_.c_str(), kept[10], counted[1]);
  }

  Task<double> time(const char* statement, Params params) {
    const auto start = Clock::now();
    co_await db_->query(Scope::system(), statement, std::move(params));
    co_return ms_since(start);
  }

  void show(const char* what, double ours, double bare, const char* reference, double most) const {
    std::printf("%s: %.0f ms, %s %.0f ms, ratio %.2f (promise: at most %.1f)\n", what, ours,
                reference, bare, ours / bare, most);
  }

  const std::string count_, org_ = new_uuid(), fleet_ = new_uuid(), release_ = new_uuid();
  const faults::Stack& stack_;
  const testing::Postgres& postgres_;
  std::optional<postgres::Database> db_;
};

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  decisions();
  try {
    const faults::Stack stack;
    Bench bench(stack, argc > 1 ? argv[1] : "1000000");
    Loop loop;
    loop.run(bench.run());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
#include "rollout_faults/site.h"

#include <boost/json.hpp>

#include "async/loop.h"
#include "base/error.h"
#include "services/credentials.h"
#include "stores/postgres/statements.h"

namespace flock::faults {
namespace {

namespace bj = boost::json;
using postgres::Params;
using postgres::Scope;

agent::sim::Behaviour calm() {
  agent::sim::Behaviour out;
  out.seed = 5;
  out.fail_update_percent = 3;
  out.update_time = Duration(400);
  out.state_every = Duration(5000);
  out.telemetry_every = Duration(600'000);
  return out;
}

constexpr int kStages = 4;
constexpr std::int64_t kNamed = 5;
constexpr Duration kLook{100};

// Rows of what is kept and of what is counted, where they differ.
constexpr const char* kCountersDiffer =
    "SELECT count(*) AS n FROM (SELECT rollout_id, stage, state, online, wanted, unhealthy, "
    "restarting, sum(n) FROM (SELECT rollout_id, stage, state, online, wanted, unhealthy, "
    "restarting, count AS n FROM rollout_tallies UNION ALL SELECT rollout_id, stage, state, "
    "online, wanted, unhealthy, restarting, -1 FROM rollout_devices) AS sides GROUP BY 1, 2, 3, 4, "
    "5, "
    "6, 7 HAVING sum(n) <> 0) different";

}  // namespace

Site::Site(Executor executor, const Stack& stack, int count)
    : devices(count),
      db(executor, stack.database()),
      stack_(stack),
      backend_(stack, "backend",
               {"--api.listen=127.0.0.1:" + std::to_string(api_),
                "--public_url=http://127.0.0.1:" + std::to_string(api_), "--api.rate_limit=0"},
               "api,audit,ingester"),
      http_(executor, {}),
      behaviour_(calm()),
      scope_(executor) {}

Task<void> Site::open() {
  co_await db.migrate();
  backend_.start();
  co_await faults::until_ready(backend_);
  co_await make_tenant();
  co_await post("/v1/fleets", R"({"name":"Edge"})");
  const bj::value made =
      bj::parse(co_await post("/v1/provisioning-keys", R"({"fleet_id":"edge"})"));
  agent::sim::FleetOptions options;
  options.server = "http://127.0.0.1:" + std::to_string(api_);
  options.provisioning_key_file =
      stack_.dir.write("provisioning-key", std::string(made.at("secret").as_string()));
  options.count = devices;
  options.behaviour = behaviour_;
  fleet_ = std::make_unique<agent::sim::Fleet>(co_await asio::this_coro::executor, options);
  scope_.spawn("devices", fleet_->run());
  const auto online = [&]() -> Task<std::int64_t> {
    co_return (co_await ask("SELECT count(*) AS n FROM devices WHERE org_id = $1 AND online"))
        .rows.at(0)
        .integer("n");
  };
  while (co_await online() < devices) co_await sleep_for(kLook);
}

Task<void> Site::close() {
  if (fleet_) fleet_->stop();
  co_await scope_.join();
  backend_.stop();
}

Task<void> Site::make_tenant() {
  const services::FreshKey key = services::make_key("flk_");
  key_ = key.secret;
  org_ = new_uuid();
  co_await db.query(Scope::system(), postgres::sql::kOrganizationInsert,
                    Params().text(org_).text(std::string("Faults")).text(org_));
  co_await db.query(Scope::system(), postgres::sql::kApiKeyInsert,
                    Params()
                        .text(new_uuid())
                        .text(org_)
                        .text(std::string("faults"))
                        .text(key.prefix)
                        .bytes(key.hash));
}

Task<std::string> Site::post(std::string path, std::string body) {
  net::Headers headers;
  headers.add("Authorization", "Bearer " + key_);
  headers.add("Content-Type", "application/json");
  const std::string url = "http://127.0.0.1:" + std::to_string(api_) + path;
  const net::Response answer = co_await http_.send("POST", url, headers, body);
  if (answer.status >= 300)
    throw Error(Code::kInternal, "the API refused").with("path", path).with("answer", answer.body);
  co_return answer.body;
}

Task<postgres::Rows> Site::ask(const char* sql) {
  co_return co_await db.query(Scope::system(), sql, Params().text(org_));
}

Task<void> Site::deploy() {
  release_ = new_uuid();
  const std::string version = std::to_string(++deployments_);
  const std::string workload = bj::serialize(bj::object{
      {"services", bj::array{bj::object{{"name", "web"},
                                        {"image", "registry.example/acme/web:1"},
                                        {"repository", "registry.example/acme/web"},
                                        {"digests", {{"linux/amd64", "sha256:" + version}}}}}}});
  co_await db.query(Scope::system(),
                    "INSERT INTO releases(id, org_id, version, compose, workload, digest) VALUES "
                    "($1, $2, $3, 'x', $4, 'x')",
                    Params().text(release_).text(org_).text(version).text(workload));
  bj::array stages;
  for (const int percent : {10, 25, 50, 100}) stages.push_back(bj::object{{"percent", percent}});
  const bj::object wanted{
      {"release_id", version}, {"target", {{"fleet_id", "edge"}}},
      {"soak", "0s"},          {"failure_timeout", "5m"},
      {"max_failed_ratio", 1}, {"strategy", {{"kind", "progressive"}, {"stages", stages}}}};
  const bj::value made = bj::parse(co_await post("/v1/deployments", bj::serialize(wanted)));
  deployment_ = made.at("id").as_string();
}

Task<std::string> Site::rollout_state() {
  const auto rows = co_await db.query(
      Scope::system(), "SELECT state FROM rollouts WHERE org_id = $1 AND deployment_id = $2",
      Params().text(org_).text(deployment_));
  co_return rows.empty() ? "" : rows.rows.front().text("state");
}

Task<std::int64_t> Site::begun() {
  const auto rows = co_await db.query(
      Scope::system(),
      "SELECT count(*) AS n FROM rollout_devices x JOIN rollouts r ON r.id = x.rollout_id WHERE "
      "r.org_id = $1 AND r.deployment_id = $2 AND x.began_at IS NOT NULL",
      Params().text(org_).text(deployment_));
  co_return rows.rows.at(0).integer("n");
}

Task<bool> Site::settled() {
  const std::string state = co_await rollout_state();
  if (state.empty() || state == "RUNNING") co_return false;
  const auto open = co_await db.query(
      Scope::system(),
      "SELECT 1 AS open FROM rollout_devices x JOIN rollouts r ON r.id = x.rollout_id WHERE "
      "r.org_id = $1 AND r.deployment_id = $2 AND x.state NOT IN ('CONFIRMED', 'FAILED') LIMIT 1",
      Params().text(org_).text(deployment_));
  co_return open.empty();
}

Task<Site::Outcome> Site::outcome() {
  Outcome out;
  const std::string state = co_await rollout_state();
  if (state != "COMPLETED") out.faults.push_back("the rollout is " + state);
  co_await check_devices(out);
  co_await check_decisions(out);
  const auto differ = co_await db.query(Scope::system(), kCountersDiffer);
  if (const auto n = differ.rows.at(0).integer("n"); n > 0)
    out.faults.push_back(std::to_string(n) + " counters are not what a recount says");
  co_return out;
}

Task<void> Site::check_devices(Outcome& out) {
  const auto rows = co_await db.query(
      Scope::system(),
      "SELECT d.name, d.desired_version, d.desired_release_id, x.state, x.reason FROM devices d "
      "LEFT JOIN "
      "rollouts r ON r.org_id = d.org_id AND r.deployment_id = $2 LEFT JOIN rollout_devices x ON "
      "x.device_id = d.id AND x.rollout_id = r.id WHERE d.org_id = $1",
      Params().text(org_).text(deployment_));
  device::v1::DesiredState desired;
  desired.add_services();
  desired.set_release_id(release_);
  std::int64_t wrong = 0, again = 0, others = 0;
  for (const postgres::Row& row : rows.rows) {
    const std::string name = row.text("name");
    const int index = std::stoi(name.substr(name.rfind('-') + 1));
    const bool fails = agent::sim::course(behaviour_, index, desired).back().phase ==
                       device::v1::ReportedState::FAILED;
    const std::string state = row.optional_text("state").value_or("not in the rollout");
    (fails ? out.failed : out.confirmed) += 1;
    if (state != (fails ? "FAILED" : "CONFIRMED") && ++wrong <= kNamed)
      out.faults.push_back(name + " is " + state + ": " + row.optional_text("reason").value_or(""));
    again += row.integer("desired_version") != deployments_;
    others += row.optional_text("desired_release_id") != release_;
  }
  const auto tell = [&](std::int64_t count, const char* what) {
    if (count > 0) out.faults.push_back(std::to_string(count) + " devices " + what);
  };
  tell(wrong, "ended otherwise than without faults");
  tell(again, "were not given each release exactly once");
  tell(others, "are to run another release");
}

Task<void> Site::check_decisions(Outcome& out) {
  const auto rows = co_await db.query(
      Scope::system(),
      "SELECT c.step, c.stage, count(*) AS n FROM rollout_decisions c JOIN rollouts r ON r.id = "
      "c.rollout_id WHERE r.org_id = $1 AND r.deployment_id = $2 AND c.step IN ('BEGIN', "
      "'NEXT_STAGE', 'END') GROUP BY c.step, c.stage",
      Params().text(org_).text(deployment_));
  for (const postgres::Row& row : rows.rows) {
    ++out.decisions;
    if (row.integer("n") != 1)
      out.faults.push_back(row.text("step") + " of stage " +
                           std::to_string(row.integer("stage") + 1) + " was decided " +
                           std::to_string(row.integer("n")) + " times");
  }
  if (out.decisions != kStages + 1)
    out.faults.push_back(std::to_string(out.decisions) + " turns instead of " +
                         std::to_string(kStages + 1));
}

}  // namespace flock::faults

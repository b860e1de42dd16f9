// SPDX-License-Identifier: Apache-2.0
#include "rollouts_live.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <functional>
#include <set>

#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "flock/internal/v1/internal.pb.h"
#include "processes.h"
#include "services/rollout_plan_json.h"
#include "services/sealing.h"
#include "sim/behaviour.h"
#include "stores/postgres/deployment_row.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/selection_query.h"

namespace flock::bench {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Scope;
using Clock = std::chrono::steady_clock;
using Report = device::v1::ReportedState;

constexpr int kDevicesOfStage = 4, kSamples = 48;
constexpr std::int64_t kDevicesAtOnce = 10'000;
constexpr double kMinute = 60;

double seconds_since(Clock::time_point at) {
  return std::chrono::duration<double>(Clock::now() - at).count();
}

class Live {
 public:
  Live(Executor executor, const faults::Stack& stack, postgres::Database& db, LiveOptions options)
      : db_(db),
        options_(std::move(options)),
        keys_(crypto::SealingKeys::load(stack.dir.file("keys/sealing"))),
        scheduler_(stack, "scheduler", {}, "scheduler"),
        bus_(executor, stack.bus("bench")),
        scope_(executor) {}

  Task<void> run() {
    scope_.spawn("bus", bus_.run());
    co_await bus_.wait_connected();
    const std::string rollout = co_await make_confirming();
    scheduler_.start();
    co_await faults::until_ready(scheduler_);
    processes_.add("scheduler", scheduler_.pid());
    co_await confirmations(rollout);
    co_await hear();
    co_await stage();
    co_await latency();
    scheduler_.stop();
    scope_.cancel();
    co_await scope_.join();
  }

 private:
  Task<void> ask(const char* statement, Params params) {
    co_await db_.query(Scope::system(), statement, std::move(params));
  }
  Task<std::int64_t> number(const char* statement, Params params) {
    co_return (co_await db_.query(Scope::system(), statement, std::move(params)))
        .rows.at(0)
        .integer("n");
  }

  Task<std::string> make_fleet(std::int64_t devices) {
    const std::string fleet = new_uuid();
    co_await ask(
        "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1::uuid, $2, 'f', "
        "$1::uuid::text)",
        Params().text(fleet).text(options_.org));
    co_await ask(
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, online) SELECT "
        "gen_random_uuid(), $1::uuid, $2::uuid, $2::text || n, $2::text || n, 'amd64', true FROM "
        "generate_series(1, $3::bigint) n",
        Params().text(options_.org).text(fleet).integer(devices));
    co_return fleet;
  }

  // With one service. Its id.
  Task<std::string> make_release() {
    const std::string id = new_uuid();
    co_await ask(
        "INSERT INTO releases(id, org_id, version, compose, workload, digest) VALUES ($1::uuid, "
        "$2, $1::uuid::text, 'x', $3, 'x')",
        Params()
            .text(id)
            .text(options_.org)
            .text(std::string(
                R"({"services":[{"name":"web","image":"r.example/web:1","repository":"r.example/web",)"
                R"("digests":{"linux/amd64":"sha256:a"}}]})")));
    co_return id;
  }

  Task<std::string> deploy(const std::string& fleet, domain::RolloutPlan plan) {
    const std::string id = new_uuid();
    release_ = co_await make_release();
    const postgres::DeploymentRow row{.id = id,
                                      .org = options_.org,
                                      .release = release_,
                                      .fleet = fleet,
                                      .strategy = boost::json::serialize(services::plan_json(plan)),
                                      .created_by = "bench"};
    co_await ask(sql::kDeploymentInsert, row.params());
    co_return id;
  }

  device::v1::DesiredState desired_of(const std::string& rollout) const {
    device::v1::DesiredState desired;
    desired.set_version(1);
    desired.set_rollout_id(rollout);
    desired.set_release_id(release_);
    auto& service = *desired.add_services();
    service.set_name("web");
    service.set_image("r.example/web@sha256:a");
    return desired;
  }

  // A rollout of which all devices have got their desired state and none has answered.
  Task<std::string> make_confirming() {
    const std::string fleet = co_await make_fleet(options_.confirmations);
    domain::RolloutPlan plan;
    plan.gates = {{.signal = domain::Signal::kConfirmed, .limit = 0.9},
                  {.signal = domain::Signal::kFailed, .limit = 0.1}};
    const std::string deployment = co_await deploy(fleet, plan), rollout = new_uuid();
    domain::RolloutProgress progress;
    co_await ask(sql::kDeploymentExecuted,
                 Params().text(options_.org).text(deployment).text(rollout));
    co_await ask(sql::kRolloutInsert, Params()
                                          .text(rollout)
                                          .text(options_.org)
                                          .text(deployment)
                                          .text(release_)
                                          .text(fleet)
                                          .text(std::string("RUNNING"))
                                          .texts({std::to_string(options_.confirmations)})
                                          .text(services::progress_json(progress)));
    postgres::Selection selection{OrgId::trusted(options_.org)};
    selection.selector.fleet = fleet;
    const postgres::Statement assign =
        postgres::rollout_assign(selection, rollout, "", system_clock().now());
    co_await ask(assign.text.c_str(), assign.params);
    co_await ask(
        "UPDATE rollout_devices SET state = 'DELIVERED', began_at = now(), updated_at = "
        "now(), desired_version = 1, wanted = true WHERE rollout_id = $1",
        Params().text(rollout));
    const auto rows = co_await db_.query(Scope::system(),
                                         "SELECT device_id FROM rollout_devices WHERE rollout_id = "
                                         "$1",
                                         Params().text(rollout));
    const device::v1::DesiredState desired = desired_of(rollout);
    std::vector<std::string> ids, sealed;
    for (const postgres::Row& row : rows.rows) {
      ids.push_back(row.text("device_id"));
      devices_.push_back(ids.back());
      sealed.push_back("\\x" +
                       to_hex(services::seal_desired(keys_, options_.org, ids.back(), desired)));
      if (ids.size() < 5000 && devices_.size() < rows.rows.size()) continue;
      co_await ask(
          "UPDATE devices d SET desired_version = 1, published_version = 1, "
          "desired_release_id = $3::uuid, desired_rollout_id = $4::uuid, desired = "
          "n.desired FROM unnest($1::uuid[], $2::bytea[]) AS n(id, desired) WHERE d.id = "
          "n.id AND d.id = ANY($1::uuid[])",
          Params().texts(ids).texts(sealed).text(release_).text(rollout));
      ids.clear();
      sealed.clear();
    }
    co_return rollout;
  }

  Task<void> report(std::string device, device::v1::DesiredState desired) {
    internal::v1::DeviceStateChanged changed;
    changed.set_org_id(options_.org);
    changed.set_device_id(device);
    *changed.mutable_state() =
        agent::sim::reported(desired, {Duration(0), Report::CONFIRMED, "", ""});
    mqtt::Message message;
    message.topic = "flock/internal/v1/device/state";
    message.payload = changed.SerializeAsString();
    co_await bus_.publish(std::move(message));
  }

  Task<void> confirmations(std::string rollout) {
    co_await sleep_for(Duration(3000));  // it leads, and has looked around
    const device::v1::DesiredState desired = desired_of(rollout);
    const Usage before = processes_.now().at(0);
    const auto began = Clock::now();
    double most = 0;
    TaskScope sending(co_await asio::this_coro::executor);
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      sending.spawn("report", report(devices_[i], desired));
      const double due = kMinute * static_cast<double>(i) / static_cast<double>(devices_.size());
      if (i % 50 == 0) {
        const auto ahead =
            Duration(static_cast<Duration::rep>(1000 * (due - seconds_since(began))));
        if (ahead > Duration(0)) co_await sleep_for(ahead);
      }
      if (i % 10'000 == 0) most = std::max(most, processes_.now().at(0).bytes);
    }
    co_await sending.join();
    const auto sent = Clock::now();
    for (;;) {
      const std::int64_t applied = co_await number(
          "SELECT coalesce(sum(count), 0)::bigint AS n FROM rollout_tallies WHERE rollout_id = $1 "
          "AND state = 'CONFIRMED'",
          Params().text(rollout));
      if (applied == std::ssize(devices_)) break;
      if (seconds_since(sent) > kMinute)
        throw Error(Code::kTimeout, "confirmations were not applied")
            .with("applied", std::to_string(applied))
            .with("sent", std::to_string(devices_.size()));
      co_await sleep_for(Duration(20));
    }
    const double behind = seconds_since(sent), took = seconds_since(began);
    const Usage after = processes_.now().at(0);
    most = std::max(most, after.bytes);
    std::printf(
        "%zu confirmations in %.1f s, all applied %.2f s after the last: the scheduler took %.0f "
        "%% "
        "of a core (promise: at most 30) and %.0f MB (promise: at most 150)\n",
        devices_.size(), took, behind, (after.cpu_us - before.cpu_us) / took / 1e4, most / 1e6);
  }

  // Each device's desired state goes to `on_desired_`.
  Task<void> hear() {
    mqtt::Subscription subscription;
    subscription.filter = "devices/+/desired";
    co_await bus_.subscribe(subscription, [this](mqtt::Delivery delivery) {
      const std::string& topic = delivery.message.topic;
      device::v1::DesiredState desired;
      if (on_desired_ && desired.ParseFromString(delivery.message.payload))
        on_desired_(topic.substr(8, topic.rfind('/') - 8), std::move(desired));
      delivery.ack();
    });
  }
  Task<void> hint() {
    mqtt::Message message;
    message.topic = "flock/internal/v1/deployment/created";
    co_await bus_.publish(std::move(message));
  }

  // A stage of many devices at once.
  Task<void> stage() {
    co_await deploy(co_await make_fleet(kDevicesAtOnce), domain::RolloutPlan());
    std::int64_t heard = 0;
    on_desired_ = [&](const std::string&, const device::v1::DesiredState&) { ++heard; };
    const Usage before = processes_.now().at(0);
    const auto began = Clock::now();
    co_await hint();
    while (heard < kDevicesAtOnce) co_await sleep_for(Duration(5));
    const double took = seconds_since(began);
    const Usage after = processes_.now().at(0);
    on_desired_ = nullptr;
    std::printf(
        "a stage of %lld devices began and was published in %.1f s: %.0f devices a second, %.0f us "
        "of the scheduler's CPU each\n",
        static_cast<long long>(kDevicesAtOnce), took, static_cast<double>(kDevicesAtOnce) / took,
        (after.cpu_us - before.cpu_us) / static_cast<double>(kDevicesAtOnce));
  }

  // Devices that confirm as soon as they hear what to run.
  Task<void> latency() {
    std::set<std::string> mine;
    std::vector<double> gaps;
    std::optional<Clock::time_point> last;  // confirmation of a whole stage
    int confirmed = 0;
    TaskScope answers(co_await asio::this_coro::executor);
    on_desired_ = [&](const std::string& device, device::v1::DesiredState desired) {
      if (mine.erase(device) == 0) return;
      if (last) gaps.push_back(1000 * seconds_since(*last));
      last.reset();
      answers.spawn("report", report(device, std::move(desired)));
      if (++confirmed % kDevicesOfStage == 0) last = Clock::now();
    };
    for (int i = 0; i < options_.rollouts; ++i) {
      const std::int64_t count = kDevicesOfStage * (kSamples + 1);
      const std::string fleet = co_await make_fleet(count);
      const auto rows = co_await db_.query(
          Scope::system(), "SELECT id FROM devices WHERE fleet_id = $1", Params().text(fleet));
      for (const postgres::Row& row : rows.rows) mine.insert(row.text("id"));
      domain::RolloutPlan plan;
      plan.stages.clear();
      for (std::int64_t end = kDevicesOfStage; end <= count; end += kDevicesOfStage)
        plan.stages.push_back({.share = 0, .count = end});
      last.reset();
      const std::string deployment = co_await deploy(fleet, plan);
      co_await hint();
      while (co_await number("SELECT count(*) AS n FROM rollouts WHERE deployment_id = $1 AND "
                             "state = 'COMPLETED'",
                             Params().text(deployment)) == 0)
        co_await sleep_for(Duration(50));
    }
    on_desired_ = nullptr;
    co_await answers.join();
    std::sort(gaps.begin(), gaps.end());
    const auto at = [&](double share) {
      return gaps.at(static_cast<std::size_t>(share * static_cast<double>(gaps.size() - 1)));
    };
    std::printf(
        "from the last confirmation to the next stage's first desired state: p50 %.0f ms, p99 %.0f "
        "ms, %zu stages (promise: p99 under 1000)\n",
        at(0.5), at(0.99), gaps.size());
  }

  postgres::Database& db_;
  const LiveOptions options_;
  const crypto::SealingKeys keys_;
  faults::Program scheduler_;
  mqtt::Client bus_;
  TaskScope scope_;
  Processes processes_;
  std::function<void(const std::string& device, device::v1::DesiredState)> on_desired_;
  std::vector<std::string> devices_;
  std::string release_;
};

}  // namespace

Task<void> run_live(const faults::Stack& stack, postgres::Database& db, LiveOptions options) {
  Live live(co_await asio::this_coro::executor, stack, db, std::move(options));
  co_await live.run();
}

}  // namespace flock::bench

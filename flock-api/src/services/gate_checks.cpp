// SPDX-License-Identifier: Apache-2.0
#include "services/gate_checks.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <vector>

#include "async/loop.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "services/comparison.h"
#include "services/rollout_plan_json.h"
#include "services/sealing.h"
#include "stores/postgres/gate_statements.h"
#include "stores/webhooks/gate_webhook.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using namespace domain;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr Duration kLookEvery{1000};
// Checks at the same time, and of one organization: one whose services are slow holds up no other.
constexpr std::size_t kAtOnce = 16;
constexpr int kOfOneOrg = 4;
constexpr std::int64_t kMostDevices = 10'000;  // that one metric is asked for
constexpr std::size_t kLongestReason = 500;

std::int64_t now_ms() { return to_unix_ms(system_clock().now()); }

// When the gates of a rollout were looked at last, by their place in the plan.
std::vector<std::int64_t> last_looks(const Row& row, std::size_t gates) {
  std::vector<std::int64_t> out(gates);
  const auto stored = row.optional_text("checked");
  if (!stored) return out;
  const boost::json::value checked = boost::json::parse(*stored);
  for (std::size_t i = 0; i < gates; ++i) {
    const auto* at = checked.as_object().if_contains(std::to_string(i));
    if (at != nullptr) out[i] = at->to_number<std::int64_t>();
  }
  return out;
}

// One line that can be stored and shown, whoever wrote it.
std::string line_of(std::string text) {
  const bool plain = !json::is_utf8(text);
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = ' ';
    if (plain && byte >= 0x80) c = '?';
  }
  if (text.size() <= kLongestReason) return text;
  std::size_t end = kLongestReason;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// How many devices the stages up to the open one hold.
std::int64_t reached_at_most(const Row& row) {
  const auto ends = row.texts("stage_ends");
  const auto stage = static_cast<std::size_t>(row.integer("stage"));
  return stage < ends.size() ? std::stoll(ends[stage]) : 0;
}

// A look is due at its interval, and as soon as the devices of a stage have settled or an operator
// let the rollout go on: what was found before that does not count.
bool is_due(const Gate& gate, const RolloutProgress& progress, std::int64_t last,
            std::int64_t now) {
  return last + gate.interval.count() <= now || last < progress.settled_ms ||
         last < progress.accepted_ms;
}

}  // namespace

Task<std::vector<Problem>> faults_of_gates(const RolloutPlan& plan, std::string org,
                                           stores::TimeSeries& time_series,
                                           stores::WebhookRules rules) {
  std::vector<Problem> faults;
  for (std::size_t i = 0; i < plan.gates.size(); ++i) {
    const Gate& gate = plan.gates[i];
    const std::string at = "/gates/" + std::to_string(i);
    if (gate.kind == GateKind::kWebhook) {
      if (std::string fault = stores::webhook_fault(rules, gate.url); !fault.empty())
        faults.push_back({at + "/url", "invalid", std::move(fault)});
      if (!stores::webhook_key(gate.secret.reveal()))
        faults.push_back({at + "/secret", "invalid",
                          "must be whsec_ and the base64 of 24 to 64 bytes: echo whsec_$(openssl "
                          "rand -base64 32)"});
    } else if (gate.kind == GateKind::kQuery) {
      // Over no time: the server reads the query, and no rows.
      const std::int64_t now = now_ms();
      try {
        co_await time_series.ask({org, gate.query, now, now, {}, {}});
      } catch (const Error& error) {
        const bool at_fault = error.code() == Code::kInvalidArgument ||
                              error.code() == Code::kUnsupported || error.code() == Code::kTimeout;
        if (!at_fault) throw;
        faults.push_back({at + "/query", "invalid", error.message()});
      }
    }
  }
  co_return faults;
}

struct GateChecks::Job {
  std::string org, rollout, deployment;
  std::optional<std::string> release_id, release_version;
  std::int64_t stage = 0, stages = 0;  // the open one, from 1
  std::size_t index = 0;               // of the gate in the plan
  Gate gate;
  std::int64_t reached_at_most = 0;  // devices
  std::int64_t accepted_ms = 0;      // domain::RolloutProgress
  std::int64_t at_ms = 0;            // when the check began
};

Task<void> GateChecks::run() {
  TaskScope scope(co_await asio::this_coro::executor);
  std::exception_ptr stopped;
  try {
    for (;;) {
      try {
        co_await look_for_due(scope);
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot look which gates are due; tried again", error);
      }
      co_await sleep_for(kLookEvery);
    }
  } catch (...) {
    stopped = std::current_exception();
  }
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await scope.finish();
  co_await asio::this_coro::throw_if_cancelled(true);
  std::rethrow_exception(stopped);
}

Task<void> GateChecks::look_for_due(TaskScope& scope) {
  const auto rollouts = co_await db_.query(Scope::system(), sql::kRolloutsToCheck);
  std::vector<std::pair<std::int64_t, Job>> due;  // with the last look
  const std::int64_t now = now_ms();
  for (const Row& row : rollouts.rows) {
    const RolloutPlan plan = stored_plan(row.text("strategy"));
    RolloutProgress progress;
    read_progress(row.text("progress"), progress);
    const auto last = last_looks(row, plan.gates.size());
    const std::int64_t reached = reached_at_most(row);
    for (std::size_t i = 0; i < plan.gates.size(); ++i) {
      const Gate& gate = plan.gates[i];
      if (!gate.is_elsewhere() || !is_due(gate, progress, last[i], now)) continue;
      due.emplace_back(
          last[i], Job{row.text("org_id"), row.text("id"), row.text("deployment_id"),
                       row.optional_text("release_id"), row.optional_text("release_version"),
                       row.integer("stage") + 1, static_cast<std::int64_t>(plan.stages.size()), i,
                       gate, reached, progress.accepted_ms, now});
    }
  }
  // Who waits longest is first.
  std::ranges::sort(due, {}, [](const auto& item) { return item.first; });
  for (auto& [last, job] : due) {
    if (running_.size() >= kAtOnce) break;
    if (running_.contains({job.rollout, job.index}) || running_of_[job.org] >= kOfOneOrg) continue;
    running_.emplace(job.rollout, job.index);
    ++running_of_[job.org];
    scope.spawn("a gate's check", check(std::move(job)));
  }
}

Task<void> GateChecks::check(Job job) {
  // However it ends.
  struct Running {
    GateChecks& checks;
    const std::string org;
    const std::pair<std::string, std::size_t> key;
    ~Running() {
      checks.running_.erase(key);
      if (--checks.running_of_[org] == 0) checks.running_of_.erase(org);
    }
  };
  const Running running{*this, job.org, {job.rollout, job.index}};
  Check found;
  std::string evidence;
  try {
    found = co_await look(job, evidence);
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    found = Check{.reason = error.message()};
    log::warn("a gate cannot be looked at", error,
              {{"rollout", job.rollout}, {"gate", static_cast<std::int64_t>(job.index)}});
  }
  found.at_ms = job.at_ms;
  try {
    co_await keep(job, std::move(found), std::move(evidence));
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::warn("what a gate's check found cannot be kept; it is made again", error,
              {{"rollout", job.rollout}});
  }
}

Task<Check> GateChecks::look(const Job& job, std::string& evidence) {
  switch (job.gate.kind) {
    case GateKind::kMetric:
      co_return co_await check_metric(job);
    case GateKind::kQuery:
      co_return co_await check_query(job);
    case GateKind::kWebhook:
      co_return co_await check_webhook(job);
    case GateKind::kComparison:
      co_return co_await check_comparison(job, evidence);
    case GateKind::kDevices:
      break;
  }
  co_return Check{};
}

Task<void> GateChecks::keep(const Job& job, Check found, std::string evidence) {
  found.reason = line_of(std::move(found.reason));
  Params params = Params().text(job.org).text(job.rollout);
  params.integer(static_cast<std::int64_t>(job.index)).time(from_unix_ms(found.at_ms));
  if (found.value)
    params.real(*found.value);
  else
    params.text(std::nullopt);
  params.integer(found.sample).text(std::string(name_of(found.verdict))).text(found.reason);
  params.text(evidence.empty() ? std::nullopt : std::optional(std::move(evidence)));
  co_await db_.query(Scope::system(), sql::kCheckPut, std::move(params));
  found_();
}

Task<postgres::Rows> GateChecks::reached(const Job& job) {
  // Of very many devices some, others every time.
  const std::int64_t parts =
      std::max<std::int64_t>(1, (job.reached_at_most + kMostDevices - 1) / kMostDevices);
  const std::int64_t part = (job.at_ms / job.gate.interval.count()) % parts;
  co_return co_await db_.query(
      Scope::system(), sql::kReachedDevices,
      Params().text(job.org).text(job.rollout).integer(parts).integer(part));
}

Task<Check> GateChecks::check_query(const Job& job) {
  stores::OperatorQuery query{
      job.org, job.gate.query, job.at_ms - job.gate.window.count(), job.at_ms, {}, {}};
  const auto begun = co_await reached(job);
  const auto to_come = co_await db_.query(Scope::system(), sql::kWaitingDevices,
                                          Params().text(job.org).text(job.rollout));
  for (const Row& row : begun.rows) query.reached.push_back(row.text("device_id"));
  for (const Row& row : to_come.rows) query.waiting.push_back(row.text("device_id"));
  const stores::OperatorAnswer answer = co_await time_series_.ask(std::move(query));
  Check check{.value = answer.value, .sample = answer.sample};
  if (!answer.value) check.reason = "it gave no number";
  co_return check;
}

Task<Check> GateChecks::check_webhook(const Job& job) {
  const auto stored = co_await db_.query(
      Scope::system(), sql::kGateSecret,
      Params().text(job.org).text(job.deployment).integer(static_cast<std::int64_t>(job.index)));
  if (stored.empty()) throw Error(Code::kCorrupt, "what its requests are signed with is lost");
  const Row& row = stored.rows.front();
  const Secret secret(keys_.open(row.text("secret"), gate_context(job.org, row.text("id"))));
  const auto key = stores::webhook_key(secret.reveal());
  if (!key) throw Error(Code::kCorrupt, "what its requests are signed with is damaged");
  boost::json::object data{{"rollout_id", job.rollout},
                           {"deployment_id", job.deployment},
                           {"stage", job.stage},
                           {"stages", job.stages},
                           {"gate", title(job.gate)}};
  if (job.release_id)
    data["release"] =
        boost::json::object{{"id", *job.release_id}, {"version", *job.release_version}};
  co_return co_await stores::ask_webhook(rules_, job.gate, *key, std::move(data));
}

Task<Check> GateChecks::check_metric(const Job& job) {
  const auto rows = co_await reached(job);
  stores::SummaryQuery query{
      job.org,  {}, job.gate.metric, job.gate.service, job.at_ms - job.gate.window.count(),
      job.at_ms};
  for (const Row& row : rows.rows)
    query.devices.emplace_back(row.text("device_id"), to_unix_ms(row.time("since")));
  const auto asked = static_cast<std::int64_t>(query.devices.size());
  const stores::Summary summary = co_await time_series_.summary(std::move(query));
  Check check{.sample = summary.devices};
  if (summary.devices == 0) {
    check.reason = "none of " + std::to_string(asked) + (asked == 1 ? " device" : " devices") +
                   " sent it within " + to_string(job.gate.window);
    co_return check;
  }
  check.value = job.gate.aggregate == Aggregate::kMax   ? summary.max
                : job.gate.aggregate == Aggregate::kP95 ? summary.p95
                                                        : summary.avg;
  co_return check;
}

Task<Check> GateChecks::check_comparison(const Job& job, std::string& evidence) {
  const Evidence gathered = co_await gather(
      db_, {job.org, job.rollout, job.index, job.gate, job.accepted_ms, job.at_ms}, evidence);
  co_return conclude(job.gate, gathered, job.at_ms);
}

}  // namespace flock::services

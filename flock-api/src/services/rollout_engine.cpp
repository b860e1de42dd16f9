// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_engine.h"

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <cstdint>

#include "base/error.h"
#include "base/log.h"
#include "services/isolated.h"
#include "services/rollout_news.h"
#include "services/rollout_plan_json.h"
#include "services/rollout_selection.h"
#include "services/rollout_turns.h"
#include "stores/postgres/gate_statements.h"
#include "stores/postgres/rollout_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using namespace domain;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// Of one rollout in one transaction; the next round goes on.
constexpr int kDecisions = 10;
// So many tallies of one rollout are put together.
constexpr std::int64_t kManyTallies = 1000;

std::vector<std::int64_t> numbers(const std::vector<std::string>& texts) {
  std::vector<std::int64_t> out;
  for (const std::string& text : texts) out.push_back(std::stoll(text));
  return out;
}
std::vector<std::string> texts(const std::vector<std::int64_t>& numbers) {
  std::vector<std::string> out;
  for (const std::int64_t number : numbers) out.push_back(std::to_string(number));
  return out;
}

StageCounts counts_of(const Row& row) {
  StageCounts c;
  const std::pair<const char*, std::int64_t*> columns[] = {
      {"total", &c.total},
      {"superseded", &c.superseded},
      {"updating", &c.updating},
      {"offline", &c.offline},
      {"confirmed", &c.confirmed},
      {"failed", &c.failed},
      {"began_lately", &c.began_lately},
      {"waiting_online", &c.waiting_online},
      {"waiting_offline", &c.waiting_offline},
      {"stage_settled", &c.stage_settled},
      {"stage_away", &c.stage_away},
      {"online", &c.online},
      {"unhealthy", &c.unhealthy},
      {"restarting", &c.restarting},
      {"confirmed_lately", &c.confirmed_lately},
      {"failed_lately", &c.failed_lately},
      {"to_return", &c.to_return},
      {"returning", &c.returning},
      {"returning_offline", &c.returning_offline},
      {"returned", &c.returned},
      {"stuck", &c.stuck}};
  for (const auto& [column, value] : columns) *value = row.optional_integer(column).value_or(0);
  return c;
}

Task<void> put(postgres::Transaction& tx, const LockedRollout& rollout) {
  const RolloutProgress& progress = rollout.progress;
  co_await tx.query(sql::kRolloutPut,
                    Params()
                        .text(rollout.org)
                        .text(rollout.id)
                        .text(std::string(name_of(progress.state)))
                        .text(progress.why)
                        .integer(progress.stage)
                        .text(progress_json(progress))
                        .text(boost::json::serialize(gates_json(rollout.plan, rollout.gates)))
                        .boolean(has_ended(progress.state)));
}

Task<void> write_down(postgres::Transaction& tx, const LockedRollout& rollout,
                      const RolloutSeen& seen, std::string what, std::optional<std::string> actor,
                      std::int64_t devices) {
  boost::json::object inputs{{"counts", counts_json(seen.counts)},
                             {"gates", gates_json(rollout.plan, rollout.gates)}};
  if (!seen.first_failure.empty()) inputs["first_failure"] = seen.first_failure;
  // An order is a turn as well; the rest is how the engine gets from one to the next.
  const bool is_news = actor || what == name_of(Step::kBegin) || what == name_of(Step::kPause) ||
                       what == name_of(Step::kNextStage) || what == name_of(Step::kRollBack) ||
                       what == name_of(Step::kEnd);
  co_await tx.query(sql::kRolloutDecided, Params()
                                              .text(rollout.org)
                                              .text(rollout.id)
                                              .text(std::move(what))
                                              .text(actor)
                                              .text(std::string(name_of(rollout.progress.state)))
                                              .integer(rollout.progress.stage)
                                              .integer(devices)
                                              .text(rollout.progress.why)
                                              .text(boost::json::serialize(inputs))
                                              .boolean(is_news));
}

// What a step does beside the rollout's own row.
Task<void> act(postgres::Transaction& tx, const LockedRollout& rollout, const RolloutSeen& seen,
               const Decision& decision) {
  const auto params = [&] { return Params().text(rollout.org).text(rollout.id); };
  switch (decision.step) {
    case Step::kLetGo:
      co_await let_go(tx, rollout, seen, decision.count, rollout.plan.only_online());
      break;
    case Step::kRetry:
      co_await retry_due(tx, rollout);
      break;
    case Step::kReturn:
      co_await take_back(tx, rollout, seen, decision.count);
      break;
    case Step::kRollBack:
      co_await tx.query(sql::kRolloutSkip, params());
      co_await close_to_newcomers(tx, rollout.org, rollout.deployment, rollout.id);
      break;
    case Step::kEnd:
      if (decision.end == RolloutState::kCompleted && !rollout.plan.windows.empty()) {
        co_await tx.query(sql::kRolloutLeaveOut, params());
      } else if (decision.end == RolloutState::kCompleted) {
        // Who was away under a limit, and not waited for any longer, follows when it comes back.
        co_await let_go(tx, rollout, seen, INT64_MAX, false);
      } else {
        co_await tx.query(sql::kRolloutSkip, params());
      }
      break;
    default:
      break;
  }
}

// What was found last, for every gate of the plan; those that do not look elsewhere have none.
Task<std::vector<Check>> checks_of(postgres::Transaction& tx, const LockedRollout& rollout) {
  const std::vector<Gate>& gates = rollout.plan.gates;
  std::vector<Check> out(gates.size());
  if (std::ranges::none_of(gates, &Gate::is_elsewhere)) co_return out;
  const auto rows = co_await tx.query(sql::kChecks, Params().text(rollout.org).text(rollout.id));
  for (const Row& row : rows.rows) {
    const auto gate = static_cast<std::size_t>(row.integer("gate"));
    if (gate < out.size()) out[gate] = check_of(row);
  }
  co_return out;
}

bool in_last_stage(const LockedRollout& rollout) {
  return rollout.progress.stage + 1 == static_cast<std::int64_t>(rollout.plan.stages.size());
}

// From the last stage on; one that nobody was there for is for who comes, whatever its stages.
bool is_for_newcomers(const LockedRollout& rollout, const Decision& decision,
                      const RolloutSeen& seen) {
  if (in_last_stage(rollout))
    return decision.step == Step::kNextStage || decision.step == Step::kBegin;
  return seen.counts.total == 0 && decision.step == Step::kEnd &&
         decision.end == RolloutState::kCompleted;
}

}  // namespace

Task<std::optional<LockedRollout>> lock_rollout(postgres::Transaction& tx, std::string org,
                                                std::string id) {
  const auto rows = co_await tx.query(sql::kRolloutLock, Params().text(org).text(id));
  if (rows.empty()) co_return std::nullopt;
  const Row& row = rows.rows.front();
  LockedRollout out;
  out.org = org;
  out.id = id;
  out.deployment = row.text("deployment_id");
  out.plan = stored_plan(row.text("strategy"));
  out.plan.max_failed_ratio = row.real("max_failed_ratio");
  out.progress.state = rollout_state_named(row.text("state"));
  out.progress.stage = row.integer("stage");
  out.progress.why = row.optional_text("reason").value_or("");
  read_progress(row.text("progress"), out.progress);
  out.ends = numbers(row.texts("stage_ends"));
  out.gates = stored_gates(row.text("gates"), out.plan.gates.size());
  out.failure_timeout = Duration(row.integer("failure_timeout_ms"));
  out.created_by = row.optional_text("created_by").value_or("");
  co_return out;
}

Task<RolloutSeen> look_at(postgres::Transaction& tx, const LockedRollout& rollout,
                          std::int64_t now_ms) {
  const auto rows = co_await tx.query(
      sql::kStageCounts,
      Params().text(rollout.org).text(rollout.id).integer(rollout.progress.stage));
  RolloutSeen seen;
  seen.now_ms = now_ms;
  seen.ends = rollout.ends;
  seen.counts = counts_of(rows.rows.at(0));
  const bool back = rollout.progress.returning;
  if ((back ? seen.counts.stuck : seen.counts.failed) > 0) {
    const auto failure = co_await tx.query(
        sql::kFirstFailure, Params()
                                .text(rollout.org)
                                .text(rollout.id)
                                .text(std::string(back ? "ROLLBACK_FAILED" : "FAILED")));
    if (!failure.empty())
      seen.first_failure = failure.rows.front().optional_text("reason").value_or("");
  }
  if (!back) co_await look_at_windows(tx, rollout, seen);
  co_await look_at_down_limit(tx, rollout, seen);
  if (back) {
    seen.gates = rollout.gates;  // as they were when it turned back
    co_return seen;
  }
  co_await look_at_retries(tx, rollout, seen);
  const std::vector<Check> checks = co_await checks_of(tx, rollout);
  for (std::size_t i = 0; i < rollout.plan.gates.size(); ++i) {
    const Gate& gate = rollout.plan.gates[i];
    const GateView& before = rollout.gates[i];
    seen.gates.push_back(gate.is_elsewhere()
                             ? look(gate, checks[i], rollout.progress.accepted_ms, before, now_ms)
                             : look(gate, seen.counts, rollout.progress.forgiven, before, now_ms));
  }
  co_return seen;
}

Task<void> obey_order(postgres::Transaction& tx, LockedRollout rollout, Order order,
                      std::string actor) {
  const std::int64_t now_ms = to_unix_ms(system_clock().now());
  const RolloutSeen seen = co_await look_at(tx, rollout, now_ms);
  const bool had_ended = has_ended(rollout.progress.state);
  rollout.progress = obey(rollout.progress, order, seen.counts, now_ms);
  if (order == Order::kRollBack) {
    co_await act(tx, rollout, seen, {Step::kRollBack, 0, RolloutState::kRollingBack, ""});
  } else if (order == Order::kAbort) {
    co_await act(tx, rollout, seen, {Step::kEnd, 0, RolloutState::kAborted, ""});
  } else if (order == Order::kRetry) {
    co_await retry_all(tx, rollout);
  }
  if (had_ended && !has_ended(rollout.progress.state))
    co_await tx.query(sql::kRolloutHearsAgain, Params().text(rollout.org).text(rollout.id));
  co_await put(tx, rollout);
  co_await write_down(tx, rollout, seen, std::string(name_of(order)), actor, 0);
}

Task<void> RolloutEngine::begin_deployments() {
  const auto pending = co_await term_.query(Scope::system(), sql::kDeploymentsPending);
  for (const Row& deployment : pending.rows)
    co_await isolated("a deployment", deployment.text("id"), begin(deployment));
}

Task<void> RolloutEngine::begin(const Row& deployment) {
  const std::string org = deployment.text("org_id"), id = deployment.text("id");
  const std::string rollout_id = new_uuid();
  const Claim claim = stored_claim(deployment);
  const RolloutPlan plan = stored_plan(deployment.text("strategy"));
  std::int64_t total = 0, held = 0;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    const auto mine =
        co_await tx.query(sql::kDeploymentExecuted, Params().text(org).text(id).text(rollout_id));
    if (mine.empty()) co_return;  // another leader was here before us
    const TimePoint now = system_clock().now();
    const std::int64_t now_ms = to_unix_ms(now);
    const postgres::Selection selection = co_await selection_of(tx, org, claim);
    const postgres::Statement size = postgres::selection_count(selection, now);
    const Row count = (co_await tx.query(size.text.c_str(), size.params)).rows.at(0);
    held = count.integer("conflicting");
    total = count.integer("count") - held;
    RolloutProgress progress;
    progress.opened_ms = now_ms;
    progress.state = plan.approval               ? RolloutState::kAwaitingApproval
                     : plan.start_at_ms > now_ms ? RolloutState::kScheduled
                                                 : RolloutState::kRunning;
    co_await tx.query(sql::kRolloutInsert, Params()
                                               .text(rollout_id)
                                               .text(org)
                                               .text(id)
                                               .text(deployment.optional_text("release_id"))
                                               .text(claim.selector.fleet)
                                               .text(std::string(name_of(progress.state)))
                                               .texts(texts(stage_ends(plan, total)))
                                               .text(progress_json(progress)));
    const postgres::Statement assign =
        postgres::rollout_assign(selection, rollout_id, plan.spread_over, now);
    co_await tx.query(assign.text.c_str(), assign.params);
    co_await tx.query(sql::kSupersedeWaiting, Params().text(org).text(rollout_id));
    auto rollout = co_await lock_rollout(tx, org, rollout_id);
    const bool begins = progress.state == RolloutState::kRunning;
    rollout->progress.why = begins ? "it begins" : "it waits for its beginning";
    if (held > 0)
      rollout->progress.why += "; " + std::to_string(held) +
                               " of its devices stay in open rollouts with a better claim to them";
    co_await put(tx, *rollout);
    if (!begins) co_return;
    if (in_last_stage(*rollout)) co_await open_to_newcomers(tx, org, id, rollout_id);
    co_await write_down(tx, *rollout, co_await look_at(tx, *rollout, now_ms),
                        std::string(name_of(Step::kBegin)), std::nullopt, total);
  };
  co_await term_.transaction(Scope::system(), work);
  log::info("rollout made", {{"rollout", rollout_id}, {"devices", total}});
  co_await announce_rollout(bus_, org, rollout_id);
}

Task<void> RolloutEngine::adopt_newcomers() { co_await adopt_changed(term_); }

Task<void> RolloutEngine::sweep_latecomers() {
  const auto end_behind = [&](std::string id) {
    return term_.query(Scope::system(), sql::kLatecomersEnd, Params().text(id));
  };
  std::string after = latecomers_after_;
  auto end = co_await end_behind(after);
  if (end.empty() && after != kFirstDevice) end = co_await end_behind(after = kFirstDevice);
  latecomers_after_ = end.empty() ? kFirstDevice : end.rows.front().text("id");
  if (end.empty()) co_return;
  const auto devices = co_await term_.query(Scope::system(), sql::kLatecomers,
                                            Params().text(after).text(latecomers_after_));
  for (const Row& device : devices.rows) {
    co_await term_.query(Scope::system(), sql::kRolloutNewcomer,
                         Params()
                             .text(device.text("org_id"))
                             .text(device.text("rollout_id"))
                             .text(device.text("id")));
  }
}

Task<void> RolloutEngine::hear_of_devices() {
  const auto work = [](postgres::Transaction& tx) -> Task<void> {
    co_await tx.query(sql::kDeviceTurns);
  };
  co_await term_.transaction(Scope::system(), work);
}

Task<void> RolloutEngine::fold_tallies() {
  const auto many =
      co_await term_.query(Scope::system(), sql::kTalliesMany, Params().integer(kManyTallies));
  for (const Row& row : many.rows)
    co_await term_.query(Scope::system(), sql::kTalliesFold,
                         Params().text(row.text("org_id")).text(row.text("rollout_id")));
}

Task<void> RolloutEngine::advance() {
  const auto open = co_await term_.query(Scope::system(), sql::kRolloutsOpen);
  for (const Row& row : open.rows)
    co_await isolated("a rollout", row.text("id"), advance_one(row.text("org_id"), row.text("id")));
}

Task<void> RolloutEngine::advance_one(std::string org, std::string id) {
  bool changed = false;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    changed = false;
    auto rollout = co_await lock_rollout(tx, org, id);
    if (!rollout || has_ended(rollout->progress.state)) co_return;
    co_await tx.query(sql::kRolloutTimeouts,
                      Params().text(org).text(id).integer(rollout->failure_timeout.count()));
    for (int i = 0; i < kDecisions && !has_ended(rollout->progress.state); ++i) {
      const RolloutSeen seen = co_await look_at(tx, *rollout, to_unix_ms(system_clock().now()));
      const Decision decision = decide(rollout->plan, rollout->progress, seen);
      const bool said = decision.why == rollout->progress.why;
      co_await act(tx, *rollout, seen, decision);
      rollout->gates = seen.gates;
      rollout->progress = carry_out(rollout->progress, decision, seen);
      if (is_for_newcomers(*rollout, decision, seen))
        co_await open_to_newcomers(tx, org, rollout->deployment, id);
      if (decision.step != Step::kWait || !said) {
        changed = true;
        co_await write_down(tx, *rollout, seen, std::string(name_of(decision.step)), std::nullopt,
                            decision.count);
      }
      if (decision.step == Step::kWait) break;
    }
    // While it waits for the same, nothing but its gates moves.
    if (changed || !rollout->plan.gates.empty()) co_await put(tx, *rollout);
    if (has_ended(rollout->progress.state)) {
      log::info("rollout ended", {{"rollout", id},
                                  {"state", std::string(name_of(rollout->progress.state))},
                                  {"reason", rollout->progress.why}});
    }
  };
  co_await term_.transaction(Scope::system(), work);
  if (changed) co_await announce_rollout(bus_, org, id);
}

}  // namespace flock::services

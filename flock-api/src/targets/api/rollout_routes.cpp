// SPDX-License-Identifier: Apache-2.0
// Rollouts: how far they are and why, orders to them, and their event stream.
#include "async/loop.h"
#include "net/sse.h"
#include "services/rollout_engine.h"
#include "services/rollout_plan_json.h"
#include "targets/api/deployment_request.h"
#include "targets/api/streams.h"

namespace flock::targets::api {
namespace {

// What the scheduler moves by itself.
constexpr std::string_view kPassing[] = {"state", "reason", "counts", "stage", "gates", "ended_at"};
constexpr Duration kLookAnyway{5000};  // a change is told on the bus; the broker may be away
constexpr Duration kLookApart{200};    // a rollout of many devices changes all the time
constexpr std::size_t kStreamPage = 1000;

bj::array stages_json(const domain::RolloutPlan& plan, const std::vector<std::string>& ends) {
  bj::array out;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const domain::Stage& stage = plan.stages[i];
    bj::object item{{"devices", i < ends.size() ? std::stoll(ends[i]) : 0},
                    {"soak", to_string(stage.soak)}};
    if (stage.by_hand) item["by_hand"] = true;
    out.push_back(std::move(item));
  }
  return out;
}

// A gate as it was measured last, beside its limit.
bj::array shown_gates(const std::string& stored) {
  bj::array gates = json::parse(stored).as_array();
  for (bj::value& item : gates) {
    bj::object& gate = item.as_object();
    for (const auto& [stored_as, shown_as] :
         {std::pair{"since_ms", "since"}, std::pair{"looked_ms", "looked_at"}}) {
      const auto at = gate.at(stored_as).to_number<std::int64_t>();
      if (at > 0) set_time(gate, shown_as, from_unix_ms(at));
    }
    // Of a webhook, or where nothing could be measured, there is no value.
    const bj::value* const kind = gate.if_contains("kind");
    const bool measured = gate.at("measured_on").to_number<std::int64_t>() > 0;
    if (kind != nullptr && (!measured || *kind == "webhook")) gate.erase("now");
    for (const char* inner : {"since_ms", "looked_ms", "last_look", "looks"}) gate.erase(inner);
  }
  return gates;
}

bj::object rollout_json(const Row& row) {
  bj::object counts;
  for (const char* key : {"total", "waiting", "pending", "delivered", "downloading", "starting",
                          "soaking", "confirmed", "failed", "superseded", "skipped", "rolling_back",
                          "rolled_back", "rollback_failed"})
    counts[key] = row.integer(key);
  bj::object out{
      {"id", row.text("id")},
      {"deployment_id", row.text("deployment_id")},
      {"state", row.text("state")},
      {"stage", row.integer("stage") + 1},
      {"stages", stages_json(services::stored_plan(row.text("strategy")), row.texts("stage_ends"))},
      {"gates", shown_gates(row.text("gates"))},
      {"counts", std::move(counts)}};
  set_release(out, row);
  if (const auto command = row.optional_text("host_command"))
    out["host_command"] = json::parse(*command);
  if (const auto fleet = row.optional_text("fleet_id")) out["fleet_id"] = *fleet;
  if (const auto reason = row.optional_text("reason")) out["reason"] = *reason;
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "ended_at", row.optional_time("ended_at"));
  return out;
}

bj::object decision_json(const Row& row) {
  bj::object out{{"id", row.text("id")},       {"step", row.text("step")},
                 {"state", row.text("state")}, {"stage", row.integer("stage") + 1},
                 {"why", row.text("why")},     {"seen", json::parse(row.text("seen"))}};
  if (const auto actor = row.optional_text("actor")) out["actor"] = *actor;
  if (const std::int64_t devices = row.optional_integer("devices").value_or(0); devices > 0)
    out["devices"] = devices;
  set_time(out, "at", row.time("at"));
  return out;
}

bj::object rollout_device_json(const Row& row) {
  bj::object out{
      {"device_id", row.text("device_id")}, {"name", row.text("name")},
      {"online", row.boolean("online")},    {"state", row.text("state")},
      {"stage", row.integer("stage") + 1},  {"desired_version", row.integer("desired_version")}};
  if (const auto reason = row.optional_text("reason")) out["reason"] = *reason;
  if (const auto command = row.optional_text("host_command"))
    out["host_command"] = json::parse(*command);
  if (const auto failure = row.optional_text("failure")) out["failure"] = *failure;
  if (const std::int64_t retries = row.integer("retries"); retries > 0) out["retries"] = retries;
  set_time(out, "began_at", row.optional_time("began_at"));
  set_time(out, "updated_at", row.time("updated_at"));
  return out;
}

Task<bj::object> find_rollout(Context& c, Scope scope, std::string id) {
  const RolloutId rollout = RolloutId::parse(id);
  Params params = Params().text(scope.org()).text(rollout.text());
  const auto rows =
      co_await c.parts.db.query(std::move(scope), sql::kRolloutGet, std::move(params));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such rollout")
        .with("rollout", id)
        .hint("flock rollouts lists them");
  co_return rollout_json(rows.rows.front());
}

Task<net::Reply> list_rollouts(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kRolloutList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(rollout_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_rollout(Call& call) {
  const bj::object rollout =
      co_await find_rollout(call.context, call.scope(), call.parameter("id"));
  co_return call.answer(200, rollout, kPassing);
}

Task<net::Reply> list_rollout_devices(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kRolloutDevices,
      Params().text(call.org()).text(id).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(rollout_device_json(row));
  co_return list_reply(std::move(items), page, "device_id");
}

// Sends what differs from what was sent; the present state first, so that a reader who resumes
// misses nothing.
class RolloutStream final : public EventSource {
 public:
  RolloutStream(Context& c, Scope scope, std::string id)
      : c_(c), scope_(std::move(scope)), id_(std::move(id)), follower_(c.events, std::nullopt) {}

  Task<std::string> next(Duration limit, bool& over) override {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (!stale_ && now < looked_ + kLookAnyway) {
      const auto events = co_await follower_.next(limit);
      for (const ResourceEvent& event : events)
        stale_ = stale_ || event.subject == id_ || event.type == "gap";
      if (!stale_) co_return "";
    }
    const Duration since =
        std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - looked_);
    if (since < kLookApart) co_await sleep_for(kLookApart - since);
    try {
      stale_ = false;
      looked_ = std::chrono::steady_clock::now();
      co_return co_await changes(over);
    } catch (const Error& error) {
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
      // The database is away for a moment: the reader keeps its place.
    }
    co_await sleep_for(limit);
    stale_ = true;
    co_return "";
  }
  std::string goodbye(const std::string& reason) override {
    return event("end", bj::object{{"state", state_}, {"reason", reason}});
  }

 private:
  Task<std::string> changes(bool& settled) {
    std::string text;
    const bj::object rollout = co_await find_rollout(c_, scope_, id_);
    std::string after;
    for (bool more = true; more;) {
      const auto rows = co_await c_.parts.db.query(
          scope_, sql::kRolloutDevices,
          Params().text(scope_.org()).text(id_).text(after).integer(kStreamPage));
      for (const Row& row : rows.rows) {
        after = row.text("device_id");
        const std::string device = bj::serialize(rollout_device_json(row));
        std::string& sent = devices_[after];
        if (sent == device) continue;
        sent = device;
        text += event("device", device);
      }
      more = rows.rows.size() == kStreamPage;
    }
    state_ = rollout.at("state").as_string();
    const std::string now = bj::serialize(rollout);
    if (now != rollout_) {
      rollout_ = now;
      text += event("rollout", now);
    }
    settled = rollout.contains("ended_at");
    if (settled) {
      bj::object end{{"state", rollout.at("state")}};
      if (const bj::value* reason = rollout.if_contains("reason")) end["reason"] = *reason;
      text += event("end", end);
    }
    co_return text;
  }

  std::string event(const char* name, const bj::value& data) {
    return event(name, bj::serialize(data));
  }
  std::string event(const char* name, std::string data) {
    return net::format_sse({std::to_string(++sequence_), name, std::move(data)});
  }

  Context& c_;
  Scope scope_;
  std::string id_, rollout_, state_ = "RUNNING";
  std::map<std::string, std::string> devices_;
  std::int64_t sequence_ = 0;
  EventHub::Follower follower_;
  bool stale_ = true;
  SteadyPoint looked_;
};

Task<net::Reply> list_decisions(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);
  const Page page = read_page(call.request);
  const std::int64_t after = number_after(page);
  const auto rows =
      co_await call.query(sql::kRolloutDecisions,
                          Params().text(call.org()).text(id).integer(after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(decision_json(row));
  co_return list_reply(std::move(items), page);
}

// There are few causes, so they come at once.
Task<net::Reply> list_failures(Call& call) {
  allow_query(call.request, {});
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);
  const auto rows = co_await call.query(sql::kRolloutFailures, Params().text(call.org()).text(id));
  bj::array items;
  for (const Row& row : rows.rows) {
    bj::object item{{"cause", row.text("cause")},
                    {"devices", row.integer("devices")},
                    {"names", json::parse(row.text("names"))}};
    if (const auto example = row.optional_text("example")) item["example"] = *example;
    set_time(item, "first_at", row.time("first_at"));
    set_time(item, "last_at", row.time("last_at"));
    items.push_back(std::move(item));
  }
  co_return json_reply(200, bj::object{{"items", std::move(items)}});
}

// The scheduler is woken, and would look soon anyway.
Task<void> wake_scheduler(Call& call) {
  mqtt::Message hint;
  hint.topic = "flock/internal/v1/rollout/ordered";
  hint.qos = mqtt::Qos::kAtMostOnce;
  if (call.context.parts.bus.connected()) co_await call.context.parts.bus.publish(std::move(hint));
}

Task<net::Reply> order(Call& call, domain::Order order) {
  const std::string id = RolloutId::parse(call.parameter("id")).text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    auto rollout = co_await services::lock_rollout(tx, call.org(), id);
    if (!rollout)
      throw Error(Code::kNotFound, "no such rollout")
          .with("rollout", id)
          .hint("flock rollouts lists them");
    if (order == domain::Order::kApprove && rollout->created_by == call.who.key())
      throw Error(Code::kForbidden, "who made a deployment cannot approve it")
          .hint("ask a second person of your organization");
    const std::string before(name_of(rollout->progress.state));
    co_await services::obey_order(tx, std::move(*rollout), order, call.who.key());
    const auto rows = co_await tx.query(sql::kRolloutGet, Params().text(call.org()).text(id));
    const bj::object now = rollout_json(rows.rows.at(0));
    co_return Change{"rollout", id, id, call.answer(200, now, kPassing), {{"before", before}}};
  };
  co_return co_await call.mutate(work, [&] { return wake_scheduler(call); });
}

Task<net::Reply> stream_rollout(Call& call) {
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);  // a problem before the first byte
  co_return stream_reply(call, std::make_shared<RolloutStream>(call.context, call.scope(), id));
}

}  // namespace

void add_rollout_routes(Context& c) {
  constexpr auto kReads = Permission::kDeploymentsRead;
  c.add(allowed("listRollouts", "GET", "/v1/rollouts", kReads), list_rollouts);
  c.add(allowed("getRollout", "GET", "/v1/rollouts/{id}", kReads), get_rollout);
  c.add(allowed("listRolloutDevices", "GET", "/v1/rollouts/{id}/devices", kReads),
        list_rollout_devices);
  c.add(allowed("listRolloutDecisions", "GET", "/v1/rollouts/{id}/timeline", kReads),
        list_decisions);
  c.add(allowed("listRolloutFailures", "GET", "/v1/rollouts/{id}/failures", kReads), list_failures);
  c.add(allowed("watchRollout", "GET", "/v1/rollouts/{id}/events", kReads), stream_rollout);
  const auto action = [&](const char* id, const char* name, domain::Order what) {
    c.add(allowed(id, "POST", std::string("/v1/rollouts/{id}/actions/") + name,
                  Permission::kDeploymentsWrite),
          [what](Call& call) { return order(call, what); });
  };
  action("approveRollout", "approve", domain::Order::kApprove);
  action("pauseRollout", "pause", domain::Order::kPause);
  action("resumeRollout", "resume", domain::Order::kResume);
  action("skipSoakOfRollout", "skip", domain::Order::kSkip);
  action("retryRollout", "retry", domain::Order::kRetry);
  action("advanceRollout", "advance", domain::Order::kAdvance);
  action("finishRollout", "finish", domain::Order::kFinish);
  action("abortRollout", "abort", domain::Order::kAbort);
  action("rollBackRollout", "roll-back", domain::Order::kRollBack);
}

}  // namespace flock::targets::api

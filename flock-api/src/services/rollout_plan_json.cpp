// SPDX-License-Identifier: Apache-2.0
#include "services/rollout_plan_json.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "base/error.h"

namespace flock::services {
namespace {

namespace bj = boost::json;
using namespace domain;

constexpr const char* kPolicies[] = {"STOP", "PAUSE", "ROLL_BACK"};
constexpr std::int64_t kMost = 10'000'000;  // devices

Stage read_stage(json::Reader& in, bool by_hand) {
  Stage stage;
  const auto percent = read_number(in, "percent", 0, 100);
  stage.count = in.optional_integer("count", {1, kMost}).value_or(0);
  if (percent.has_value() == (stage.count > 0))
    in.problem("percent", "invalid", "say either percent or count");
  stage.share = percent.value_or(100) / 100;
  stage.soak = read_time(in, "soak", Duration(0));
  stage.by_hand = in.optional_boolean("by_hand").value_or(by_hand);
  in.finish();
  return stage;
}

constexpr const char* kDays[] = {"MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"};

MaintenanceWindow read_window(json::Reader& in) {
  MaintenanceWindow window;
  const auto names = in.optional_strings("days", 7, {.min = 3, .max = 3});
  if (in.optional_array("days") != nullptr) window.days.reset();
  for (const std::string& name : names) {
    const auto found = std::find(std::begin(kDays), std::end(kDays), name);
    if (found == std::end(kDays))
      in.problem("days", "invalid", "is none of MON, TUE, WED, THU, FRI, SAT, SUN");
    else
      window.days.set(static_cast<std::size_t>(found - std::begin(kDays)));
  }
  for (const auto& [key, minutes] :
       {std::pair{"from", &window.from}, std::pair{"to", &window.to}}) {
    const std::string text = in.string(key);
    const auto parsed = parse_time_of_day(text);
    if (!parsed && !text.empty()) in.problem(key, "invalid", "is no time of day; say it as 22:30");
    *minutes = parsed.value_or(0);
  }
  window.time_zone = in.optional_string("time_zone", {.min = 1, .max = 64}).value_or("");
  in.finish();
  return window;
}

bj::object window_json(const MaintenanceWindow& window) {
  bj::array days;
  for (std::size_t day = 0; day < window.days.size(); ++day)
    if (window.days.test(day)) days.emplace_back(kDays[day]);
  bj::object out{{"days", std::move(days)},
                 {"from", time_of_day(window.from)},
                 {"to", time_of_day(window.to)}};
  if (!window.time_zone.empty()) out["time_zone"] = window.time_zone;
  return out;
}

DownLimit read_down_limit(json::Reader& in) {
  const bj::value* given = in.optional_value("max_down_per");
  if (given == nullptr) return {};
  json::Reader inner(*given, in.pointer("max_down_per"), in);
  DownLimit limit;
  limit.label = inner.string("label", {.min = 1, .max = 63});
  limit.count = inner.integer("count", {1, kMost});
  inner.finish();
  return limit;
}

// `read` for every element of an array of objects.
template <typename Read>
void each(json::Reader& in, const char* key, std::size_t most, Read read) {
  const bj::array* given = in.optional_array(key);
  if (given == nullptr) return;
  if (given->size() > most) {
    in.problem(key, "too_many", "there may be " + std::to_string(most) + " at most");
    return;
  }
  for (std::size_t i = 0; i < given->size(); ++i) {
    json::Reader inner((*given)[i], in.pointer(key) + "/" + std::to_string(i), in);
    read(inner);
  }
}

// The kinds differ in which stages they have; the engine knows stages only.
void read_stages(json::Reader& in, const std::string& kind, RolloutPlan& plan) {
  std::vector<Stage> stages;
  each(in, "stages", kMaxStages,
       [&](json::Reader& inner) { stages.push_back(read_stage(inner, kind == "manual")); });
  if (kind == "immediate") {
    if (!stages.empty()) in.problem("stages", "invalid", "an immediate rollout has none");
    return;
  }
  if (kind == "canary" && stages.size() > 2)
    in.problem("stages", "too_many", "a canary is one stage before all others; or be progressive");
  if (kind == "canary" && stages.empty())
    stages.push_back({.share = 0.05, .soak = Duration(600'000)});
  if (stages.empty()) in.problem("stages", "required", "say which, as [{\"percent\": 10}]");
  if (stages.empty() || stages.back().count > 0 || stages.back().share < 1)
    stages.push_back(Stage{});
  plan.stages = std::move(stages);
}

// A pointer that faults_of() gave, as a problem of the reader.
void report(json::Reader& in, const PlanFault& fault) {
  const std::size_t slash = fault.pointer.rfind('/');
  const bj::value nothing = bj::object{};
  json::Reader place(
      nothing, in.pointer("").substr(0, in.pointer("").size() - 1) + fault.pointer.substr(0, slash),
      in);
  place.problem(fault.pointer.substr(slash + 1), "invalid", fault.what);
}

bj::object stage_json(const Stage& stage) {
  bj::object out;
  if (stage.count > 0)
    out["count"] = stage.count;
  else
    out["percent"] = std::round(stage.share * 1e8) / 1e6;
  out["soak"] = to_string(stage.soak);
  if (stage.by_hand) out["by_hand"] = true;
  return out;
}

std::string kind_of(const RolloutPlan& plan) {
  if (plan.stages.size() == 1) return "immediate";
  bool by_hand = true;
  for (std::size_t i = 0; i + 1 < plan.stages.size(); ++i) by_hand &= plan.stages[i].by_hand;
  if (by_hand) return "manual";
  return plan.stages.size() == 2 ? "canary" : "progressive";
}

}  // namespace

RolloutPlan read_plan(json::Reader& in) {
  RolloutPlan plan;
  const std::string kind = in.string("kind");
  if (kind != "immediate" && kind != "canary" && kind != "progressive" && kind != "manual") {
    if (!kind.empty())
      in.problem("kind", "unsupported", "is none of immediate, canary, progressive, manual");
    return plan;
  }
  read_stages(in, kind, plan);
  each(in, "gates", kMaxGates,
       [&](json::Reader& inner) { plan.gates.push_back(read_gate(inner)); });
  plan.limits.updating = in.optional_integer("max_updating", {1, kMost}).value_or(0);
  plan.limits.per_minute = in.optional_integer("max_per_minute", {1, kMost}).value_or(0);
  plan.limits.down = read_down_limit(in);
  each(in, "windows", kMaxWindows,
       [&](json::Reader& inner) { plan.windows.push_back(read_window(inner)); });
  plan.retries.times = in.optional_integer("retries", {0, kMaxRetries}).value_or(0);
  plan.retries.after = read_time(in, "retry_after", plan.retries.after);
  const std::string policy = in.optional_string("on_failure").value_or(kPolicies[0]);
  const auto found = std::find(std::begin(kPolicies), std::end(kPolicies), policy);
  if (found == std::end(kPolicies))
    in.problem("on_failure", "invalid", "is none of STOP, PAUSE, ROLL_BACK");
  else
    plan.on_failure = static_cast<OnFailure>(found - std::begin(kPolicies));
  plan.offline_patience = read_time(in, "offline_patience", plan.offline_patience);
  plan.approval = in.optional_boolean("approval").value_or(false);
  if (const auto at = in.optional_string("start_at")) {
    try {
      plan.start_at_ms = to_unix_ms(parse_rfc3339(*at));
    } catch (const Error& error) {
      in.problem("start_at", "invalid", error.message());
    }
  }
  plan.spread_over = in.optional_string("spread_over", {.min = 1, .max = 63}).value_or("");
  if (in.ok())
    for (const PlanFault& fault : faults_of(plan)) report(in, fault);
  return plan;
}

bj::object plan_json(const RolloutPlan& plan) {
  bj::object out{{"kind", kind_of(plan)}};
  if (plan.stages.size() > 1) {
    bj::array stages;
    for (const Stage& stage : plan.stages) stages.push_back(stage_json(stage));
    out["stages"] = std::move(stages);
  }
  if (!plan.gates.empty()) {
    bj::array gates;
    for (const Gate& gate : plan.gates) gates.push_back(gate_json(gate));
    out["gates"] = std::move(gates);
  }
  if (plan.limits.updating > 0) out["max_updating"] = plan.limits.updating;
  if (plan.limits.per_minute > 0) out["max_per_minute"] = plan.limits.per_minute;
  if (const DownLimit& down = plan.limits.down; down.any())
    out["max_down_per"] = bj::object{{"label", down.label}, {"count", down.count}};
  if (!plan.windows.empty()) {
    bj::array windows;
    for (const MaintenanceWindow& window : plan.windows) windows.push_back(window_json(window));
    out["windows"] = std::move(windows);
  }
  if (plan.retries.times > 0) {
    out["retries"] = plan.retries.times;
    out["retry_after"] = to_string(plan.retries.after);
  }
  out["on_failure"] = kPolicies[static_cast<std::size_t>(plan.on_failure)];
  out["offline_patience"] = to_string(plan.offline_patience);
  if (plan.approval) out["approval"] = true;
  if (plan.start_at_ms > 0) out["start_at"] = to_rfc3339(from_unix_ms(plan.start_at_ms));
  if (!plan.spread_over.empty()) out["spread_over"] = plan.spread_over;
  return out;
}

RolloutPlan stored_plan(const std::string& text) {
  try {
    const bj::value value = bj::parse(text);
    json::Reader in(value);
    RolloutPlan plan = read_plan(in);
    in.finish();
    return plan;
  } catch (const std::exception& error) {
    throw Error(Code::kCorrupt, std::string("a stored strategy cannot be read: ") + error.what());
  }
}

std::string progress_json(const RolloutProgress& progress) {
  return bj::serialize(bj::object{{"opened_ms", progress.opened_ms},
                                  {"settled_ms", progress.settled_ms},
                                  {"forgiven", progress.forgiven},
                                  {"accepted_ms", progress.accepted_ms},
                                  {"returning", progress.returning},
                                  {"approved", progress.approved},
                                  {"go_on", progress.go_on},
                                  {"skip_soak", progress.skip_soak},
                                  {"finish", progress.finish},
                                  {"cause", progress.cause}});
}

void read_progress(const std::string& text, RolloutProgress& progress) {
  const bj::object stored = bj::parse(text).as_object();
  const auto number = [&](const char* key) {
    const bj::value* value = stored.if_contains(key);
    return value != nullptr ? value->to_number<std::int64_t>() : 0;
  };
  const auto flag = [&](const char* key) {
    const bj::value* value = stored.if_contains(key);
    return value != nullptr && value->as_bool();
  };
  progress.opened_ms = number("opened_ms");
  progress.settled_ms = number("settled_ms");
  progress.forgiven = number("forgiven");
  progress.accepted_ms = number("accepted_ms");
  progress.returning = flag("returning");
  progress.approved = flag("approved");
  progress.go_on = flag("go_on");
  progress.skip_soak = flag("skip_soak");
  progress.finish = flag("finish");
  if (const bj::value* cause = stored.if_contains("cause")) progress.cause = cause->as_string();
}

bj::object counts_json(const StageCounts& c) {
  return {{"total", c.total},
          {"waiting", c.waiting()},
          {"updating", c.updating},
          {"offline", c.offline},
          {"confirmed", c.confirmed},
          {"failed", c.failed},
          {"superseded", c.superseded},
          {"online", c.online},
          {"unhealthy", c.unhealthy},
          {"restarting", c.restarting},
          {"waiting_for_window", c.waiting_closed},
          {"waiting_for_others", c.waiting_held},
          {"retry_later", c.retry_later},
          {"to_return", c.to_return + c.return_held},
          {"returning", c.returning + c.returning_offline},
          {"returned", c.returned},
          {"stuck", c.stuck}};
}

}  // namespace flock::services

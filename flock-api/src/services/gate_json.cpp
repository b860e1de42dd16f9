// SPDX-License-Identifier: Apache-2.0
#include "services/gate_json.h"

#include <boost/json/parse.hpp>
#include <limits>

#include "base/error.h"

namespace flock::services {
namespace {

namespace bj = boost::json;
using namespace domain;

constexpr std::int64_t kMost = 10'000'000;                       // devices
constexpr std::size_t kLongestQuery = 8192, kLongestUrl = 2000;  // bytes
constexpr double kAnyNumber = std::numeric_limits<double>::max();

// One of at_least and at_most.
void read_limit(json::Reader& in, Gate& gate, double furthest) {
  const auto least = read_number(in, "at_least", -furthest, furthest);
  const auto most = read_number(in, "at_most", -furthest, furthest);
  if (least.has_value() == most.has_value())
    in.problem("at_most", "required", "say either at_most or at_least");
  gate.at_least = least.has_value();
  gate.limit = least ? *least : most.value_or(0);
}

void read_signal(json::Reader& in, Gate& gate) {
  const std::string name = in.string("signal");
  const auto signal = signal_named(name);
  if (!signal && !name.empty())
    in.problem("signal", "invalid",
               "is none of confirmed, online, failed, failed_lately, unhealthy, restarting");
  gate.signal = signal.value_or(Signal::kFailed);
  const bool much = wants_much(gate.signal);
  const auto least = read_number(in, "at_least", 0, 1), most = read_number(in, "at_most", 0, 1);
  if (!(much ? least : most) || (much ? most : least))
    in.problem(
        much ? "at_least" : "at_most", "required",
        "a gate on " + name + " has " + (much ? "at_least" : "at_most") + ", and no other limit");
  gate.limit = (much ? least : most).value_or(0);
}

void read_metric(json::Reader& in, Gate& gate) {
  gate.metric = in.string("metric", {.min = 1, .max = 64});
  gate.service = in.optional_string("service", {.min = 1, .max = 63}).value_or("");
  if (const auto name = in.optional_string("aggregate")) {
    const auto aggregate = aggregate_named(*name);
    if (!aggregate) in.problem("aggregate", "invalid", "is none of avg, max, p95");
    gate.aggregate = aggregate.value_or(Aggregate::kAvg);
  }
  gate.window = read_time(in, "window", gate.window);
  read_limit(in, gate, kAnyNumber);
}

void read_query(json::Reader& in, Gate& gate) {
  gate.query = in.string("query", {.min = 1, .max = kLongestQuery});
  gate.window = read_time(in, "window", gate.window);
  read_limit(in, gate, kAnyNumber);
}

void read_webhook(json::Reader& in, Gate& gate) {
  gate.url = in.string("url", {.min = 1, .max = kLongestUrl});
  gate.timeout = read_time(in, "timeout", gate.timeout);
  gate.secret = Secret(in.optional_string("secret", {.min = 1, .max = 100}).value_or(""));
}

void read_comparison(json::Reader& in, Gate& gate) {
  gate.alpha = read_number(in, "alpha", 0, 0.5).value_or(gate.alpha);
  gate.tolerance = read_number(in, "tolerance", 0, 0.5).value_or(gate.tolerance);
  gate.after = read_time(in, "after", gate.after);
}

void put_limit(bj::object& out, const Gate& gate) {
  const bool least = gate.is_elsewhere() ? gate.at_least : wants_much(gate.signal);
  out[least ? "at_least" : "at_most"] = gate.limit;
}

void put_view(bj::object& out, const Gate& gate, const GateView& view) {
  out["title"] = title(gate);
  out["now"] = view.now.value;
  out["measured_on"] = view.now.sample;
  out["result"] = std::string(name_of(view.result));
  out["last_look"] = std::string(name_of(view.last));
  out["looks"] = view.row;
  out["since_ms"] = view.since_ms;
  out["looked_ms"] = view.looked_ms;
  if (gate.is_elsewhere()) out["reason"] = view.reason;
}

}  // namespace

Duration read_time(json::Reader& in, const char* key, Duration fallback, Duration most) {
  const auto text = in.optional_string(key);
  if (!text) return fallback;
  try {
    const Duration value = parse_duration(*text);
    if (value <= most) return value;
    in.problem(key, "out_of_range", "must be at most " + to_string(most));
  } catch (const Error& error) {
    in.problem(key, "invalid", error.hint());
  }
  return fallback;
}

std::optional<double> read_number(json::Reader& in, const char* key, double least, double most) {
  const bj::value* given = in.optional_value(key);
  if (given == nullptr) return std::nullopt;
  if (given->is_number()) {
    const auto number = given->to_number<double>();
    if (number >= least && number <= most) return number;
  }
  in.problem(key, "out_of_range",
             most == kAnyNumber
                 ? "must be a number"
                 : "must be a number between " + number_text(least) + " and " + number_text(most));
  return std::nullopt;
}

Gate read_gate(json::Reader& in) {
  Gate gate;
  const std::string name = in.optional_string("kind").value_or("devices");
  const auto kind = gate_kind_named(name);
  if (!kind) {
    in.problem("kind", "unsupported", "is none of devices, metric, query, webhook, comparison");
    return gate;
  }
  gate.kind = *kind;
  if (gate.kind == GateKind::kDevices) read_signal(in, gate);
  if (gate.kind == GateKind::kMetric) read_metric(in, gate);
  if (gate.kind == GateKind::kQuery) read_query(in, gate);
  if (gate.kind == GateKind::kWebhook) read_webhook(in, gate);
  if (gate.kind == GateKind::kComparison) read_comparison(in, gate);
  if (gate.is_elsewhere()) {
    gate.label = in.optional_string("name", {.min = 1, .max = 100}).value_or("");
    gate.interval = read_time(in, "interval", gate.interval);
  }
  const std::int64_t usual = gate.kind == GateKind::kComparison ? 10 : 1;
  gate.sample = in.optional_integer("sample", {1, kMost}).value_or(usual);
  gate.in_a_row = in.optional_integer("in_a_row", {1, 100}).value_or(1);
  gate.dry_run = in.optional_boolean("dry_run").value_or(false);
  in.finish();
  return gate;
}

bj::object gate_json(const Gate& gate) {
  bj::object out;
  if (gate.is_elsewhere()) out["kind"] = std::string(name_of(gate.kind));
  if (!gate.label.empty()) out["name"] = gate.label;
  switch (gate.kind) {
    case GateKind::kDevices:
      out["signal"] = std::string(name_of(gate.signal));
      put_limit(out, gate);
      break;
    case GateKind::kMetric:
      out["metric"] = gate.metric;
      if (!gate.service.empty()) out["service"] = gate.service;
      out["aggregate"] = std::string(name_of(gate.aggregate));
      out["window"] = to_string(gate.window);
      put_limit(out, gate);
      break;
    case GateKind::kComparison:
      out["alpha"] = gate.alpha;
      out["tolerance"] = gate.tolerance;
      out["after"] = to_string(gate.after);
      break;
    case GateKind::kQuery:
      out["query"] = gate.query;
      out["window"] = to_string(gate.window);
      put_limit(out, gate);
      break;
    case GateKind::kWebhook:
      out["url"] = gate.url;
      out["timeout"] = to_string(gate.timeout);
      break;
  }
  if (gate.is_elsewhere()) out["interval"] = to_string(gate.interval);
  out["sample"] = gate.sample;
  if (gate.in_a_row > 1) out["in_a_row"] = gate.in_a_row;
  if (gate.dry_run) out["dry_run"] = true;
  return out;
}

bj::array gates_json(const RolloutPlan& plan, const std::vector<GateView>& views) {
  bj::array out;
  for (std::size_t i = 0; i < views.size(); ++i) {
    bj::object gate = gate_json(plan.gates.at(i));
    put_view(gate, plan.gates[i], views[i]);
    out.push_back(std::move(gate));
  }
  return out;
}

std::vector<GateView> stored_gates(const std::string& text, std::size_t count) {
  std::vector<GateView> views;
  for (const bj::value& gate : bj::parse(text).as_array()) {
    GateView view;
    view.now = {gate.at("now").to_number<double>(),
                gate.at("measured_on").to_number<std::int64_t>()};
    view.result = gate_result_named(gate.at("result").as_string());
    view.last = gate_result_named(gate.at("last_look").as_string());
    view.row = gate.at("looks").to_number<std::int64_t>();
    view.since_ms = gate.at("since_ms").to_number<std::int64_t>();
    view.looked_ms = gate.at("looked_ms").to_number<std::int64_t>();
    if (const bj::value* reason = gate.as_object().if_contains("reason"))
      view.reason = reason->as_string();
    views.push_back(std::move(view));
  }
  views.resize(count);
  return views;
}

GateResult gate_result_named(std::string_view name) {
  for (const GateResult result : {GateResult::kPass, GateResult::kFail})
    if (name == name_of(result)) return result;
  return GateResult::kUnknown;
}

Check check_of(const postgres::Row& row) {
  Check check{.at_ms = to_unix_ms(row.time("checked_at"))};
  if (row.optional_text("value")) check.value = row.real("value");
  check.sample = row.integer("sample");
  check.verdict = gate_result_named(row.text("verdict"));
  check.reason = row.text("reason");
  return check;
}

}  // namespace flock::services

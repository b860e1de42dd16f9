// SPDX-License-Identifier: Apache-2.0
// devices show, top, events and metrics: a device as it is now, and what just happened to it.
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <optional>
#include <utility>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/time.h"
#include "commands/device_verbs.h"
#include "commands/live.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string path_of(const std::string& device) { return "/v1/devices/" + url_encode(device); }

// A number at `path`; nothing when there is none.
std::optional<double> number_at(const bj::value& object, const std::string& path) {
  const std::string text = value_at(object, path);
  if (text.empty()) return std::nullopt;
  const bj::value value = bj::parse(text);
  if (!value.is_number()) return std::nullopt;
  return value.to_number<double>();
}

std::string percent(const bj::value& values, const char* key) {
  const auto ratio = number_at(values, key);
  return ratio ? std::to_string(static_cast<int>(*ratio * 100 + 0.5)) + "%" : "";
}

std::string bytes(const bj::value& values, const char* key) {
  const auto amount = number_at(values, key);
  return amount ? bytes_text(*amount) : "";
}

std::string of_total(const bj::value& values, const char* used, const char* total) {
  const std::string some = bytes(values, used), all = bytes(values, total);
  return some.empty() || all.empty() ? some : some + "/" + all;
}

std::string with_unit(const bj::value& values, const char* key, const char* unit) {
  const auto value = number_at(values, key);
  if (!value) return "";
  char text[32];
  std::snprintf(text, sizeof text, "%.1f%s", *value, unit);
  return text;
}

// --- show
// ------------------------------------------------------------------------------------------

// A group of `flock devices show`: a head, and a line for each value that there is.
class Group {
 public:
  explicit Group(std::string head) : head_(std::move(head)) {}
  void add(const std::string& name, const std::string& value) {
    if (value.empty()) return;
    if (!std::exchange(begun_, true)) std::printf("\n%s\n", head_.c_str());
    std::printf("  %-10s  %s\n", name.c_str(), printable(value).c_str());
  }

 private:
  std::string head_;
  bool begun_ = false;
};

std::string joined(std::initializer_list<std::string> parts) {
  std::string out;
  for (const std::string& part : parts) {
    if (!part.empty()) out += (out.empty() ? "" : ", ") + part;
  }
  return out;
}

std::string pairs_at(const bj::value& device, const char* key) {
  std::string out;
  const bj::value* object = device.as_object().if_contains(key);
  if (object == nullptr || !object->is_object()) return out;
  for (const auto& [name, value] : object->get_object())
    out += (out.empty() ? "" : ", ") + std::string(name) + "=" + value_at(value, "");
  return out;
}

void show_head(const Session& s, const bj::value& device) {
  const std::string state = value_at(device, "state"),
                    since = value_at(device, "connectivity.since"),
                    reason = value_at(device, "connectivity.reason"),
                    seen = value_at(device, "last_seen_at");
  std::string line = printable(value_at(device, "name")) + "  " + painted(s.output, state, state);
  if (!since.empty()) line += " since " + when_text(s.output, since);
  if (!reason.empty()) line += " (" + printable(reason) + ")";
  if (state != "ONLINE" && !seen.empty()) line += ", last seen " + when_text(s.output, seen);
  std::puts(line.c_str());
}

void show_running(const Session& s, const bj::value& device) {
  Group running("Running");
  const std::string wanted = value_at(device, "desired.release.version"),
                    version = value_at(device, "desired.version"),
                    reported = value_at(device, "reported.desired_version");
  running.add("wanted", wanted.empty() ? "" : wanted + " (state " + version + ")");
  running.add("phase", value_at(device, "reported.phase") +
                           (reported.empty() ? "" : " (state " + reported + ")"));
  running.add("error", joined({value_at(device, "reported.error_code"),
                               value_at(device, "reported.error")}));
  running.add("back to", joined({value_at(device, "reported.rollback.release_version"),
                                 value_at(device, "reported.rollback.phase")}));
  const bj::value* report = device.as_object().if_contains("reported");
  if (report == nullptr || report->at("services").as_array().empty()) return;
  Output output = s.output;
  output.columns.clear();  // they were for the device
  std::puts("");
  print(output, bj::object{{"items", report->at("services")}},
        {{"SERVICE", "name"},
         {"CONTAINER", "state"},
         {"HEALTH", "health"},
         {"RESTARTS", "restart_count"},
         {"LAST EXIT", "last_exit.code"},
         {"BY", "last_exit.by"},
         {"IMAGE", "image_digest"}},
        "name");
}

void show_resources(const bj::value& device) {
  const bj::value* metrics = device.as_object().if_contains("metrics");
  if (metrics == nullptr) return;
  const bj::value& host = metrics->at("host");
  Group resources("Resources");
  resources.add("cpu", joined({percent(host, "cpu_ratio"), with_unit(host, "load_1m", " load")}));
  resources.add("memory", of_total(host, "memory_used_bytes", "memory_total_bytes"));
  resources.add("disk", of_total(host, "disk_used_bytes", "disk_total_bytes"));
  resources.add("temperature", with_unit(host, "temperature_celsius", " °C"));
  if (const auto up = number_at(host, "uptime_seconds")) resources.add("up", span_text(*up));
  if (number_at(host, "throttled").value_or(0) > 0)
    resources.add("throttled", "yes: heat or a weak power supply");
  Group network("Network");
  network.add("received", bytes(host, "network_received_bytes"));
  network.add("sent", bytes(host, "network_sent_bytes"));
}

// What an event says in a few words.
std::string words_of(const bj::value& event) {
  const bj::value& detail = event.at("detail");
  std::string out;
  for (const char* key :
       {"reason", "command", "service", "state", "phase", "error_code", "message", "actor"}) {
    const std::string value = value_at(detail, key);
    if (!value.empty()) out += (out.empty() ? "" : " ") + value;
  }
  return printable(out);
}

void show_events(const Session& s, const std::string& id) {
  bj::value events;
  try {
    events = s.client.get(path_of(id) + "/events?from=-7d&page_size=5");
  } catch (const Error& error) {
    std::fprintf(stderr, "Its events cannot be shown: %s\n", printable(error.message()).c_str());
    return;
  }
  Group group("Last events");
  for (const bj::value& event : events.at("items").as_array())
    group.add(when_text(s.output, value_at(event, "at")),
              value_at(event, "type") + "  " + words_of(event));
}

// --- top
// -------------------------------------------------------------------------------------------

bj::object top_row(const bj::value& device, const std::string& service, const bj::value& values,
                   const std::string& at) {
  bj::object row{{"name", value_at(device, "name")}, {"id", value_at(device, "id")}};
  row["service"] = service;
  const auto cores = number_at(values, "cpu_cores");
  row["cpu"] = cores ? std::to_string(static_cast<int>(*cores * 100 + 0.5)) + "%"
                     : percent(values, "cpu_ratio");
  row["order"] = cores.value_or(number_at(values, "cpu_ratio").value_or(-1));
  row["memory"] = service.empty() ? of_total(values, "memory_used_bytes", "memory_total_bytes")
                                  : of_total(values, "memory_bytes", "memory_limit_bytes");
  row["disk"] = of_total(values, "disk_used_bytes", "disk_total_bytes");
  row["temperature"] = with_unit(values, "temperature_celsius", "°C");
  row["load"] = with_unit(values, "load_1m", "");
  const auto up = number_at(values, "uptime_seconds");
  row["up"] = up ? span_text(*up) : "";
  row["processes"] = value_at(values, "pids");
  row["at"] = at;
  return row;
}

// The busiest first.
bj::object top_rows(const bj::value& answer, bool services) {
  bj::array rows;
  for (const bj::value& item : answer.at("items").as_array()) {
    const bj::value &device = item.at("device"), &metrics = item.at("metrics");
    const std::string at = value_at(metrics, "at");
    if (!services) rows.push_back(top_row(device, "", metrics.at("host"), at));
    if (!services) continue;
    for (const auto& [name, values] : metrics.at("services").as_object())
      rows.push_back(top_row(device, name, values, at));
  }
  std::sort(rows.begin(), rows.end(), [](const bj::value& a, const bj::value& b) {
    const double left = a.at("order").as_double(), right = b.at("order").as_double();
    return left != right ? left > right : a.at("name").as_string() < b.at("name").as_string();
  });
  return {{"items", std::move(rows)}};
}

int top(Session& s) {
  Query query;
  if (!s.arguments.words.empty() || s.arguments.has("fleet") || s.arguments.has("selector") ||
      s.arguments.has("filter") || !s.client.settings().fleet.value.empty())
    add_sources(s, query);
  const bool services = s.arguments.has("services");
  std::vector<Column> columns = {{"DEVICE", "name"}};
  if (services)
    columns.insert(columns.end(), {{"SERVICE", "service"},
                                   {"CPU", "cpu"},
                                   {"MEMORY", "memory"},
                                   {"PROCESSES", "processes"},
                                   {"MEASURED", "at"}});
  else
    columns.insert(columns.end(), {{"CPU", "cpu"},
                                   {"MEMORY", "memory"},
                                   {"DISK", "disk"},
                                   {"TEMP", "temperature"},
                                   {"LOAD", "load"},
                                   {"UP", "up"},
                                   {"MEASURED", "at"}});
  const Duration every = parse_duration(s.arguments.value("interval", "2s"));
  if (every < Duration(1000)) throw Error(Code::kInvalidArgument, "--interval must be 1s or more");
  const bool once = s.arguments.has("once") || !s.output.terminal || !s.output.is_table();
  for (;;) {
    const bj::value answer = s.client.get("/v1/metrics/latest" + query.text());
    const bool raw = s.output.format == Format::kJson || s.output.format == Format::kYaml;
    if (!once) std::fputs("\x1b[H\x1b[2J", stdout);
    print(s.output, raw ? answer : bj::value(top_rows(answer, services)), columns, "name");
    if (answer.at("truncated").as_bool())
      std::fputs("There are more; name a fleet or devices.\n", stderr);
    if (once) return 0;
    std::fflush(stdout);
    Loop pause;
    pause.run(sleep_for(every));
  }
}

// --- events
// ----------------------------------------------------------------------------------------

// What an event of the stream says in a few words.
std::string words_of_live(const bj::value& event) {
  std::string out;
  for (const char* path : {"reason", "service", "exit.code", "exit.by", "reported.phase",
                           "reported.error_code", "command_id", "state", "message"}) {
    const std::string value = value_at(event, path);
    if (value.empty()) continue;
    out += (out.empty() ? "" : " ");
    out += (path == std::string("exit.code") ? "exit " : "") + value;
  }
  return printable(out);
}

void print_live(const Output& output, const net::SseEvent& event) {
  const bj::value data = json::parse(event.data);
  if (output.format == Format::kJson) {
    std::puts(json_text(data).c_str());
  } else if (event.event == "gap") {
    std::fprintf(stderr, "Some events were missed: %s.\n",
                 printable(value_at(data, "reason")).c_str());
  } else {
    const std::string name = value_at(data, "device.name"), rollout = value_at(data, "rollout.id"),
                      at = value_at(data, "at");
    const std::string kind = event.event.substr(event.event.find('.') + 1);
    std::printf("%s  %-20s  %s  %s\n",
                (output.terminal && at.size() > 19 ? at.substr(11, 8) : at).c_str(),
                printable(name.empty() ? rollout : name).c_str(),
                painted(output,
                        kind == "online"                                        ? "ONLINE"
                        : kind == "service_exited" || kind == "clone_suspected" ? "FAILED"
                                                                                : "",
                        event.event)
                    .c_str(),
                words_of_live(data).c_str());
  }
  std::fflush(stdout);
}

int follow_events(Session& s) {
  Query query;
  if (!s.arguments.words.empty() || s.arguments.has("fleet") || s.arguments.has("selector") ||
      s.arguments.has("filter") || !s.client.settings().fleet.value.empty())
    add_sources(s, query);
  query.add("topics", "devices");
  s.client.events("/v1/events" + query.text(), [&](const net::SseEvent& event) {
    if (event.event != "end") print_live(s.output, event);
    return true;
  });
  return 0;
}

int events(Session& s) {
  if (s.arguments.has("follow")) return follow_events(s);
  if (s.arguments.words.size() > 1)
    throw Error(Code::kInvalidArgument, "without -f the events of one device are shown")
        .hint(s.arguments.usage());
  Query query;
  query.add("from", instant("since", s.arguments.value("since", "1d")));
  query.add("page_size", std::to_string(std::min<std::int64_t>(
                             number("limit", s.arguments.value("limit", "100"), 1), 1000)));
  bj::value answer =
      s.client.get(path_of(s.arguments.word(0, "a device, or -f")) + "/events" + query.text());
  if (s.output.is_table()) {
    for (bj::value& event : answer.at("items").as_array())
      event.as_object()["words"] = words_of(event);
  }
  print(s.output, answer, {{"AT", "at"}, {"WHAT", "type"}, {"HOW", "words"}}, "type");
  if (s.output.is_table() && answer.at("incomplete").as_bool())
    std::fputs("The store of time series is away: what it knows is missing.\n", stderr);
  return 0;
}

// --- metrics
// ---------------------------------------------------------------------------------------

int metrics(Session& s) {
  Query query;
  query.add("from", instant("since", s.arguments.value("since", "1h")));
  query.add("names", s.arguments.value("names"));
  query.add("service", s.arguments.value("service"));
  query.add("step", s.arguments.value("step"));
  const bj::value answer = s.client.get(path_of(s.arguments.word(0, "a device: its name or id")) +
                                        "/metrics" + query.text());
  const bool raw = s.output.format == Format::kJson || s.output.format == Format::kYaml;
  bj::array rows;
  for (const bj::value& series : answer.at("series").as_array()) {
    for (bj::value point : series.at("points").as_array()) {
      point.as_object()["name"] = series.at("name");
      point.as_object()["service"] = value_at(series, "service");
      rows.push_back(std::move(point));
    }
  }
  print(s.output, raw ? answer : bj::value(bj::object{{"items", std::move(rows)}}),
        {{"METRIC", "name"},
         {"SERVICE", "service"},
         {"AT", "at"},
         {"MIN", "min"},
         {"AVG", "avg"},
         {"MAX", "max"}},
        "name");
  return 0;
}

}  // namespace

int show_device(Session& s) {
  const bj::value device =
      s.client.get(path_of(s.arguments.word(0, "a device: its name or id")) + "?include=metrics");
  if (!s.output.is_table() || !s.output.columns.empty()) {
    print(s.output, device, device_columns(), "id");
    return 0;
  }
  show_head(s, device);
  Group identity("Identity");
  identity.add("id", value_at(device, "id"));
  identity.add("fleet",
               value_at(device, "fleet.name") + " (" + value_at(device, "fleet.slug") + ")");
  identity.add("labels", pairs_at(device, "labels"));
  identity.add("attributes", pairs_at(device, "attributes"));
  identity.add("notes", value_at(device, "notes"));
  const std::string cpus = value_at(device, "hardware.cpus");
  identity.add(
      "hardware",
      joined({value_at(device, "hardware.architecture"), value_at(device, "hardware.os"),
              cpus.empty() ? "" : cpus + " cpus", bytes(device, "hardware.memory_bytes")}));
  identity.add("kernel", value_at(device, "hardware.kernel"));
  identity.add("flockd", value_at(device, "agent_version"));
  identity.add("registered", value_at(device, "registered_at"));
  identity.add("clone?", value_at(device, "clone_suspected_at"));
  show_running(s, device);
  show_resources(device);
  show_events(s, value_at(device, "id"));
  return 0;
}

std::vector<Verb> device_live_verbs() {
  return {
      {.name = "show", .usage = "DEVICE", .words = {Kind::kDevice}, .run = show_device},
      {.name = "top",
       .usage = "[DEVICE...] [--fleet FLEET] [--services] [--once]",
       .summary = "what they use now, the busiest first; refreshed on a terminal",
       .words = {Kind::kDevice},
       .flags = selection_flags() +
                std::vector<Flag>{{"services", "", "a line for each service"},
                                  {"once", "", "print once and end, as off a terminal"},
                                  {"interval", "TIME", "between two looks; default 2s"}},
       .run = top,
       .repeats = true},
      {.name = "events",
       .usage = "DEVICE [--since TIME] | [DEVICE...] -f",
       .summary = "what happened to it, or with -f what happens",
       .words = {Kind::kDevice},
       .flags = selection_flags() + list_flags() +
                std::vector<Flag>{{"follow", "", "go on as it happens", 'f'},
                                  {"since", "TIME", "10m, or 2026-11-24T10:00:00Z; default 1d"}},
       .run = events,
       .repeats = true},
      {.name = "metrics",
       .usage = "DEVICE [--names NAMES] [--service NAMES] [--since TIME] [--step TIME]",
       .summary = "its metrics over time",
       .words = {Kind::kDevice},
       .flags = {{"names", "NAMES", "such as cpu_ratio,memory_used_bytes; default all"},
                 {"service", "NAMES", "of these services"},
                 {"since", "TIME", "10m, or 2026-11-24T10:00:00Z; default 1h"},
                 {"step", "TIME", "width of a point; default: at most 500 points"}},
       .run = metrics}};
}

}  // namespace flock::cli

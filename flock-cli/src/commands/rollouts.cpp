// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "base/json.h"
#include "base/time.h"
#include "commands/releases.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {
    {"ROLLOUT", "id"},           {"RELEASE", "release.version"},
    {"STATE", "state"},          {"CONFIRMED", "counts.confirmed"},
    {"FAILED", "counts.failed"}, {"TOTAL", "counts.total"},
    {"STARTED", "created_at"},   {"REASON", "reason"}};

std::string bar(std::int64_t done, std::int64_t total) {
  constexpr std::int64_t kWidth = 18;
  const std::int64_t full = total > 0 ? done * kWidth / total : 0;
  std::string out;
  for (std::int64_t i = 0; i < kWidth; ++i) out += i < full ? "█" : "░";
  return out;
}

void show_event(const Output& output, const net::SseEvent& event) {
  if (output.format == Format::kJson) {
    std::printf("{\"event\":\"%s\",\"data\":%s}\n", event.event.c_str(), event.data.c_str());
    return;
  }
  const bj::value data = json::parse(event.data);
  const std::string clock = to_rfc3339(system_clock().now()).substr(11, 8);
  if (event.event == "device") {
    const std::string state = value_at(data, "state"), reason = value_at(data, "reason");
    const char* sign = state == "CONFIRMED" ? "✓" : state == "FAILED" ? "✗" : "…";
    std::string column = state;
    if (!reason.empty()) column.append(state.size() < 12 ? 13 - state.size() : 1, ' ');
    std::printf("%s  %s %-24s %s%s\n", clock.c_str(), painted(output, state, sign).c_str(),
                printable(value_at(data, "name")).c_str(), painted(output, state, column).c_str(),
                printable(reason).c_str());
  } else if (event.event == "rollout") {
    const bj::object& counts = data.at("counts").as_object();
    const std::int64_t confirmed = counts.at("confirmed").to_number<std::int64_t>(),
                       total = counts.at("total").to_number<std::int64_t>(),
                       failed = counts.at("failed").to_number<std::int64_t>();
    std::printf("%s  rollout of %s  %s  %lld/%lld confirmed", clock.c_str(),
                value_at(data, "release.version").c_str(), bar(confirmed, total).c_str(),
                static_cast<long long>(confirmed), static_cast<long long>(total));
    if (failed > 0) std::printf(", %lld failed", static_cast<long long>(failed));
    std::puts("");
  } else if (event.event == "end") {
    const std::string state = value_at(data, "state");
    const std::string reason = value_at(data, "reason");
    std::printf("%s  %s%s\n", clock.c_str(), painted(output, state, state).c_str(),
                (reason.empty() ? "" : " " + printable(reason)).c_str());
  }
  std::fflush(stdout);
}

}  // namespace

int watch_rollout(Session& s, const std::string& id) {
  if (::isatty(STDERR_FILENO))
    std::fprintf(stderr,
                 "Ctrl-C detaches; the rollout goes on. Attach again: flock rollouts watch %s\n",
                 id.c_str());
  std::string state;
  s.client.events("/v1/rollouts/" + url_encode(id) + "/events", [&](const net::SseEvent& event) {
    show_event(s.output, event);
    if (event.event != "end") return true;
    state = value_at(json::parse(event.data), "state");
    return state == "RUNNING";  // the stream was only old
  });
  return state == "COMPLETED" ? 0 : 9;
}

namespace {

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/rollouts", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int show(Session& s) {
  const std::string id = url_encode(s.arguments.word(0, "a rollout id"));
  print(s.output, s.client.get("/v1/rollouts/" + id), kColumns, "id");
  if (!s.output.is_table()) return 0;
  std::puts("");
  Output output = s.output;
  output.columns.clear();  // they were for the rollout
  print(output, s.client.list("/v1/rollouts/" + id + "/devices"),
        {{"DEVICE", "name"}, {"STATE", "state"}, {"SINCE", "updated_at"}, {"REASON", "reason"}},
        "device_id");
  return 0;
}

int watch(Session& s) { return watch_rollout(s, s.arguments.word(0, "a rollout id")); }

int status(Session& s) {
  const bj::value rollout =
      s.client.get("/v1/rollouts/" + url_encode(s.arguments.word(0, "a rollout id")));
  print(s.output, rollout, kColumns, "id");
  const std::string state = value_at(rollout, "state");
  return state == "COMPLETED" ? 0 : state == "RUNNING" || state == "PENDING" ? 8 : 9;
}

}  // namespace

Command rollouts_command() {
  return {.name = "rollouts",
          .singular = "rollout",
          .summary = "deployments under way and past",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "ID", .words = {Kind::kRollout}, .run = show},
                    {.name = "status",
                     .usage = "ID",
                     .summary = "for scripts: exit code 0 completed, 8 still running, 9 failed",
                     .words = {Kind::kRollout},
                     .run = status},
                    {.name = "watch",
                     .usage = "ID",
                     .summary = "follows it to its end; Ctrl-C detaches",
                     .words = {Kind::kRollout},
                     .run = watch}},
          .examples = {"flock rollouts watch \"$(flock rollouts -o name | head -1)\""}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "base/json.h"
#include "commands/releases.h"
#include "commands/rollout_screen.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {
    {"ROLLOUT", "id"},         {"RELEASE", "release.version"},    {"STATE", "state"},
    {"STAGE", "stage"},        {"CONFIRMED", "counts.confirmed"}, {"FAILED", "counts.failed"},
    {"TOTAL", "counts.total"}, {"STARTED", "created_at"},         {"REASON", "reason"}};

}  // namespace

int watch_rollout(Session& s, const std::string& id) {
  if (::isatty(STDERR_FILENO))
    std::fprintf(stderr,
                 "Ctrl-C detaches; the rollout goes on. Attach again: flock rollouts watch %s\n",
                 id.c_str());
  std::string state;
  RolloutPrinter printer(s.output);
  s.client.events("/v1/rollouts/" + url_encode(id) + "/events", [&](const net::SseEvent& event) {
    printer.show(event);
    if (event.event != "end") return true;
    state = value_at(json::parse(event.data), "state");
    return !rollout_has_ended(state);  // the stream was only old
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

std::string path_of(Session& s) {
  return "/v1/rollouts/" + url_encode(s.arguments.word(0, "a rollout id"));
}

int show(Session& s) {
  const std::string path = path_of(s);
  const bj::value rollout = s.client.get(path);
  print(s.output, rollout, kColumns, "id");
  if (!s.output.is_table()) return 0;
  Output output = s.output;
  output.columns.clear();  // they were for the rollout
  if (const std::string gates = gate_table(s.output, rollout); !gates.empty())
    std::printf("\n%s", gates.c_str());
  std::puts("");
  print(output, s.client.list(path + "/devices"),
        {{"DEVICE", "name"},
         {"STAGE", "stage"},
         {"STATE", "state"},
         {"SINCE", "updated_at"},
         {"REASON", "reason"}},
        "device_id");
  return 0;
}

int timeline(Session& s) {
  print(s.output,
        s.client.list(path_of(s) + "/timeline",
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        {{"WHEN", "at"},
         {"STEP", "step"},
         {"BY", "actor"},
         {"STATE", "state"},
         {"STAGE", "stage"},
         {"WHY", "why"}},
        "id");
  return 0;
}

int failures(Session& s) {
  print(s.output, s.client.get(path_of(s) + "/failures"),
        {{"CAUSE", "cause"},
         {"DEVICES", "devices"},
         {"LAST", "last_at"},
         {"SUCH AS", "names"},
         {"EXAMPLE", "example"}},
        "cause");
  return 0;
}

// What is so about a device in a rollout, as one would say it.
std::string sentence(const bj::value& rollout, const bj::value& device) {
  const std::string state = value_at(device, "state"), reason = value_at(device, "reason"),
                    stage = value_at(device, "stage"), stages = std::to_string(stages_of(rollout)),
                    version = value_at(rollout, "release.version"),
                    release = version.empty() ? "the host command" : version;
  const bool online = value_at(device, "online") == "true";
  const bool turn = std::stoll(stage) <= std::stoll(value_at(rollout, "stage"));
  if (state == "WAITING" && !turn)
    return "it is in stage " + stage + " of " + stages + ", which has not begun";
  if (state == "WAITING")
    return online ? "its stage has begun; it waits for its turn under the rollout's limits"
                  : "it is offline; it begins when it is back and there is room";
  if (state == "PENDING" || state == "DELIVERED")
    return online ? "it was told to run " + release
                  : "it is offline; it gets " + release + " when it is back";
  if (state == "CONFIRMED" && version.empty()) return "it has done the host command";
  if (state == "CONFIRMED") return "it runs " + release + ", and has proven it";
  if (state == "FAILED") return "it could not run " + release;
  if (state == "SUPERSEDED") return "it is no part of this rollout any more";
  if (state == "SKIPPED") return "it was not reached, and keeps what it had";
  if (state == "ROLLING_BACK") return "it is on its way back to what it ran before";
  if (state == "ROLLED_BACK") return "it runs what it ran before";
  if (state == "ROLLBACK_FAILED") return "it could not go back to what it ran before";
  return "it is at work: " + state;
}

// How far its host command is, and what that wrote.
void show_host_command(const bj::value& device) {
  const std::string step = value_at(device, "host_command.step"),
                    code = value_at(device, "host_command.exit_code");
  if (step.empty()) return;
  std::printf("host command  %s%s\n", step.c_str(),
              (code.empty() ? "" : ", exit code " + code).c_str());
  for (const std::string& line : split(value_at(device, "host_command.output"), '\n'))
    std::printf("  %s\n", printable(line).c_str());
}

int why(Session& s) {
  const std::string path = path_of(s), name = s.arguments.word(1, "a device");
  const bj::value rollout = s.client.get(path);
  const bj::value devices = s.client.list(path + "/devices", 0);
  for (const bj::value& device : devices.at("items").as_array()) {
    if (value_at(device, "name") != name && value_at(device, "device_id") != name) continue;
    if (!s.output.is_table()) {
      print(s.output, device, {{"DEVICE", "name"}}, "device_id");
      return 0;
    }
    std::string reason = value_at(device, "reason");
    if (const std::string failure = value_at(device, "failure"); !failure.empty())
      reason += (reason.empty() ? "it had failed: " : "; it had failed before: ") + failure;
    std::printf("%s  %s: %s%s\n", printable(value_at(device, "name")).c_str(),
                value_at(device, "state").c_str(), sentence(rollout, device).c_str(),
                (reason.empty() ? "" : " (" + printable(reason) + ")").c_str());
    show_host_command(device);
    std::printf(
        "the rollout  %s%s\n", value_at(rollout, "state").c_str(),
        (value_at(rollout, "reason").empty() ? "" : ": " + printable(value_at(rollout, "reason")))
            .c_str());
    return 0;
  }
  throw Error(Code::kNotFound, "the rollout does not concern this device")
      .with("device", name)
      .hint("it was not in the target when the rollout was made; flock rollouts show lists who is");
}

// One that tells a rollout to do something, and shows what it is then.
template <const char* action>
int order(Session& s) {
  print(s.output, s.client.post(path_of(s) + "/actions/" + action, bj::object{}), kColumns, "id");
  return 0;
}
constexpr char kApprove[] = "approve", kPause[] = "pause", kResume[] = "resume", kSkip[] = "skip",
               kRetry[] = "retry", kAdvance[] = "advance", kFinish[] = "finish", kAbort[] = "abort",
               kRollBack[] = "roll-back";

// What changes devices in ways that somebody may not expect is asked about.
int roll_back(Session& s) {
  confirm(s, "Every device that got the release of rollout " + s.arguments.word(0, "a rollout id") +
                 " goes back to what it ran before. Go on?");
  return order<kRollBack>(s);
}

int watch(Session& s) { return watch_rollout(s, s.arguments.word(0, "a rollout id")); }

int status(Session& s) {
  const bj::value rollout =
      s.client.get("/v1/rollouts/" + url_encode(s.arguments.word(0, "a rollout id")));
  print(s.output, rollout, kColumns, "id");
  const std::string state = value_at(rollout, "state");
  return state == "COMPLETED" ? 0 : rollout_has_ended(state) ? 9 : 8;
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
                     .run = watch},
                    {.name = "timeline",
                     .usage = "ID [--limit N]",
                     .summary = "what was decided and ordered, and why",
                     .words = {Kind::kRollout},
                     .flags = list_flags(),
                     .run = timeline},
                    {.name = "why",
                     .usage = "ID DEVICE",
                     .summary = "what a device waits for, or what became of it",
                     .words = {Kind::kRollout, Kind::kDevice},
                     .run = why},
                    {.name = "failures",
                     .usage = "ID",
                     .summary = "why devices failed, by cause",
                     .words = {Kind::kRollout},
                     .run = failures},
                    {.name = "approve",
                     .usage = "ID",
                     .summary = "lets one begin that somebody else made",
                     .words = {Kind::kRollout},
                     .run = order<kApprove>},
                    {.name = "pause",
                     .usage = "ID",
                     .summary = "no further device begins",
                     .words = {Kind::kRollout},
                     .run = order<kPause>},
                    {.name = "resume",
                     .usage = "ID",
                     .summary = "goes on; failures up to now count no more",
                     .words = {Kind::kRollout},
                     .run = order<kResume>},
                    {.name = "skip",
                     .usage = "ID",
                     .summary = "watches the open stage no longer; its gates still count",
                     .words = {Kind::kRollout},
                     .run = order<kSkip>},
                    {.name = "retry",
                     .usage = "ID",
                     .summary = "devices that failed get the release again",
                     .words = {Kind::kRollout},
                     .run = order<kRetry>},
                    {.name = "advance",
                     .usage = "ID",
                     .summary = "the next stage begins, whatever the gates say",
                     .words = {Kind::kRollout},
                     .run = order<kAdvance>},
                    {.name = "finish",
                     .usage = "ID",
                     .summary = "all devices begin, without stages and gates",
                     .words = {Kind::kRollout},
                     .run = order<kFinish>},
                    {.name = "abort",
                     .usage = "ID",
                     .summary = "ends it; devices that have begun keep the release",
                     .words = {Kind::kRollout},
                     .run = order<kAbort>},
                    {.name = "rollback",
                     .usage = "ID [--yes]",
                     .summary = "devices that have begun go back to what they ran before",
                     .words = {Kind::kRollout},
                     .flags = {yes_flag()},
                     .run = roll_back}},
          .examples = {"flock rollouts watch \"$(flock rollouts -o name | head -1)\""}};
}

}  // namespace flock::cli

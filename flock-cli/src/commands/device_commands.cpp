// SPDX-License-Identifier: Apache-2.0
// devices restart, reboot, identify and purge: now, or when the device is back.
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <iostream>

#include "base/bytes.h"
#include "base/time.h"
#include "commands/live.h"
#include "input.h"
#include "selection.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"DEVICE", "device.name"},
                                      {"COMMAND", "type"},
                                      {"SERVICE", "service"},
                                      {"STATE", "state"},
                                      {"CHANGED", "changed_at"},
                                      {"EXPIRES", "expires_at"},
                                      {"ID", "id"},
                                      {"MESSAGE", "message"}};

std::string path_of(const std::string& device) {
  return "/v1/devices/" + url_encode(device) + "/commands";
}

// Nobody should wait for a device that is not there without knowing it.
void tell_who_waits(const bj::array& commands) {
  for (const bj::value& command : commands) {
    const bj::value* waits = command.as_object().if_contains("waits_for_device");
    if (waits == nullptr || !waits->is_bool() || !waits->get_bool()) continue;
    const std::string name = printable(value_at(command, "device.name"));
    std::fprintf(stderr, "%s is offline; the command waits for it until %s.\n", name.c_str(),
                 value_at(command, "expires_at").c_str());
  }
}

// Those that the flags select get it together, those that are named one by one.
int send(Session& s, const std::string& what, bj::object body) {
  if (s.arguments.has("expires-in")) body["expires_in"] = s.arguments.required("expires-in");
  const bool named = !s.arguments.words.empty();
  const std::vector<Target> targets = choose_devices(s, what);
  bj::array commands;
  if (named) {
    for (const Target& target : targets)
      commands.push_back(s.client.post(path_of(target.id), body));
  } else {
    bj::array ids;
    for (const Target& target : targets) ids.emplace_back(target.id);
    body["device_ids"] = std::move(ids);
    commands = s.client.post("/v1/devices:command", body).at("items").as_array();
  }
  print(s.output, commands.size() == 1 ? commands[0] : bj::value(bj::object{{"items", commands}}),
        kColumns, "id");
  tell_who_waits(commands);
  return 0;
}

int restart(Session& s) {
  return send(s, "Restart a service on",
              {{"type", "restart_service"}, {"service", s.arguments.required("service")}});
}

int reboot(Session& s) {
  if (s.arguments.words.size() == 1) confirm(s, "Reboot " + s.arguments.words[0] + "?");
  return send(s, "Reboot", {{"type", "reboot"}});
}

int identify(Session& s) {
  return send(s, "Identify",
              {{"type", "identify"},
               {"seconds", number("seconds", s.arguments.value("seconds", "30"), 1)}});
}

// Data is gone for good, so the device's name is typed once more.
int purge(Session& s) {
  const std::string device = s.arguments.word(0, "a device: its name or id");
  bj::object body{{"type", "purge"}, {"service", s.arguments.required("service")}};
  if (const auto volumes = s.arguments.values("volume"); !volumes.empty())
    body["volumes"] = bj::value_from(volumes);
  std::string confirmed = s.arguments.value("confirm");
  if (confirmed.empty() && !s.arguments.has("no-input") && ::isatty(STDIN_FILENO) != 0) {
    std::fprintf(stderr, "The data of %s on %s will be gone. Type the device's name: ",
                 printable(s.arguments.required("service")).c_str(), printable(device).c_str());
    std::getline(std::cin, confirmed);
  }
  if (confirmed.empty())
    throw Error(Code::kInvalidArgument, "a purge must be confirmed")
        .hint("--confirm NAME with the device's name");
  body["confirm"] = confirmed;
  return send(s, "Purge", std::move(body));
}

int list(Session& s) {
  print(s.output,
        s.client.list(path_of(s.arguments.word(0, "a device: its name or id")),
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int cancel(Session& s) {
  const std::string device = s.arguments.word(0, "a device: its name or id"),
                    id = s.arguments.word(1, "the id of a command");
  print(s.output,
        s.client.post(path_of(device) + "/" + url_encode(id) + "/actions/cancel", bj::object()),
        kColumns, "id");
  return 0;
}

}  // namespace

std::vector<Verb> device_command_verbs() {
  const Flag expires{"expires-in", "TIME", "how long it waits for a device; default 1h"};
  const Flag service{"service", "NAME", "the service"};
  const std::vector<Flag> several = selection_flags() + std::vector<Flag>{expires, yes_flag()};
  return {{.name = "restart",
           .usage = "DEVICE... | -l LABELS | --filter EXPR  --service NAME",
           .words = {Kind::kDevice},
           .flags = several + std::vector<Flag>{service},
           .run = restart,
           .repeats = true},
          {.name = "reboot",
           .usage = "DEVICE... | -l LABELS | --filter EXPR [--yes]",
           .words = {Kind::kDevice},
           .flags = several,
           .run = reboot,
           .repeats = true},
          {.name = "identify",
           .usage = "DEVICE... | -l LABELS | --filter EXPR [--seconds N]",
           .summary = "makes it noticeable to somebody who stands before it",
           .words = {Kind::kDevice},
           .flags = several + std::vector<Flag>{{"seconds", "N", "how long; default 30"}},
           .run = identify,
           .repeats = true},
          {.name = "purge",
           .usage = "DEVICE --service NAME [--volume NAME...] [--confirm NAME]",
           .summary = "empties the volumes of a service",
           .words = {Kind::kDevice},
           .flags = {service,
                     {"volume", "NAME", "of these alone; may repeat"},
                     {"confirm", "NAME", "the device's name once more"},
                     expires},
           .run = purge},
          {.name = "commands",
           .usage = "DEVICE [--limit N]",
           .summary = "what it was told to do, and what became of it",
           .words = {Kind::kDevice},
           .flags = list_flags(),
           .run = list},
          {.name = "cancel",
           .usage = "DEVICE COMMAND",
           .summary = "takes back a command that waits",
           .words = {Kind::kDevice, Kind::kText},
           .run = cancel}};
}

}  // namespace flock::cli

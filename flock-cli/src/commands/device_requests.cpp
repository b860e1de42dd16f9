// SPDX-License-Identifier: Apache-2.0
// The waiting room of devices whose provisioning key asks for somebody's word.
#include <boost/json.hpp>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"ID", "id"},
                                      {"STATE", "state"},
                                      {"NAME", "name"},
                                      {"IP", "ip"},
                                      {"ARCH", "hardware.architecture"},
                                      {"ASKED", "asked_at"},
                                      {"BY", "decided_by"},
                                      {"THUMBPRINT", "thumbprint", true}};

int ls(Session& s) {
  const std::string state = s.arguments.value("state");
  print(s.output,
        s.client.list("/v1/device-requests" + (state.empty() ? "" : "?state=" + url_encode(state)),
                      number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int decide(Session& s, const char* action) {
  const std::string id = url_encode(s.arguments.word(0, "a device request's id"));
  print(s.output, s.client.send("POST", "/v1/device-requests/" + id + "/actions/" + action, ""),
        kColumns, "id");
  return 0;
}

int approve(Session& s) { return decide(s, "approve"); }
int reject(Session& s) { return decide(s, "reject"); }

}  // namespace

Command device_requests_command() {
  return {.name = "device-requests",
          .singular = "device-request",
          .summary = "devices that wait for somebody to let them in",
          .verbs = {{.name = "ls",
                     .usage = "[--state PENDING] [--limit N]",
                     .flags = std::vector<Flag>{{"state", "STATE",
                                                 "PENDING, APPROVED, REJECTED or ADMITTED"}} +
                              list_flags(),
                     .run = ls},
                    {.name = "approve", .usage = "ID", .words = {Kind::kText}, .run = approve},
                    {.name = "reject", .usage = "ID", .words = {Kind::kText}, .run = reject}},
          .examples = {"flock device-requests ls --state PENDING"}};
}

}  // namespace flock::cli

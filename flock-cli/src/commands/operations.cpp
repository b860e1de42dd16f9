// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

const std::vector<Column> kColumns = {{"OPERATION", "id"},   {"KIND", "kind"},
                                      {"STATE", "state"},    {"DEVICES", "counts.total"},
                                      {"BY", "actor"},       {"STARTED", "created_at"},
                                      {"ENDED", "ended_at"}, {"PROBLEM", "problem.detail", true}};

int ls(Session& s) {
  print(s.output,
        s.client.list("/v1/operations", number("limit", s.arguments.value("limit", "1000"), 0)),
        kColumns, "id");
  return 0;
}

int show(Session& s) {
  print(s.output,
        s.client.get("/v1/operations/" + url_encode(s.arguments.word(0, "an operation's id"))),
        kColumns, "id");
  return 0;
}

}  // namespace

Command operations_command() {
  return {.name = "operations",
          .singular = "operation",
          .summary = "changes of many devices, under way and past",
          .verbs = {{.name = "ls", .usage = "[--limit N]", .flags = list_flags(), .run = ls},
                    {.name = "show", .usage = "ID", .words = {Kind::kText}, .run = show}},
          .examples = {"flock operations --limit 5"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>
#include <cstdio>

#include "async/loop.h"
#include "commands/releases.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

int deploy(Session& s) {
  std::string fleet = s.client.settings().fleet.value;
  if (!s.arguments.words.empty() || fleet.empty()) fleet = s.arguments.word(0, "a fleet");
  std::string release = s.arguments.value("release");
  if (!release.empty() && s.arguments.has("file"))
    throw Error(Code::kInvalidArgument, "--release and -f exclude each other")
        .hint("flock help deploy");
  if (release.empty() && !s.arguments.has("file"))
    throw Error(Code::kInvalidArgument, "missing: --release VERSION, or -f FILE")
        .hint("flock help deploy");
  if (release.empty()) release = value_at(create_release(s), "id");
  bj::object body{{"release_id", release}, {"target", bj::object{{"fleet_id", fleet}}}};
  if (s.arguments.has("soak")) body["soak"] = s.arguments.value("soak");
  if (s.arguments.has("failure-timeout"))
    body["failure_timeout"] = s.arguments.value("failure-timeout");
  bj::value deployment = s.client.post("/v1/deployments", body);
  if (s.arguments.has("no-wait")) {
    print(s.output, deployment,
          {{"DEPLOYMENT", "id"}, {"RELEASE", "release.version"}, {"STATE", "state"}}, "id");
    return 0;
  }
  // The scheduler makes the rollout; usually within milliseconds.
  Loop loop;
  for (int i = 0; value_at(deployment, "rollout_id").empty(); ++i) {
    if (i == 600)
      throw Error(Code::kTimeout, "the scheduler did not begin the rollout within a minute")
          .hint("is the scheduler target running?");
    loop.run(sleep_for(Duration(100)));
    deployment = s.client.get("/v1/deployments/" + value_at(deployment, "id"));
  }
  return watch_rollout(s, value_at(deployment, "rollout_id"));
}

}  // namespace

Command deploy_command() {
  return {
      .name = "deploy",
      .summary = "roll a release out to a fleet and watch it",
      .verbs = {{.usage = "FLEET (--release VERSION | -f FILE) [--soak 5s] "
                          "[--failure-timeout 10m] [--no-wait]",
                 .words = {Kind::kFleet},
                 .flags = std::vector<Flag>{{"release", "VERSION", "a release that exists", 0,
                                             Kind::kRelease}} +
                          release_flags() +
                          std::vector<Flag>{
                              {"soak", "DURATION", "how long a device must stay healthy to count"},
                              {"failure-timeout", "DURATION",
                               "when an unsettled device counts as failed"},
                              {"no-wait", "", "return at once instead of watching"}},
                 .run = deploy}},
      .examples = {"flock deploy demo --release 12",
                   "flock deploy demo -f compose.yaml --soak 30s"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
// releases and deploy.
#include <boost/json.hpp>
#include <cstdio>

#include "async/loop.h"
#include "base/bytes.h"
#include "commands/commands.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"VERSION", "version"},
                                      {"STATE", "state"},
                                      {"CREATED", "created_at"},
                                      {"NOTE", "note"},
                                      {"ID", "id"}};

bj::value create_release(Session& s) {
  bj::object body{{"compose", read_input(s.arguments.required("file"), 256 * 1024)}};
  if (s.arguments.has("version")) body["version"] = s.arguments.value("version");
  if (s.arguments.has("note")) body["note"] = s.arguments.value("note");
  bj::value release = s.client.post("/v1/releases", body);
  for (const bj::value& note : release.at("notes").as_array())
    std::fprintf(stderr, "note: %s %s\n", value_at(note, "pointer").c_str(),
                 value_at(note, "detail").c_str());
  return release;
}

}  // namespace

int run_releases(Session& s) {
  const std::string verb = s.arguments.words.size() < 2 ? "ls" : s.arguments.words[1];
  s.arguments.at_most(3);
  if (verb == "ls") {
    print(s.output, s.client.list("/v1/releases"), kColumns, "id");
  } else if (verb == "show") {
    const bj::value release =
        s.client.get("/v1/releases/" + url_encode(s.arguments.word(2, "a version or id")));
    print(s.output, release, kColumns, "id");
    if (s.output.format == Format::kTable) {
      std::puts("");
      print(s.output, bj::object{{"items", release.at("services")}},
            {{"SERVICE", "name"}, {"IMAGE", "image"}, {"PLATFORMS", "platforms.platform"}}, "name");
    }
  } else if (verb == "create") {
    print(s.output, create_release(s), kColumns, "id");
  } else {
    unknown_verb("releases", verb, "ls|show|create");
  }
  return 0;
}

int run_deploy(Session& s) {
  const std::string fleet = s.arguments.word(1, "a fleet");
  s.arguments.at_most(2);
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

}  // namespace flock::cli

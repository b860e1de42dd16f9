// SPDX-License-Identifier: Apache-2.0
#include "commands/deployment_plan.h"

#include <boost/json.hpp>

#include "cli_fixture.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kPlan = R"({
  "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
  "release": {"id": "r", "version": "1.8.2"},
  "target": {"fleet_id": "f", "filter": "labels.site = \"oslo\"", "membership": "DYNAMIC"},
  "priority": 0, "on_conflict": "LEAVE_OUT",
  "devices": {"included": 40, "offline": 3, "have_it": 2, "examples": ["gw-1", "gw-2", "gw-3", "gw-4", "gw-5"]},
  "excluded": [
    {"reason": "CONFLICT", "devices": 2, "examples": ["gw-50", "gw-51"]},
    {"reason": "FILTER", "devices": 12, "examples": ["gw-60", "gw-61", "gw-62", "gw-63", "gw-64"]},
    {"reason": "REVOKED", "devices": 1, "examples": ["gw-9"]}],
  "stages": [
    {"devices": 4, "reached": 4, "soak": "10m", "by_hand": true},
    {"devices": 36, "reached": 40, "soak": "0s", "by_hand": true}],
  "conflicts": [
    {"rollout_id": "r7", "release_version": "1.8.1", "state": "RUNNING", "priority": 5, "outcome": "LEFT_OUT", "devices": 2, "examples": ["gw-50", "gw-51"]},
    {"rollout_id": "r6", "release_version": "1.7", "state": "PAUSED", "priority": -1, "outcome": "TAKEN_OVER", "devices": 1, "examples": ["gw-1"]}],
  "platforms": [
    {"platform": "linux/amd64", "devices": 38, "missing_images": []},
    {"platform": "linux/arm/v7", "devices": 2, "missing_images": ["web", "db"]}],
  "download": {"devices": 36, "estimated_bytes": 1932735283, "unknown_images": ["x@sha256:1"]},
  "begins_at": "2026-11-24T10:00:00.000Z", "earliest_end_at": "2026-11-24T10:11:00.000Z",
  "no_latest_end": "stage 2 begins when an operator says so", "obstacles": []})";

TEST_F(Cli, APlanReadsAsItWouldBeSaid) {
  api.answer("POST /v1/deployments:plan", 200, kPlan);
  const Result shown = flock({"deploy", "demo", "--release", "1.8.2", "--filter",
                              "labels.site = oslo", "--stages", "10%", "--plan", "-o", "table"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_EQ(
      shown.out,
      R"(Plan      release 1.8.2 for devices of the fleet with labels.site = "oslo"; who comes to match later joins
In        40 devices: gw-1, gw-2, gw-3, gw-4, gw-5, ...
          3 of them offline (7 %)
          2 of them have the release already
Out       2 stay in other rollouts: gw-50, gw-51
          12 do not match: gw-60, gw-61, gw-62, gw-63, gw-64, ...
          1 is revoked: gw-9
Stages    1: 4 devices; watched for 10m; the next one by hand
          2: 36 devices, 40 in all
Conflicts rollout r7 of release 1.8.1 (RUNNING, priority 5) has 2 devices of those meant: left out
          rollout r6 of release 1.7 (PAUSED, priority -1) has 1 device of these: taken over from it
Platforms linux/amd64: 38 devices
          linux/arm/v7: 2 devices, which would FAIL: no image of web, db
Download  about 1.8G to 36 devices, as if they had no layer of it yet; without 1 image whose size is not known
Begins    2026-11-24T10:00:00.000Z
Ends      at 2026-11-24T10:11:00.000Z at the earliest, open to the end: stage 2 begins when an operator says so

Nothing was done. To do this, and nothing else, say the same with --plan-hash instead of --plan:
  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
)");
  EXPECT_EQ(bj::parse(api.last_body()).at("target"),
            (bj::object{{"filter", "labels.site = oslo"}, {"fleet_id", "demo"}}));
  const Result data = flock({"deploy", "demo", "--release", "1.8.2", "--plan", "-o", "json"});
  EXPECT_EQ(bj::parse(data.out), bj::parse(kPlan));
}

TEST_F(Cli, APlanThatWouldBeRefusedSaysSo) {
  bj::value plan = bj::parse(kPlan);
  plan.as_object()["obstacles"] = bj::array{bj::value("rollout r7 has 2 devices: gw-50, gw-51")};
  api.answer("POST /v1/deployments:plan", 200, bj::serialize(plan));
  const Result shown = flock({"deploy", "demo", "--release", "1", "--plan", "-o", "table"});
  EXPECT_EQ(shown.code, 5) << shown.err;
  EXPECT_NE(
      shown.out.find("REFUSED   rollout r7 has 2 devices: gw-50, gw-51\n\nNothing was done.\n"),
      std::string::npos)
      << shown.out;
}

TEST_F(Cli, DeploysToWhomItIsTold) {
  api.answer("POST /v1/deployments", 201, R"({"id":"d1"})");
  api.answer("GET /v1/devices/gw-1", 200, R"({"id":"d-1","name":"gw-1"})");
  const auto body = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "deploy");
    words.insert(words.end(), {"--release", "2", "--no-wait"});
    const Result result = flock(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return bj::parse(api.last_body()).as_object();
  };
  constexpr const char* kId = "01a20f18-b91c-7000-9658-57f0f12237b9";
  const bj::object listed = body({"--devices", std::string("gw-1,") + kId});
  EXPECT_EQ(listed.at("target"),
            (bj::object{{"device_ids", bj::array{bj::value("d-1"), bj::value(kId)}}}));
  const bj::object all =
      body({"--all-fleets", "-l", "site=oslo", "--frozen", "--priority", "5", "--on-conflict",
            "leave-out", "--spread-over", "rack", "--plan-hash", "abc"});
  EXPECT_EQ(all.at("target"),
            (bj::object{{"filter", "labels.site = \"oslo\""}, {"membership", "FROZEN"}}));
  EXPECT_EQ(all.at("priority"), 5);
  EXPECT_EQ(all.at("on_conflict"), "LEAVE_OUT");
  EXPECT_EQ(all.at("strategy").at("spread_over"), "rack");
  EXPECT_EQ(all.at("plan_hash"), "abc");
  EXPECT_TRUE(body({"demo", "--filter", "name:gw", "--allow-empty"})
                  .at("target")
                  .at("allow_empty")
                  .as_bool());
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{{"--all-fleets"},
                                             {"demo", "--all-fleets", "--filter", "x:y"},
                                             {"demo", "--on-conflict", "fight"},
                                             {"demo", "--priority", "high"}}) {
    std::vector<std::string> words{"deploy", "--release", "2", "--no-wait"};
    words.insert(words.end(), bad.begin(), bad.end());
    EXPECT_EQ(flock(words).code, 2) << bad.back();
  }
}

}  // namespace
}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>

#include "cli_fixture.h"
#include "commands/rollout_screen.h"
#include "testing/process.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kRollout =
    R"({"id":"r1","release":{"version":"2"},"state":"RUNNING","stage":1,"stages":[{"devices":1,"soak":"10m"},{"devices":4,"soak":"0s"}],)"
    R"("gates":[{"title":"failed","signal":"failed","at_most":0.1,"sample":1,"now":0,"measured_on":1,"result":"PASS","since":"2026-11-24T10:00:00.000Z"}],)"
    R"("counts":{"total":4,"confirmed":1,"failed":0},"reason":"stage 1 of 2 is watched for 10m"})";

TEST_F(Cli, DeploysHostCommands) {
  api.answer("POST /v1/deployments", 201, R"({"id":"d1"})");
  const auto body = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"deploy", "demo", "--no-wait"};
    words.insert(words.end(), more.begin(), more.end());
    const Result result = flock(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return bj::parse(api.last_body()).as_object();
  };
  bj::object sent = body({"--host-command", "true"});
  EXPECT_FALSE(sent.contains("release_id"));
  EXPECT_EQ(sent.at("host_command"), (bj::object{{"command", "true"}}));
  const flock::testing::TempDir dir;
  sent = body({"--release", "2", "--host-file", dir.write("script", "print(1)\n"),
               "--host-interpreter", "/usr/bin/python3", "--host-timeout", "5m", "--host-verify",
               "check", "--host-rollback", "back", "--host-reboot", "expected", "--host-run-as",
               "nobody", "--host-idempotent"});
  EXPECT_EQ(sent.at("release_id"), "2");
  EXPECT_EQ(sent.at("host_command"), (bj::object{{"script", "print(1)\n"},
                                                 {"interpreter", "/usr/bin/python3"},
                                                 {"timeout", "5m"},
                                                 {"verify_command", "check"},
                                                 {"rollback_command", "back"},
                                                 {"run_as", "nobody"},
                                                 {"reboot", "expected"},
                                                 {"idempotent", true}}));
  EXPECT_EQ(flock({"deploy", "demo", "--host-verify", "check"}).code, 2);
  EXPECT_EQ(flock({"deploy", "demo", "--host-command", "a", "--host-file", "b"}).code, 2);
  EXPECT_EQ(flock({"deploy", "demo"}).code, 2);
}

TEST_F(Cli, DeploysInStages) {
  api.answer("POST /v1/deployments", 201, R"({"id":"d1"})");
  const auto strategy = [&](std::vector<std::string> more) {
    std::vector<std::string> words{"deploy", "demo", "--release", "2", "--no-wait"};
    words.insert(words.end(), more.begin(), more.end());
    const Result result = flock(words);
    EXPECT_EQ(result.code, 0) << result.err;
    return bj::parse(api.last_body()).at("strategy").as_object();
  };
  EXPECT_EQ(strategy({}), (bj::object{{"kind", "immediate"}}));
  EXPECT_EQ(strategy({"--canary"}), (bj::object{{"kind", "canary"}}));
  EXPECT_EQ(strategy({"--window", "22:00-04:00", "--window", "SAT,SUN 08:30-10:00 Europe/Oslo",
                      "--retries", "2", "--retry-after", "1m"}),
            (bj::object{{"kind", "immediate"},
                        {"windows", bj::array{bj::object{{"from", "22:00"}, {"to", "04:00"}},
                                              bj::object{{"days", bj::array{"SAT", "SUN"}},
                                                         {"from", "08:30"},
                                                         {"to", "10:00"},
                                                         {"time_zone", "Europe/Oslo"}}}},
                        {"retries", 2},
                        {"retry_after", "1m"}}));
  EXPECT_EQ(flock({"deploy", "demo", "--release", "2", "--window", "night"}).code, 2);
  const bj::object whole = strategy({"--stages", "1,25%", "--stage-soak", "10m", "--gate",
                                     "confirmed>=95%", "--gate", "failed<=0.1@20", "--max-updating",
                                     "5", "--max-down-per", "site=1", "--on-failure", "rollback"});
  EXPECT_EQ(
      whole,
      (bj::object{
          {"kind", "progressive"},
          {"stages", bj::array{bj::object{{"count", 1}, {"soak", "10m"}},
                               bj::object{{"percent", 25.0}, {"soak", "10m"}}}},
          {"gates", bj::array{bj::object{{"signal", "confirmed"}, {"at_least", 0.95}},
                              bj::object{{"signal", "failed"}, {"at_most", 0.1}, {"sample", 20}}}},
          {"max_updating", 5},
          {"max_down_per", {{"label", "site"}, {"count", 1}}},
          {"on_failure", "ROLL_BACK"}}));
  EXPECT_EQ(strategy({"--stages", "1", "--by-hand"}).at("kind"), "manual");
  const std::string file = dir.write(
      "gates.json", R"([{"kind":"webhook","url":"https://qa.example.com","secret":"whsec_x"}])");
  EXPECT_EQ(strategy({"--gate", "p95(load_1m)<=4@10", "--gate", "max(web/memory_bytes)<=1e9",
                      "--gate", "comparison@20", "--gates", file})
                .at("gates"),
            (bj::array{bj::object{{"kind", "metric"},
                                  {"aggregate", "p95"},
                                  {"metric", "load_1m"},
                                  {"at_most", 4.0},
                                  {"sample", 10}},
                       bj::object{{"kind", "metric"},
                                  {"aggregate", "max"},
                                  {"service", "web"},
                                  {"metric", "memory_bytes"},
                                  {"at_most", 1e9}},
                       bj::object{{"kind", "comparison"}, {"sample", 20}},
                       bj::object{{"kind", "webhook"},
                                  {"url", "https://qa.example.com"},
                                  {"secret", "whsec_x"}}}));
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{{"--stages", "some"},
                                             {"--stages", "5%,x"},
                                             {"--max-down-per", "site"},
                                             {"--max-down-per", "site=0"},
                                             {"--gate", "failed"},
                                             {"--gate", "failed<=x"},
                                             {"--gate", "p95(load_1m)<=x"},
                                             {"--gate", "comparison@x"},
                                             {"--on-failure", "cry"},
                                             {"--by-hand"},
                                             {"--canary", "--stages", "1"},
                                             {"--max-failed", "200%"}}) {
    std::vector<std::string> words{"deploy", "demo", "--release", "2", "--no-wait"};
    words.insert(words.end(), bad.begin(), bad.end());
    EXPECT_EQ(flock(words).code, 2) << bad.front() << bad.back();
  }
}

TEST_F(Cli, TellsRolloutsWhatToDo) {
  for (const auto& [verb, action] :
       std::vector<std::pair<std::string, std::string>>{{"approve", "approve"},
                                                        {"pause", "pause"},
                                                        {"resume", "resume"},
                                                        {"advance", "advance"},
                                                        {"finish", "finish"},
                                                        {"abort", "abort"},
                                                        {"rollback", "roll-back"}}) {
    api.answer("POST /v1/rollouts/r1/actions/" + action, 200, kRollout);
    std::vector<std::string> words{"rollouts", verb, "r1", "-o", "name"};
    if (verb == "rollback") words.push_back("--yes");
    EXPECT_EQ(flock(words).out, "r1\n") << verb;
  }
  api.answer("GET /v1/rollouts/r1", 200, kRollout);
  EXPECT_EQ(flock({"rollouts", "status", "r1"}).code, 8);
}

TEST_F(Cli, SaysWhyADeviceWaits) {
  api.answer("GET /v1/rollouts/r1", 200, kRollout);
  api.answer(
      "GET /v1/rollouts/r1/devices?page_size=1000", 200,
      R"({"items":[{"device_id":"d1","name":"gw-1","online":true,"state":"CONFIRMED","stage":1},)"
      R"({"device_id":"d2","name":"gw-2","online":true,"state":"WAITING","stage":2},)"
      R"({"device_id":"d3","name":"gw-3","online":false,"state":"FAILED","stage":1,"reason":"no_space: 3 MB"}],"next_page_token":""})");
  const auto why = [&](const char* device) {
    return flock({"rollouts", "why", "r1", device, "-o", "table"}).out;
  };
  constexpr const char* kOfRollout = "the rollout  RUNNING: stage 1 of 2 is watched for 10m\n";
  EXPECT_EQ(why("gw-1"),
            std::string("gw-1  CONFIRMED: it runs 2, and has proven it\n") + kOfRollout);
  EXPECT_EQ(why("d2"), std::string("gw-2  WAITING: it is in stage 2 of 2, which has not begun\n") +
                           kOfRollout);
  EXPECT_EQ(why("gw-3"),
            std::string("gw-3  FAILED: it could not run 2 (no_space: 3 MB)\n") + kOfRollout);
  EXPECT_EQ(flock({"rollouts", "why", "r1", "gw-4"}).code, 3);
  const Result shown = flock({"rollouts", "show", "r1", "-o", "table"});
  EXPECT_NE(shown.out.find("failed"), std::string::npos) << shown.out;
}

TEST_F(Cli, SaysWhatAHostCommandDid) {
  api.answer(
      "GET /v1/rollouts/r1", 200,
      R"({"id":"r1","host_command":{"command":"x"},"state":"COMPLETED","stage":1,"stages":[{"devices":1,"soak":"0s"}]})");
  api.answer(
      "GET /v1/rollouts/r1/devices?page_size=1000", 200,
      R"({"items":[{"device_id":"d1","name":"gw-1","online":true,"state":"CONFIRMED","stage":1,)"
      R"("host_command":{"step":"DONE","exit_code":0,"output":"3 upgraded\n0 removed\n"}}],"next_page_token":""})");
  EXPECT_EQ(flock({"rollouts", "why", "r1", "gw-1", "-o", "table"}).out,
            "gw-1  CONFIRMED: it has done the host command\n"
            "host command  DONE, exit code 0\n"
            "  3 upgraded\n"
            "  0 removed\n"
            "the rollout  COMPLETED\n");
}

std::string screen(const RolloutScreen& shown, std::size_t height) {
  std::string out;
  for (const std::string& line : shown.lines(height)) out += line + "\n";
  return out;
}

TEST(RolloutScreen, ShowsWhatAStrangerNeeds) {
  Output output;
  output.terminal = true;
  output.width = 60;
  RolloutScreen shown(output);
  EXPECT_EQ(screen(shown, 24), "") << "nothing was told yet";
  const auto device = [&](int number, const char* state, int stage, const char* more) {
    const std::string id = std::to_string(number);
    shown.take({"1", "device",
                R"({"device_id":"d)" + id + R"(","name":"gw-)" + id + R"(","state":")" + state +
                    R"(","stage":)" + std::to_string(stage) + more + "}"});
  };
  device(1, "CONFIRMED", 1, "");
  device(2, "FAILED", 2, R"(,"reason":"no_space: needs 412 MB, has 290 MB")");
  device(3, "FAILED", 2, R"(,"reason":"no_space: needs 412 MB, has 7 MB")");
  device(4, "FAILED", 2,
         R"(,"reason":"exited: with \u001b[31m code 1 and a text that is longer than that")");
  device(5, "DOWNLOADING", 2, "");
  device(6, "WAITING", 3, R"(,"online":false)");
  device(7, "WAITING", 3, "");
  shown.take(
      {"2", "rollout",
       R"({"id":"r1","release":{"version":"2"},"state":"RUNNING","stage":2,"stages":[{},{},{}],)"
       R"("gates":[{"signal":"failed","at_most":0.05,"now":0.6,"measured_on":5,"result":"FAIL"},)"
       R"({"signal":"online","at_least":0.95,"measured_on":5,"result":"UNKNOWN","dry_run":true},)"
       R"({"kind":"metric","title":"load","at_most":4,"now":12.5,"measured_on":2,"result":"FAIL"},)"
       R"({"kind":"webhook","title":"qa","measured_on":1,"result":"PASS"},)"
       R"({"kind":"comparison","title":"worse","alpha":0.01,"now":0.25,"measured_on":8,"result":"PASS"}],)"
       R"("counts":{"total":7,"confirmed":1,"failed":3,"waiting":2},"reason":"1 device is updating"})"});
  EXPECT_EQ(screen(shown, 24),
            "Rollout r1  RUNNING  release 2\n"
            "Stage 2 of 3   ██░░░░░░░░░░░░░░░░  1/7 confirmed · 3 failed…\n"
            "1 device is updating\n"
            "\n"
            "GATE                NOW   NEEDS     DEVICES  SINCE  REASON\n"
            "✗ failed            60 %  ≤ 5 %     5\n"
            "… online (dry run)  -     ≥ 95 %    5\n"
            "✗ load              12.5  ≤ 4       2\n"
            "✓ qa                -     pass      1\n"
            "✓ worse             25 %  p > 0.01  8\n"
            "\n"
            "✓✗✗✗…○·\n"
            "\n"
            "✗ gw-2 and 1 more   no_space: needs 412 MB, has 290 MB\n"
            "✗ gw-4   exited: with \xef\xbf\xbd[31m code 1 and a text that is longe…\n");
  EXPECT_EQ(shown.lines(14).size(), 13U) << "the signs go first";
  EXPECT_EQ(shown.lines(5).size(), 3U);
}

}  // namespace
}  // namespace flock::cli

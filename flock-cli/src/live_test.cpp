// SPDX-License-Identifier: Apache-2.0
// Logs, metrics, events and commands in the terminal.
#include <algorithm>
#include <boost/json.hpp>

#include "cli_fixture.h"
#include "commands/live.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kNewestFirst =
    R"({"items":[
{"kind":"line","at":"2026-11-24T10:00:02.000Z","device":{"id":"d2","name":"gw-2"},"service":"web","epoch":1,"number":1,"level":"ERROR","source":"STDERR","text":"no route\nto host\u001b[2J"},
{"kind":"gap","at":"2026-11-24T10:00:01.000Z","device":{"id":"d1","name":"gw-1"},"service":"web","epoch":1,"number":2,"count":342,"reason":"RATE_LIMITED"},
{"kind":"line","at":"2026-11-24T10:00:00.000Z","device":{"id":"d1","name":"gw-1"},"service":"web","epoch":1,"number":1,"level":"INFO","source":"STDOUT","text":"a\tb"},
{"kind":"line","at":"2026-11-24T10:00:00.000Z","device":{"id":"d1","name":"gw-1"},"service":"web","epoch":1,"number":1,"level":"INFO","source":"STDOUT","text":"a\tb"}],"next_page_token":""})";

TEST_F(Cli, MergesTheLogsOfManyDevices) {
  api.answer(
      "GET /v1/logs?fleet=edge&service=web&level=warn&contains=route&order=desc&page_size=100", 200,
      kNewestFirst);
  const Result merged =
      flock({"logs", "--fleet", "edge", "--service", "web", "--level", "warn", "--grep", "route"});
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(merged.out,
            "2026-11-24T10:00:00.000Z gw-1/web  a\tb\n"
            "2026-11-24T10:00:01.000Z gw-1/web  ── 342 lines are missing: the service wrote faster "
            "than its limit ──\n"
            "2026-11-24T10:00:02.000Z gw-2/web  no route\n"
            "2026-11-24T10:00:02.000Z gw-2/web  to host\xef\xbf\xbd[2J\n")
      << "what came twice is shown once; a line that wants to steer the terminal cannot";
  const Result again = flock({"logs", "--fleet", "edge", "--service", "web", "--level", "warn",
                              "--grep", "route", "--color", "always"});
  EXPECT_NE(again.out.find("\x1b[31mno route\x1b[0m"), std::string::npos);
  EXPECT_EQ(flock({"logs"}).code, 2) << "nothing is named";
  EXPECT_EQ(flock({"logs", "--fleet", "edge", "--since", "later"}).code, 2);
  EXPECT_EQ(flock({"logs", "--fleet", "edge", "-f", "--until", "1h"}).code, 2);
}

TEST_F(Cli, ReadsLogsOfATimePageByPage) {
  api.answer("GET /v1/devices/gw-1", 200, R"({"id":"d1","name":"gw-1"})");
  const std::string line =
      R"({"kind":"line","at":"2026-11-24T10:00:00.000Z","device":{"id":"d1","name":"gw-1"},)"
      R"("service":"web","epoch":1,"text":"x","number":)";
  const std::string first = "GET /v1/logs?device=d1&from=-10m&order=asc&page_size=1000";
  api.answer(first, 200, R"({"items":[)" + line + R"(1}],"next_page_token":"t"})");
  api.answer(first + "&page_token=t", 200, R"({"items":[)" + line + R"(2}],"next_page_token":""})");
  const Result all = flock({"logs", "gw-1", "--since", "10m", "-o", "json"});
  EXPECT_EQ(all.code, 0) << all.err;
  EXPECT_EQ(std::count(all.out.begin(), all.out.end(), '\n'), 2);
  EXPECT_EQ(bj::parse(all.out.substr(0, all.out.find('\n'))).at("number"), 1);
  const Result nobody = flock({"logs", "nosuch"});
  EXPECT_EQ(nobody.code, 3);
  EXPECT_NE(nobody.err.find("no device and no fleet nosuch"), std::string::npos);
}

TEST_F(Cli, FollowsLogsOverABreakAndShowsNoLineTwice) {
  const auto event = [](const char* id, int number) {
    return std::string("id: ") + id + "\nevent: log\ndata: " +
           R"({"kind":"line","at":"2026-11-24T10:00:00.000Z","device":{"id":"d1","name":"gw-1"},)" +
           R"("service":"web","epoch":1,"level":"INFO","text":"x","number":)" +
           std::to_string(number) + "}\n\n";
  };
  const std::string path = "GET /v1/logs:follow?fleet=edge&tail=100";
  api.answer(path, 200, ": connected\n\n" + event("a", 1) + event("b", 2));
  api.answer(path + " after b", 200,
             event("b", 2) + event("c", 3) + "event: end\ndata: {\"reason\":\"old\"}\n\n");
  api.answer(path + " after c", 410, R"({"detail":"enough"})");
  const Result followed = flock({"logs", "--fleet", "edge", "-f"});
  EXPECT_EQ(std::count(followed.out.begin(), followed.out.end(), '\n'), 3) << followed.out;
  EXPECT_NE(followed.err.find("enough"), std::string::npos) << followed.err;
}

TEST_F(Cli, ShowsWhatDevicesUseNow) {
  api.answer("GET /v1/metrics/latest?fleet=edge", 200, R"({"truncated":false,"items":[
{"device":{"id":"d1","name":"gw-1"},"metrics":{"at":"2026-11-24T10:00:00.000Z","host":{"cpu_ratio":0.05,"memory_used_bytes":431882240,"memory_total_bytes":1073741824,"temperature_celsius":54.25},"services":{}}},
{"device":{"id":"d2","name":"gw-2"},"metrics":{"at":"2026-11-24T10:00:01.000Z","host":{"cpu_ratio":0.97,"load_1m":3.5,"uptime_seconds":90000},"services":{"web":{"cpu_cores":1.5,"memory_bytes":2048,"pids":7}}}}]})");
  const Result top = flock({"devices", "top", "--fleet", "edge"});
  EXPECT_EQ(top.code, 0) << top.err;
  EXPECT_EQ(top.out,
            "DEVICE\tCPU\tMEMORY\tDISK\tTEMP\tLOAD\tUP\tMEASURED\n"
            "gw-2\t97%\t\t\t\t3.5\t1d\t2026-11-24T10:00:01.000Z\n"
            "gw-1\t5%\t412M/1.0G\t\t54.2°C\t\t\t2026-11-24T10:00:00.000Z\n");
  EXPECT_EQ(flock({"devices", "top", "--fleet", "edge", "--services"}).out,
            "DEVICE\tSERVICE\tCPU\tMEMORY\tPROCESSES\tMEASURED\n"
            "gw-2\tweb\t150%\t2.0K\t7\t2026-11-24T10:00:01.000Z\n");
  EXPECT_EQ(flock({"devices", "top", "--interval", "1ms", "--fleet", "edge"}).code, 2);
}

TEST_F(Cli, ShowsWhatADeviceWentBackTo) {
  api.answer("GET /v1/devices/gw-1?include=metrics", 200,
             R"({"id":"d1","name":"gw-1","state":"ONLINE","labels":{},"attributes":{},"hardware":{},
"desired":{"version":8,"release":{"id":"r2","version":"1.9.0"}},
"reported":{"phase":"FAILED","release_id":"r2","desired_version":8,"error_code":"exited",
"error":"web exited with code 3; this device runs 1.8.2 again","at":"2026-11-24T10:00:00.000Z","services":[],
"rollback":{"release_id":"r","release_version":"1.8.2","phase":"CONFIRMED","at":"2026-11-24T10:00:00.000Z"}}})");
  api.answer("GET /v1/devices/d1/events?from=-7d&page_size=5", 200,
             R"({"incomplete":false,"items":[]})");
  const Result shown = flock({"devices", "show", "gw-1"});
  EXPECT_NE(shown.out.find("  wanted      1.9.0 (state 8)\n"
                           "  phase       FAILED (state 8)\n"
                           "  error       exited, web exited with code 3; this device runs 1.8.2 "
                           "again\n"
                           "  back to     1.8.2, CONFIRMED\n"),
            std::string::npos)
      << shown.out;
}

TEST_F(Cli, ShowsADeviceInGroups) {
  api.answer("GET /v1/devices/gw-1?include=metrics", 200,
             R"({"id":"d1","name":"gw-1","state":"OFFLINE",
"fleet":{"id":"f","slug":"edge","name":"Edge"},"labels":{"site":"oslo"},"attributes":{},
"hardware":{"architecture":"arm64","os":"Debian 12","cpus":4,"memory_bytes":8589934592},
"registered_at":"2026-11-20T10:00:00.000Z","last_seen_at":"2026-11-24T10:00:00.000Z",
"desired":{"version":7,"release":{"id":"r","version":"1.8.2"}},
"connectivity":{"online":false,"since":"2026-11-24T10:00:30.000Z","reason":"connection_lost"},
"reported":{"phase":"CONFIRMED","release_id":"r","desired_version":7,"at":"2026-11-24T10:00:00.000Z",
"services":[{"name":"web","state":"RUNNING","health":"HEALTHY","image_digest":"sha256:a","restart_count":1,"container_id":"c","last_exit":{"code":137,"by":"KERNEL"}}]},
"metrics":{"at":"2026-11-24T10:00:00.000Z","host":{"cpu_ratio":0.05,"network_sent_bytes":1048576},"services":{}}})");
  api.answer("GET /v1/devices/d1/events?from=-7d&page_size=5", 200, R"({"incomplete":false,"items":[
{"at":"2026-11-24T10:00:30.000Z","type":"OFFLINE","detail":{"reason":"connection_lost"}}]})");
  const Result shown = flock({"devices", "show", "gw-1"});
  EXPECT_EQ(shown.code, 0) << shown.err;
  EXPECT_EQ(shown.out,
            "gw-1  OFFLINE since 2026-11-24T10:00:30.000Z (connection_lost), last seen "
            "2026-11-24T10:00:00.000Z\n"
            "\nIdentity\n"
            "  id          d1\n"
            "  fleet       Edge (edge)\n"
            "  labels      site=oslo\n"
            "  hardware    arm64, Debian 12, 4 cpus, 8.0G\n"
            "  registered  2026-11-20T10:00:00.000Z\n"
            "\nRunning\n"
            "  wanted      1.8.2 (state 7)\n"
            "  phase       CONFIRMED (state 7)\n"
            "\n"
            "SERVICE\tCONTAINER\tHEALTH\tRESTARTS\tLAST EXIT\tBY\tIMAGE\n"
            "web\tRUNNING\tHEALTHY\t1\t137\tKERNEL\tsha256:a\n"
            "\nResources\n"
            "  cpu         5%\n"
            "\nNetwork\n"
            "  sent        1.0M\n"
            "\nLast events\n"
            "  2026-11-24T10:00:30.000Z  OFFLINE  connection_lost\n");
  api.answer("GET /v1/devices/gw-1/events?from=-1d&page_size=100", 200,
             R"({"incomplete":true,"items":[{"at":"2026-11-24T10:00:30.000Z","type":"COMMAND",
             "detail":{"command":"reboot","state":"DONE","actor":"kim"}}]})");
  const Result events = flock({"devices", "events", "gw-1"});
  EXPECT_EQ(events.out, "AT\tWHAT\tHOW\n2026-11-24T10:00:30.000Z\tCOMMAND\treboot DONE kim\n");
  EXPECT_NE(events.err.find("is away"), std::string::npos);
}

constexpr const char* kWaits =
    R"({"id":"c1","device":{"id":"d1","name":"gw-1"},"type":"restart_service","service":"web","state":"PENDING","actor":"kim","created_at":"2026-11-24T10:00:00.000Z","changed_at":"2026-11-24T10:00:00.000Z","expires_at":"2026-11-24T11:00:00.000Z","waits_for_device":true})";

TEST_F(Cli, TellsDevicesWhatToDo) {
  api.answer("POST /v1/devices/gw-1/commands", 201, kWaits);
  const Result restart =
      flock({"devices", "restart", "gw-1", "--service", "web", "--expires-in", "2h", "-o", "name"});
  EXPECT_EQ(restart.code, 0) << restart.err;
  EXPECT_EQ(restart.out, "c1\n");
  EXPECT_EQ(restart.err,
            "gw-1 is offline; the command waits for it until "
            "2026-11-24T11:00:00.000Z.\n");
  EXPECT_EQ(bj::parse(api.last_body()),
            (bj::object{{"type", "restart_service"}, {"service", "web"}, {"expires_in", "2h"}}));
  EXPECT_EQ(flock({"devices", "restart", "gw-1"}).code, 2) << "which service?";
  EXPECT_EQ(flock({"devices", "reboot", "gw-1", "--yes"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"type":"reboot"})");
  EXPECT_EQ(flock({"devices", "purge", "gw-1", "--service", "db"}).code, 2) << "not confirmed";
  EXPECT_EQ(flock({"devices", "purge", "gw-1", "--service", "db", "--volume", "data", "--confirm",
                   "gw-1"})
                .code,
            0);
  EXPECT_EQ(bj::parse(api.last_body()),
            (bj::object{
                {"type", "purge"}, {"service", "db"}, {"volumes", {"data"}}, {"confirm", "gw-1"}}));
  api.answer(
      "GET /v1/devices?fleet_id=edge&page_size=1000", 200,
      R"({"items":[{"id":"d1","name":"gw-1"},{"id":"d2","name":"gw-2"}],"next_page_token":""})");
  api.answer("POST /v1/devices:command", 201,
             std::string(R"({"items":[)") + kWaits + "," + kWaits + "]}");
  EXPECT_EQ(flock({"devices", "identify", "--fleet", "edge", "--yes"}).code, 0);
  EXPECT_EQ(bj::parse(api.last_body()).at("device_ids"), (bj::array{"d1", "d2"}));
  api.answer("GET /v1/devices/gw-1/commands?page_size=1000", 200,
             std::string(R"({"items":[)") + kWaits + R"(],"next_page_token":""})");
  EXPECT_NE(flock({"devices", "commands", "gw-1"}).out.find("restart_service\tweb\tPENDING"),
            std::string::npos);
  api.answer("POST /v1/devices/gw-1/commands/c1/actions/cancel", 200, kWaits);
  EXPECT_EQ(flock({"devices", "cancel", "gw-1", "c1"}).code, 0);
}

TEST_F(Cli, SaysAmountsForPeople) {
  EXPECT_EQ(bytes_text(0), "0B");
  EXPECT_EQ(bytes_text(1023), "1023B");
  EXPECT_EQ(bytes_text(1024), "1.0K");
  EXPECT_EQ(bytes_text(1536.0 * 1024 * 1024), "1.5G");
  EXPECT_EQ(span_text(59), "59s");
  EXPECT_EQ(span_text(90'000), "1d");
  EXPECT_EQ(instant("since", "10m"), "-10m");
  EXPECT_EQ(instant("since", "2026-11-24T12:00:00+02:00"), "2026-11-24T10:00:00.000Z");
}

}  // namespace
}  // namespace flock::cli

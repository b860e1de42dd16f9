// SPDX-License-Identifier: Apache-2.0
// Every operation of the document answers as the document says, over real servers.
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/json.h"
#include "crypto/jwt.h"
#include "net/sse.h"
#include "targets/api/openapi.h"
#include "targets/itest_document.h"
#include "targets/itest_stack.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;
using flock::testing::run_task;
using Report = device::v1::ReportedState;

// The events of a rollout until it ended.
Task<std::vector<net::SseEvent>> watch(Backend& backend, std::string api_key, std::string rollout) {
  net::HttpClient http(backend.executor, {});
  net::Headers headers;
  headers.add("Authorization", "Bearer " + api_key);
  net::SseParser parser;
  std::vector<net::SseEvent> events;
  const auto take = [&](std::string_view chunk) -> Task<void> {
    for (auto& event : parser.feed(chunk)) events.push_back(std::move(event));
    co_return;
  };
  const net::Response response = co_await http.stream(
      "GET", backend.stack.url("/v1/rollouts/" + rollout + "/events"), headers, "", take);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.get("Content-Type"), "text/event-stream");
  co_return events;
}

// What is tried by other tests: setUp once (targets_itest.cpp), what only persons may
// (people_itest.cpp), what never ends (events_itest.cpp, live_itest.cpp).
const std::set<std::string_view> kElsewhere{"setUp",        "createOrganization", "changeMember",
                                            "removeMember", "acceptInvitation",   "followEvents",
                                            "followLogs"};

Task<void> live_data(Backend& backend, Api& api, const FakeDevice& device) {
  const bj::value shown = co_await api.call("GET", "/v1/devices/" + device.id);
  const std::string org = text((co_await api.call("GET", "/v1/whoami")).at("organization"), "id");
  const stores::Origin host{org, text(shown.at("fleet"), "id"), device.id, ""},
      web{org, host.fleet, device.id, "web"};
  const std::int64_t now = to_unix_ms(system_clock().now());
  stores::Rows rows;
  rows.metrics = {{host, "cpu_ratio", now, 0.5}, {web, "cpu_cores", now, 1}};
  rows.logs.push_back({web, 1, 1, now, now, 1, 2, "hello", true});
  rows.logs.push_back({web, 1, 2, now, now, 0, 0, "", false, 5, 1});
  rows.connectivity.push_back({host, now, true, "connected"});
  rows.updates.push_back({host, "", "", now, "FAILED", "no_space", "full"});
  co_await backend.time_series->insert(std::move(rows));
  for (const char* rest : {"", "/events", "/metrics", "/logs", "/commands"})
    co_await api.call("GET", "/v1/devices/" + device.id + rest);
  for (const char* path : {"/v1/metrics", "/v1/metrics/latest", "/v1/logs"}) {
    const bj::value answer = co_await api.call("GET", path);
    const char* list = answer.as_object().contains("series") ? "series" : "items";
    EXPECT_FALSE(answer.at(list).as_array().empty()) << path;
  }
  const bj::value command =
      co_await api.call("POST", "/v1/devices/" + device.id + "/commands",
                        bj::object{{"type", "restart_service"}, {"service", "web"}});
  const std::string path = "/v1/devices/" + device.id + "/commands/" + text(command, "id");
  co_await api.call("GET", path);
  co_await api.call("POST", path + "/actions/cancel");
  co_await api.call("POST", "/v1/devices:command",
                    bj::object{{"type", "identify"}, {"device_ids", {device.id}}});
  EXPECT_EQ(api.last.status, 201) << api.last.body;
}

Task<void> account(Api& api) {
  const bj::value me = co_await api.call("GET", "/v1/whoami");
  const std::string org = "/v1/organizations/" + text(me.at("organization"), "id");
  co_await api.call("GET", "/v1/auth/config");
  co_await api.call("GET", "/v1/organizations");
  co_await api.call("GET", org);
  co_await api.call("PATCH", org, bj::object{{"name", "Renamed"}});
  co_await api.call("GET", "/v1/members");
  const bj::value invitation = co_await api.call(
      "POST", "/v1/invitations", bj::object{{"email", "ada@example.com"}, {"role", "viewer"}});
  co_await api.call("GET", "/v1/invitations");
  co_await api.call("DELETE", "/v1/invitations/" + text(invitation, "id"));
  const bj::value key = co_await api.call(
      "POST", "/v1/api-keys",
      bj::object{{"name", "ci"}, {"role", "viewer"}, {"scopes", bj::array{"fleets:read"}}});
  co_await api.call("GET", "/v1/api-keys");
  co_await api.call("GET", "/v1/api-keys/" + text(key, "id"));
  co_await api.call("DELETE", "/v1/api-keys/" + text(key, "id"));
  EXPECT_EQ(api.last.status, 204) << api.last.body;
}

// Each way of setting one, of `owner` ("/v1/fleets/edge"); leaves LOG_LEVEL there.
Task<void> variables(Api& api, std::string owner) {
  const std::string one = owner + "/variables/TOKEN?service=web";
  co_await api.call("PUT", one, bj::object{{"value", "x"}, {"secret", true}});
  EXPECT_EQ(api.last.status, 201) << api.last.body;
  co_await api.call("PUT", one, bj::object{{"value", "y"}});
  EXPECT_EQ(api.last.status, 200) << api.last.body;
  co_await api.call("GET", one);
  co_await api.call(
      "POST", owner + "/actions/import-variables",
      bj::object{{"variables", bj::array{bj::object{{"name", "LOG_LEVEL"}, {"value", "info"}}}}});
  EXPECT_EQ(api.last.status, 200) << api.last.body;
  const bj::value all = co_await api.call("GET", owner + "/variables");
  EXPECT_EQ(all.at("items").as_array().size(), 2u);
  co_await api.call("DELETE", one);
  EXPECT_EQ(api.last.status, 204) << api.last.body;
}

Task<void> provisioning(Api& api) {
  const bj::value key = co_await api.call("POST", "/v1/provisioning-keys",
                                          bj::object{{"fleet_id", "edge"},
                                                     {"mode", "PREREGISTERED"},
                                                     {"approval_required", true},
                                                     {"labels", {{"site", "oslo"}}},
                                                     {"allowed_networks", bj::array{"::1"}}});
  const std::string path = "/v1/provisioning-keys/" + text(key, "id");
  co_await api.call("GET", path);
  co_await api.call("PATCH", path, bj::object{{"name", "line 2"}});
  const crypto::Key device = crypto::Key::generate(crypto::Key::Kind::kP256);
  const bj::value known =
      co_await api.call("POST", path + "/devices", bj::object{{"thumbprint", device.thumbprint()}});
  co_await api.call("GET", path + "/devices");
  co_await api.call("DELETE", path + "/devices/" + text(known, "id"));
  EXPECT_EQ(api.last.status, 204) << api.last.body;
  const bj::value open =
      co_await api.call("POST", "/v1/provisioning-keys",
                        bj::object{{"fleet_id", "edge"}, {"approval_required", true}});
  const bj::value pending =
      co_await api.call("POST", "/v1/devices/register", registration(text(open, "secret"), device));
  EXPECT_EQ(api.last.status, 202);
  const std::string request = "/v1/device-requests/" + text(pending, "device_request_id");
  co_await api.call("GET", "/v1/device-requests");
  co_await api.call("GET", request);
  co_await api.call("POST", request + "/actions/reject");
  co_await api.call("POST", request + "/actions/approve");
  co_await api.call("DELETE", path);
  co_await api.call("DELETE", "/v1/provisioning-keys/" + text(open, "id"));
}

Task<void> releases(Api& api) {
  const char* compose = "services:\n  web:\n    image: registry.example/acme/web:1\n";
  co_await api.call("POST", "/v1/releases",
                    bj::object{{"version", "2.0.0"}, {"draft", true}, {"compose", compose}});
  co_await api.call("PUT", "/v1/releases/2.0.0", bj::object{{"compose", compose}});
  co_await api.call("PATCH", "/v1/releases/2.0.0", bj::object{{"note", "n"}});
  co_await api.call("GET", "/v1/releases/2.0.0/diff?to=2.0.0");
  co_await api.call("POST", "/v1/releases/2.0.0/actions/finalize");
  co_await api.call("POST", "/v1/releases/2.0.0/actions/invalidate", bj::object{{"reason", "r"}});
  co_await api.call("DELETE", "/v1/releases/2.0.0");
  co_await api.call("PUT", "/v1/release-retention", bj::object{{"keep_last", 100}});
  co_await api.call("GET", "/v1/release-retention");
  EXPECT_EQ(api.last.status, 200) << api.last.body;
}

Task<void> subscriptions(Api& api) {
  const bj::value made = co_await api.call("POST", "/v1/event-subscriptions",
                                           bj::object{{"name", "ops"},
                                                      {"url", "https://hooks.acme.example/flock"},
                                                      {"event_types", bj::array{"rollout.*"}}});
  const std::string path = "/v1/event-subscriptions/" + text(made, "id");
  co_await api.call("GET", "/v1/event-subscriptions");
  co_await api.call("GET", path);
  co_await api.call("PATCH", path, bj::object{{"enabled", false}});
  co_await api.call("POST", path + "/actions/rotate-secret");
  co_await api.call("DELETE", path);
  EXPECT_EQ(api.last.status, 204) << api.last.body;
}

// Everything that an operator can tell a rollout to do, in an order in which all of it makes sense.
Task<void> orders(Backend& backend, Api& api, std::string release) {
  const bj::value made = co_await api.call(
      "POST", "/v1/deployments",
      bj::object{{"release_id", release},
                 {"target", {{"fleet_id", "edge"}}},
                 {"strategy",
                  {{"kind", "manual"},
                   {"stages", bj::array{bj::object{{"percent", 50}, {"soak", "1h"}}}},
                   {"gates", bj::array{bj::object{
                                 {"signal", "confirmed"}, {"at_least", 0.9}, {"sample", 3}}}},
                   {"max_updating", 5},
                   {"on_failure", "PAUSE"},
                   {"approval", true}}}});
  std::string rollout;
  co_await eventually("the rollout is made", [&]() -> Task<bool> {
    const bj::value now = co_await api.call("GET", "/v1/deployments/" + text(made, "id"));
    if (now.as_object().contains("rollout_id")) rollout = "/v1/rollouts/" + text(now, "rollout_id");
    co_return !rollout.empty();
  });
  co_await api.call("POST", rollout + "/actions/approve");
  EXPECT_EQ(api.last.status, 403) << "nobody approves what is his own";
  Api second(backend.executor, backend.stack, co_await backend.make_key(api.token, "developer"));
  co_await second.call("POST", rollout + "/actions/approve");
  EXPECT_EQ(second.last.status, 200) << second.last.body;
  co_await eventually("it runs", [&]() -> Task<bool> {
    co_return text(co_await api.call("GET", rollout), "state") == "RUNNING";
  });
  co_await api.call("POST", rollout + "/actions/pause");
  const auto failed = co_await backend.db.query(
      postgres::Scope::system(),
      "UPDATE rollout_devices SET state = 'FAILED' WHERE rollout_id = $1::uuid",
      postgres::Params().text(rollout.substr(rollout.rfind('/') + 1)));
  EXPECT_GT(failed.affected, 0);
  for (const char* order :
       {"retry", "pause", "resume", "skip", "advance", "finish", "abort", "roll-back"}) {
    co_await api.call("POST", rollout + "/actions/" + order);
    EXPECT_EQ(api.last.status, 200) << order << api.last.body;
  }
  co_await api.call("GET", rollout + "/failures");
  const bj::value timeline = co_await api.call("GET", rollout + "/timeline");
  EXPECT_GE(timeline.at("items").as_array().size(), 8u);
}

TEST(Answers, KeepTheDocumentForEveryOperation) {
  Stack* const stack = Stack::get();
  if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *stack);
        co_await backend.start();
        Api api(backend.executor, *stack, co_await backend.make_tenant("Whole"));
        Api anyone(backend.executor, *stack);
        co_await push_image(backend.executor, stack->registry_host(), "acme/web", "1",
                            {"amd64", "arm64"});

        EXPECT_EQ(co_await anyone.call("GET", "/v1/openapi.json"),
                  json::parse(api::openapi_json()));
        co_await anyone.call("GET", "/.well-known/jwks.json");
        co_await api.call("GET", "/v1/whoami");
        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
        co_await api.call("GET", "/v1/fleets/edge");
        co_await api.call("PATCH", "/v1/fleets/edge", bj::object{{"name", "North"}});
        const bj::value key = co_await api.call(
            "POST", "/v1/provisioning-keys",
            bj::object{{"fleet_id", "edge"}, {"max_uses", 9}, {"expires_in", "1h"}});
        FakeDevice device(backend);
        co_await device.join(api, text(key, "secret"));
        co_await api.call("POST", "/v1/devices/register",
                          registration(text(key, "secret"), device.key));
        EXPECT_EQ(api.last.status, 200);
        co_await api.call(
            "POST", "/v1/devices/token",
            bj::object{{"device_id", device.id},
                       {"assertion", crypto::sign_jwt(device.key, assertion_claims(device.id))}});

        const bj::value release = co_await api.call(
            "POST", "/v1/releases",
            bj::object{{"note", "n"},
                       {"compose",
                        "services:\n  web:\n    image: registry.example/acme/web:1\n"
                        "    logging: {driver: none}\n"}});
        EXPECT_EQ(api.last.status, 201) << api.last.body;
        EXPECT_EQ(release.at_pointer("/services/0/platforms").as_array().size(), 2u);
        co_await api.call("GET", "/v1/releases/" + text(release, "id"));
        const bj::object wanted{{"release_id", text(release, "id")},
                                {"target", {{"fleet_id", "edge"}}}};
        const bj::value plan = co_await api.call("POST", "/v1/deployments:plan", wanted);
        EXPECT_GT(plan.at_pointer("/download/estimated_bytes").as_int64(), 0);
        EXPECT_TRUE(plan.at_pointer("/download/unknown_images").as_array().empty());
        const bj::value deployment = co_await api.call("POST", "/v1/deployments", wanted);
        co_await eventually("desired state",
                            [&]() -> Task<bool> { co_return device.desired.version() == 1; });
        const bj::value executed =
            co_await api.call("GET", "/v1/deployments/" + text(deployment, "id"));
        const std::string rollout = text(executed, "rollout_id");
        std::vector<net::SseEvent> events;
        const auto follow = [&]() -> Task<void> {
          events = co_await watch(backend, api.token, rollout);
        };
        TaskScope watching(backend.executor);
        watching.spawn("watch", follow());
        Report failing = device.state(Report::DOWNLOADING);
        co_await device.report(failing);
        co_await device.report(device.state(Report::SOAKING));
        co_await device.report(device.state(Report::CONFIRMED));
        co_await watching.join();
        std::set<std::string> kinds;
        for (const auto& event : events) {
          kinds.insert(event.event);
          const char* schema = event.event == "rollout"  ? "Rollout"
                               : event.event == "device" ? "RolloutDevice"
                                                         : "RolloutEnd";
          for (const auto& fault : schema_faults(schema, json::parse(event.data)))
            ADD_FAILURE() << event.event << ": " << fault;
        }
        EXPECT_EQ(kinds, (std::set<std::string>{"rollout", "device", "end"}));
        Api::answered().insert("watchRollout");

        co_await api.call("GET", "/v1/rollouts/" + rollout);
        co_await api.call("GET", "/v1/rollouts/" + rollout + "/devices");
        co_await orders(backend, api, text(release, "id"));
        for (const char* list :
             {"fleets", "provisioning-keys", "devices", "releases", "deployments", "rollouts"}) {
          const bj::value page = co_await api.call("GET", std::string("/v1/") + list);
          EXPECT_FALSE(page.at("items").as_array().empty()) << list;
        }
        api.basic = "flock:" + api.token;
        co_await api.call("GET",
                          "/v1/registry/token?service=x&scope=repository:acme/web:pull,push");
        api.basic.reset();

        const bj::value me = co_await api.call("GET", "/v1/whoami");
        co_await variables(api, "/v1/organizations/" + text(me.at("organization"), "id"));
        co_await variables(api, "/v1/fleets/edge");
        co_await variables(api, "/v1/devices/" + device.id);
        const bj::value environment =
            co_await api.call("GET", "/v1/devices/" + device.id + "/environment");
        EXPECT_EQ(environment.at_pointer("/services/0/variables/0/overrides").as_array().size(),
                  2u);

        co_await provisioning(api);
        co_await releases(api);
        co_await subscriptions(api);
        co_await api.call("GET", "/v1/devices/" + device.id);
        co_await device.tell(device::v1::DeviceEvent::OFFLINE);  // so that commands wait
        co_await eventually("the device is offline", [&]() -> Task<bool> {
          co_return text(co_await api.call("GET", "/v1/devices/" + device.id), "state") ==
              "OFFLINE";
        });
        co_await live_data(backend, api, device);
        co_await api.call("PATCH", "/v1/devices/box", bj::object{{"name", "gate"}});
        co_await api.call("GET", "/v1/devices/gate/history");
        const bj::value batch = co_await api.call("POST", "/v1/devices:batchUpdate",
                                                  bj::object{{"filter", "name = gate"},
                                                             {"expected_count", 1},
                                                             {"set_labels", {{"site", "oslo"}}}});
        co_await api.call("GET", "/v1/operations/" + text(batch, "id"));
        co_await api.call("GET", "/v1/operations");
        co_await api.call("POST", "/v1/devices/gate/actions/move",
                          bj::object{{"fleet_id", "edge"}});
        co_await api.call("POST", "/v1/devices/gate/actions/clear-clone-suspicion");
        co_await api.call("POST", "/v1/devices/gate/actions/revoke");
        co_await api.call("POST", "/v1/devices/gate/actions/decommission",
                          bj::object{{"reason", "sold"}});
        co_await api.call("DELETE", "/v1/devices/gate");
        co_await api.call("POST", "/v1/devices/" + device.id + "/actions/undelete");
        co_await api.call("DELETE", "/v1/devices/gate");
        co_await api.call("DELETE", "/v1/provisioning-keys/" + text(key, "id"));
        co_await api.call("DELETE", "/v1/fleets/edge");
        EXPECT_EQ(api.last.status, 204) << "a fleet whose devices were removed is empty";

        co_await account(api);
        co_await api.call("GET", "/v1/audit?outcome=done");
        co_await api.call("GET", "/v1/audit/head");
        co_await api.call("GET", "/v1/audit/export");

        for (const Operation& operation : operations()) {
          if (!kElsewhere.contains(operation.id))
            EXPECT_TRUE(Api::answered().contains(operation.id)) << operation.id << " was not tried";
        }
        co_await backend.stop();
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::targets

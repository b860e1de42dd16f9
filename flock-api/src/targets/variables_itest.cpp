// SPDX-License-Identifier: Apache-2.0
// Environment variables from the API to the device, and secrets that nobody reads.
#include <gtest/gtest.h>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/log.h"
#include "services/sealing.h"
#include "stores/postgres/subscription_statements.h"
#include "stores/postgres/variable_statements.h"
#include "targets/api_itest.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;
using Report = device::v1::ReportedState;

const std::string kCanary = "canary-5d1e7c-secret-value";

// A tenant with a fleet `edge`, one device in it and the release "1" of one service `web`.
struct Site {
  Site(Executor executor, Stack& stack)
      : backend(executor, stack), api(executor, stack), device(backend) {}
  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Acme");
    const bj::value me = co_await api.call("GET", "/v1/whoami");
    org = "/v1/organizations/" + text(me.at("organization"), "id");
    fleet_id = text(co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}}), "id");
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    secret = text(key, "secret");
    co_await device.join(api, secret);
    co_await backend.put_release(api.token, "1", {{"linux/amd64", "sha256:a"}});
  }
  // The rollout's id, once the device has its part.
  Task<std::string> deploy() {
    const bj::value made = co_await api.call(
        "POST", "/v1/deployments",
        bj::object{{"release_id", "1"}, {"target", {{"fleet_id", "edge"}}}, {"soak", "0s"}});
    const std::int64_t before = device.desired.version();
    co_await eventually("desired",
                        [&]() -> Task<bool> { co_return device.desired.version() > before; });
    const bj::value now = co_await api.call("GET", "/v1/deployments/" + text(made, "id"));
    co_return text(now, "rollout_id");
  }
  Task<int> set(std::string owner, std::string name, std::string value, bool hidden = false) {
    bj::object body{{"value", value}};
    if (hidden) body["secret"] = true;
    co_await api.call("PUT", owner + "/variables/" + name, std::move(body));
    co_return api.last.status;
  }
  std::string of_device() const { return "/v1/devices/" + device.id; }
  std::string has(const std::string& name) const {
    if (device.desired.services_size() == 0) return "";
    const auto& environment = device.desired.services(0).environment();
    const auto found = environment.find(name);
    return found == environment.end() ? "" : found->second;
  }
  Task<void> until(std::string name, std::string value) {
    co_await eventually(name + " is " + value,
                        [&]() -> Task<bool> { co_return has(name) == value; });
  }
  Task<std::string> device_state(std::string rollout) {
    const bj::value page = co_await api.call("GET", "/v1/rollouts/" + rollout + "/devices");
    co_return text(page.at_pointer("/items/0"), "state");
  }

  Backend backend;
  Api api;
  FakeDevice device;
  std::string org, fleet_id, secret;
  const std::string fleet = "/v1/fleets/edge";
};

class Variables : public SiteTest<Site> {};

// Every row of every table as one text; bytea as hex.
Task<std::string> dump(Backend& backend) {
  const auto tables = co_await backend.db.query(
      postgres::Scope::system(),
      "SELECT string_agg(query_to_xml(format('SELECT t::text FROM %I t', tablename), true, false, "
      "'')::text, '') AS everything FROM pg_tables WHERE schemaname = 'public'");
  co_return tables.rows.at(0).text("everything");
}

TEST_F(Variables, ReachTheDeviceByTheNearestLevel) {
  on_site([](Site& site) -> Task<void> {
    EXPECT_EQ(co_await site.set(site.org, "A", "organization"), 201);
    EXPECT_EQ(co_await site.set(site.org, "B", "organization"), 201);
    EXPECT_EQ(co_await site.set(site.fleet, "B", "fleet"), 201);
    co_await site.deploy();
    EXPECT_EQ(site.has("A"), "organization");
    EXPECT_EQ(site.has("B"), "fleet");
    const std::string release = site.device.desired.release_id(),
                      rollout = site.device.desired.rollout_id();
    const std::int64_t version = site.device.desired.version();
    EXPECT_EQ(co_await site.set(site.of_device(), "B?service=web", "device"), 201);
    co_await site.until("B", "device");
    EXPECT_EQ(site.device.desired.version(), version + 1);
    EXPECT_EQ(site.device.desired.release_id(), release);
    EXPECT_EQ(site.device.desired.rollout_id(), rollout);
    co_await site.api.call("DELETE", site.of_device() + "/variables/B?service=web");
    EXPECT_EQ(site.api.last.status, 204);
    co_await site.until("B", "fleet");
    // What another service has for itself, or what is hidden anyway, changes nothing here.
    const std::int64_t settled = site.device.desired.version();
    co_await site.set(site.of_device(), "C?service=db", "x");
    co_await site.set(site.org, "B", "hidden");
    co_await site.set(site.org, "A", "now");
    co_await site.until("A", "now");
    EXPECT_EQ(site.device.desired.version(), settled + 1);
  });
}

TEST_F(Variables, ShowWhereEachValueComesFrom) {
  on_site([](Site& site) -> Task<void> {
    co_await site.set(site.org, "A", "1");
    co_await site.set(site.fleet, "A", "2", true);
    co_await site.set(site.of_device(), "A", "3");
    bj::value none = co_await site.api.call("GET", site.of_device() + "/environment");
    EXPECT_TRUE(none.at("services").as_array().empty()) << "there is no release yet";
    co_await site.deploy();
    const bj::value shown = co_await site.api.call("GET", site.of_device() + "/environment");
    EXPECT_EQ(shown.at_pointer("/services/0/variables"),
              bj::value(bj::array{bj::object{
                  {"origin", "device"},
                  {"secret", false},
                  {"value", "3"},
                  {"name", "A"},
                  {"overrides", bj::array{bj::object{{"origin", "fleet"}, {"secret", true}},
                                          bj::object{{"origin", "organization"},
                                                     {"secret", false},
                                                     {"value", "1"}}}}}}));
  });
}

TEST_F(Variables, ASecretGoesInAndNeverComesOut) {
  log::set_level(log::Level::kDebug);
  ::testing::internal::CaptureStderr();
  on_site([](Site& site) -> Task<void> {
    EXPECT_EQ(co_await site.set(site.fleet, "TOKEN", kCanary, true), 201);
    EXPECT_EQ(site.api.last.body.find(kCanary), std::string::npos);
    // Also one that is imported, with a key that keeps the answer.
    net::HttpClient http(site.backend.executor, {});
    net::Headers headers;
    headers.add("Authorization", "Bearer " + site.api.token);
    headers.add("Idempotency-Key", "once");
    const bj::object import{
        {"variables",
         bj::array{bj::object{{"name", "IMPORTED"}, {"value", kCanary}, {"secret", true}}}}};
    for (const char* replayed : {"", "true"}) {
      const net::Response answer =
          co_await http.send("POST", site.backend.stack.url(site.org + "/actions/import-variables"),
                             headers, bj::serialize(import));
      EXPECT_EQ(answer.status, 200) << answer.body;
      EXPECT_EQ(answer.headers.get("Idempotent-Replayed").value_or(""), replayed);
      EXPECT_NE(answer.body.find("IMPORTED"), std::string::npos);
      EXPECT_EQ(answer.body.find(kCanary), std::string::npos);
    }
    co_await site.deploy();
    EXPECT_EQ(site.has("TOKEN"), kCanary);
    EXPECT_EQ(site.has("IMPORTED"), kCanary);
    // A change without the word "secret" does not lay it open.
    co_await site.api.call("PUT", site.fleet + "/variables/TOKEN",
                           bj::object{{"value", kCanary + "2"}});
    EXPECT_EQ(json::parse(site.api.last.body).at("secret"), true);
    co_await site.until("TOKEN", kCanary + "2");
    for (const std::string& path :
         {site.fleet + "/variables", site.fleet + "/variables/TOKEN", site.org + "/variables",
          site.of_device() + "/variables", site.of_device() + "/environment", site.of_device(),
          std::string("/v1/devices"), std::string("/v1/rollouts"), std::string("/v1/releases"),
          std::string("/v1/deployments")}) {
      co_await site.api.call("GET", path);
      EXPECT_EQ(site.api.last.status, 200) << path;
      EXPECT_EQ(site.api.last.body.find(kCanary), std::string::npos) << path;
    }
    const std::string everything = co_await dump(site.backend);
    for (const std::string& shown : {std::string("IMPORTED"), to_hex("v1.a.")})
      EXPECT_NE(everything.find(shown), std::string::npos) << "the dump is whole";
    for (const std::string& hidden : {kCanary, to_hex(kCanary)})
      EXPECT_EQ(everything.find(hidden), std::string::npos) << hidden;
    co_await eventually("audited",
                        [&]() -> Task<bool> { co_return site.backend.audited.size() >= 3; });
    bool named = false;
    for (const auto& event : site.backend.audited) {
      EXPECT_EQ(event.SerializeAsString().find(kCanary), std::string::npos) << event.action();
      named = named || (event.action() == "setFleetVariable" && event.resource_name() == "TOKEN");
    }
    EXPECT_TRUE(named);
  });
  const std::string logged = ::testing::internal::GetCapturedStderr();
  log::set_level(log::Level::kInfo);
  EXPECT_NE(logged.find("rollout made"), std::string::npos) << "the log is whole";
  EXPECT_EQ(logged.find(kCanary), std::string::npos) << logged;
}

TEST_F(Variables, AreRefusedWithEveryFaultNamed) {
  on_site([](Site& site) -> Task<void> {
    for (const char* name : {"9A", "FLOCK_ID", "A-B", "A%20B"})
      EXPECT_EQ(co_await site.set(site.fleet, name, "x"), 400) << name;
    EXPECT_EQ(co_await site.set(site.fleet, "A?service=no/such", "x"), 400);
    EXPECT_EQ(co_await site.set(site.fleet, "A?servise=web", "x"), 400);
    EXPECT_EQ(co_await site.set(site.fleet, "A", std::string(32 * 1024 + 1, 'x')), 400);
    EXPECT_EQ(co_await site.set(site.fleet, "A", std::string(32 * 1024, 'x')), 201);
    const bj::value refused = co_await site.api.call(
        "POST", site.fleet + "/actions/import-variables",
        bj::object{{"variables", bj::array{bj::object{{"name", "GOOD"}, {"value", "1"}},
                                           bj::object{{"name", "9"}, {"value", "1"}},
                                           bj::object{{"name", "GOOD"}, {"value", "2"}},
                                           bj::object{{"name", "NONE"}}}}});
    EXPECT_EQ(site.api.last.status, 400);
    std::vector<std::string> pointers;
    for (const bj::value& error : refused.at("errors").as_array())
      pointers.push_back(text(error, "pointer"));
    EXPECT_EQ(pointers, (std::vector<std::string>{"/variables/1/name", "/variables/2/name",
                                                  "/variables/3/value"}));
    const bj::value all = co_await site.api.call("GET", site.fleet + "/variables");
    EXPECT_EQ(all.at("items").as_array().size(), 1u) << "all or nothing";
    // Together they must fit into one message for the device.
    EXPECT_EQ(co_await site.set(site.fleet, "B", std::string(31'000, 'x')), 201);
    EXPECT_EQ(co_await site.set(site.fleet, "C", std::string(31'000, 'x')), 422);
  });
}

TEST_F(Variables, AreChangedOnlyAsTheCallerSawThem) {
  on_site([](Site& site) -> Task<void> {
    net::HttpClient http(site.backend.executor, {});
    const auto put = [&](std::string name, std::string tag, std::string value) -> Task<int> {
      net::Headers headers;
      headers.add("Authorization", "Bearer " + site.api.token);
      headers.add("If-Match", tag);
      const net::Response answer =
          co_await http.send("PUT", site.backend.stack.url(site.fleet + "/variables/" + name),
                             headers, bj::serialize(bj::object{{"value", value}}));
      co_return answer.status;
    };
    co_await site.set(site.fleet, "A", "1");
    co_await site.api.call("GET", site.fleet + "/variables/A");
    const std::string tag(site.api.last.headers.get("ETag").value_or(""));
    EXPECT_EQ(co_await put("A", tag, "2"), 200);
    EXPECT_EQ(co_await put("A", tag, "3"), 412);
    EXPECT_EQ(co_await put("NEW", tag, "3"), 412);
    co_await site.api.call("PUT", site.fleet + "/variables/A?validate_only=true",
                           bj::object{{"value", "4"}});
    EXPECT_EQ(site.api.last.status, 200);
    const bj::value now = co_await site.api.call("GET", site.fleet + "/variables/A");
    EXPECT_EQ(text(now, "value"), "2");
  });
}

TEST_F(Variables, BelongToOneTenantAndToTheFleetsThatOneMaySee) {
  on_site([](Site& site) -> Task<void> {
    const bj::value other_fleet =
        co_await site.api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    co_await site.set(site.org, "ALL", "1");
    co_await site.set(site.fleet, "MINE", "1");
    co_await site.set(site.of_device(), "BOX", "1");
    const Backend& backend = site.backend;
    Api stranger(backend.executor, backend.stack, co_await site.backend.make_tenant("Stranger"));
    for (const std::string& owner : {site.org, "/v1/fleets/" + site.fleet_id, site.of_device()}) {
      for (const char* path : {"/variables", "/variables/ALL"}) {
        co_await stranger.call("GET", owner + path);
        EXPECT_EQ(stranger.last.status, 404) << owner << path;
      }
      co_await stranger.call("PUT", owner + "/variables/ALL", bj::object{{"value", "2"}});
      EXPECT_EQ(stranger.last.status, 404) << owner;
    }
    // Limited to the other fleet: the organization's are seen, not changed; the rest is not there.
    Api outside(backend.executor, backend.stack,
                co_await site.backend.make_key(site.api.token, "developer", {},
                                               std::vector{text(other_fleet, "id")}));
    co_await outside.call("GET", site.org + "/variables/ALL");
    EXPECT_EQ(outside.last.status, 200);
    co_await outside.call("PUT", site.org + "/variables/ALL", bj::object{{"value", "2"}});
    EXPECT_EQ(outside.last.status, 403);
    co_await outside.call("DELETE", site.org + "/variables/ALL");
    EXPECT_EQ(outside.last.status, 403);
    for (const std::string& owner : {site.fleet, site.of_device()}) {
      co_await outside.call("GET", owner + "/variables");
      EXPECT_EQ(outside.last.status, 404) << owner;
    }
    co_await outside.call("PUT", "/v1/fleets/other/variables/MINE", bj::object{{"value", "2"}});
    EXPECT_EQ(outside.last.status, 201);
    Api inside(backend.executor, backend.stack,
               co_await site.backend.make_key(site.api.token, "developer", {},
                                              std::vector{site.fleet_id}));
    co_await inside.call("PUT", site.of_device() + "/variables/BOX", bj::object{{"value", "2"}});
    EXPECT_EQ(inside.last.status, 200);
    // The wall in the database holds without the routes in front of it.
    const OrgId org = OrgId::trusted(site.org.substr(site.org.rfind('/') + 1));
    const auto limited = postgres::Scope::fleets(org, {text(other_fleet, "id")});
    const auto seen = co_await site.backend.db.query(
        limited, "SELECT string_agg(name, ',' ORDER BY name, level) AS names FROM variables");
    EXPECT_EQ(seen.rows.at(0).text("names"), "ALL,MINE");
    const auto gone = co_await site.backend.db.query(
        limited, "DELETE FROM variables WHERE level = 'organization' RETURNING 1 AS gone");
    EXPECT_TRUE(gone.empty());
  });
}

TEST_F(Variables, ThatChangeDuringARolloutDoNotLoseIt) {
  on_site([](Site& site) -> Task<void> {
    co_await site.set(site.fleet, "A", "1");
    const std::string rollout = co_await site.deploy();
    co_await site.device.report(site.device.state(Report::SOAKING));
    co_await eventually("soaking", [&]() -> Task<bool> {
      co_return co_await site.device_state(rollout) == "SOAKING";
    });
    const Report old = site.device.state(Report::CONFIRMED);
    co_await site.set(site.fleet, "A", "2");
    co_await site.until("A", "2");
    co_await eventually("delivered anew", [&]() -> Task<bool> {
      co_return co_await site.device_state(rollout) == "DELIVERED";
    });
    Report late = old;  // it confirms what it was to run before
    late.set_seq(++site.device.seq);
    co_await site.device.report(late);
    co_await site.device.report(site.device.state(Report::STARTING));
    co_await eventually("starting", [&]() -> Task<bool> {
      co_return co_await site.device_state(rollout) == "STARTING";
    });
    co_await site.device.report(site.device.state(Report::CONFIRMED));
    co_await eventually("completed", [&]() -> Task<bool> {
      const bj::value now = co_await site.api.call("GET", "/v1/rollouts/" + rollout);
      co_return text(now, "state") == "COMPLETED";
    });
    const bj::value page = co_await site.api.call("GET", "/v1/rollouts/" + rollout + "/devices");
    EXPECT_EQ(page.at_pointer("/items/0/desired_version"), site.device.desired.version());
  });
}

TEST_F(Variables, FollowADeviceToAnotherFleetAndBackFromItsRemoval) {
  on_site([](Site& site) -> Task<void> {
    const bj::value other =
        co_await site.api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    co_await site.set(site.fleet, "A", "edge");
    co_await site.set("/v1/fleets/other", "A", "other");
    co_await site.deploy();
    EXPECT_EQ(site.has("A"), "edge");
    const auto change = [&](const char* statement, std::string fleet) -> Task<void> {
      co_await site.backend.db.query(postgres::Scope::system(), statement,
                                     postgres::Params().text(site.device.id).text(fleet));
    };
    co_await change("UPDATE devices SET fleet_id = $2 WHERE id = $1", text(other, "id"));
    co_await site.until("A", "other");
    const std::int64_t version = site.device.desired.version();
    co_await site.api.call("DELETE", site.of_device());
    co_await eventually("nothing is retained",
                        [&]() -> Task<bool> { co_return site.device.desired.services().empty(); });
    co_await change(
        "UPDATE devices SET removed_at = NULL, revoked_at = NULL, fleet_id = $2 WHERE id = $1",
        site.fleet_id);
    co_await site.until("A", "edge");
    EXPECT_EQ(site.device.desired.version(), version + 1);
    EXPECT_EQ(site.device.desired.services(0).image(), "registry.example/acme/web@sha256:a");
  });
}

TEST_F(Variables, AreSealedAnewWhenTheKeysRotate) {
  std::string fleet, subscription, first_secret, second_secret;
  on_site([&](Site& site) -> Task<void> {
    co_await site.set(site.fleet, "TOKEN", kCanary, true);
    co_await site.deploy();
    fleet = site.fleet_id;
    const bj::value hook =
        co_await site.api.call("POST", "/v1/event-subscriptions",
                               bj::object{{"name", "ops"},
                                          {"url", "https://hooks.acme.example/"},
                                          {"event_types", bj::array{"rollout.*"}}});
    subscription = text(hook, "id");
    first_secret = text(hook, "secret");
    second_secret = text(co_await site.api.call("POST", "/v1/event-subscriptions/" + subscription +
                                                            "/actions/rotate-secret"),
                         "secret");
  });
  flock::testing::run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *stack);
        backend.sealing = sealing_keys("b");
        co_await backend.start();
        const auto old_ones = [&]() -> Task<std::size_t> {
          const char* first = "00000000-0000-0000-0000-000000000000";
          const auto variables = co_await backend.db.query(
              postgres::Scope::system(), postgres::sql::kVariablesToReseal,
              postgres::Params().text(std::string("v1.b.")).text(std::string(first)));
          const auto desired =
              co_await backend.db.query(postgres::Scope::system(), postgres::sql::kDesiredToReseal,
                                        postgres::Params().bytes("v1.b.").text(std::string(first)));
          const auto hooks = co_await backend.db.query(
              postgres::Scope::system(), postgres::sql::kSubscriptionsToReseal,
              postgres::Params().text(std::string("v1.b.")).text(std::string(first)));
          co_return variables.rows.size() + desired.rows.size() + hooks.rows.size();
        };
        co_await eventually("sealed anew",
                            [&]() -> Task<bool> { co_return co_await old_ones() == 0; });
        // It still opens, and only in its place.
        const auto row = co_await backend.db.query(
            postgres::Scope::system(),
            "SELECT sealed, org_id FROM variables WHERE owner_id = $1 AND name = 'TOKEN'",
            postgres::Params().text(fleet));
        const std::string org = row.rows.at(0).text("org_id"),
                          sealed = row.rows.at(0).text("sealed");
        const std::string place = "org/" + org + "/variable/fleet/" + fleet + "//TOKEN";
        EXPECT_EQ(backend.sealing->open(sealed, place), kCanary);
        EXPECT_THROW(backend.sealing->open(sealed, place + "2"), Error);
        // The older key may go: all of it opens without it.
        const auto alone = sealing_keys("b", true);
        EXPECT_EQ(alone->open(sealed, place), kCanary);
        const auto hook =
            co_await backend.db.query(postgres::Scope::system(),
                                      "SELECT secret, previous_secret FROM event_subscriptions "
                                      "WHERE id = $1",
                                      postgres::Params().text(subscription));
        const std::string at = services::subscription_context(org, subscription);
        EXPECT_EQ(alone->open(hook.rows.at(0).text("secret"), at), second_secret);
        EXPECT_EQ(alone->open(hook.rows.at(0).text("previous_secret"), at), first_secret);
        const auto devices =
            co_await backend.db.query(postgres::Scope::system(),
                                      "SELECT id, desired FROM devices WHERE org_id = $1 AND "
                                      "desired IS NOT NULL",
                                      postgres::Params().text(org));
        EXPECT_EQ(devices.rows.size(), 1u);
        for (const auto& device : devices.rows) {
          const std::string opened =
              services::open_desired(*alone, org, device.text("id"), device.bytes("desired"));
          EXPECT_NE(opened.find(kCanary), std::string::npos);
        }
        co_await backend.stop();
      },
      Duration(60'000));
}

TEST_F(Variables, ARemovedDeviceLeavesNothingAtTheBroker) {
  on_site([this](Site& site) -> Task<void> {
    co_await site.set(site.fleet, "TOKEN", kCanary, true);
    co_await site.deploy();
    const std::string id = site.device.id;
    const auto kept = [&]() -> Task<bool> {
      const auto rows = co_await site.backend.db.query(
          postgres::Scope::system(),
          "SELECT desired IS NOT NULL AS kept FROM devices WHERE id = $1",
          postgres::Params().text(id));
      co_return rows.rows.at(0).boolean("kept");
    };
    EXPECT_TRUE(co_await kept());
    co_await site.api.call("DELETE", site.of_device());
    EXPECT_EQ(site.api.last.status, 204);
    co_await eventually("cleared", [&]() -> Task<bool> { co_return !co_await kept(); });
    // A fresh subscriber is given what the broker retained; the marker shows that it was asked.
    mqtt::Client fresh(site.backend.executor, stack->bus("fresh-" + new_uuid()));
    site.backend.scope.spawn("fresh", fresh.run());
    co_await fresh.wait_connected();
    std::vector<std::string> topics;
    const auto take = [&](mqtt::Delivery delivery) {
      topics.push_back(delivery.message.topic);
      delivery.ack();
    };
    mqtt::Message marker;
    marker.topic = "devices/" + id + "/marker";
    marker.payload = "x";
    marker.retain = true;
    co_await fresh.publish(marker);
    mqtt::Subscription all;
    all.filter = "devices/" + id + "/#";
    co_await fresh.subscribe(all, take);
    co_await eventually("the marker", [&]() -> Task<bool> { co_return !topics.empty(); });
    co_await sleep_for(Duration(200));
    EXPECT_EQ(topics, std::vector<std::string>{marker.topic});
    co_await fresh.disconnect(Duration(1000));
  });
}

}  // namespace
}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// The api, ingester and scheduler targets in one process against real PostgreSQL, Mosquitto and
// Valkey, with a device that speaks the real protocol.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "crypto/jwt.h"
#include "flock/device/v1/device.pb.h"
#include "targets/itest_stack.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

namespace bj = boost::json;
using namespace itest;
using flock::testing::run_task;

TEST(Targets, CarryADeviceFromSetupToAConfirmedRollout) {
  Stack* const stack = Stack::get();
  if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Backend backend(executor, *stack);
        co_await backend.start();
        postgres::Database& db = backend.db;
        TaskScope& scope = backend.scope;
        const crypto::Key& signing = backend.signing;
        Api api(executor, *stack);

        // Setup: once, with the right key only.
        co_await api.call("GET", "/v1/fleets");
        EXPECT_EQ(api.last.status, 401);
        co_await api.call("POST", "/v1/setup",
                          R"({"setup_key":"flks_wrong","organization":"Acme"})");
        EXPECT_EQ(api.last.status, 403);
        const std::string setup = bj::serialize(
            bj::object{{"setup_key", read_secret_file(stack->settings.setup_key_file)},
                       {"organization", "Acme"}});
        const bj::value made = co_await api.call("POST", "/v1/setup", setup);
        EXPECT_EQ(api.last.status, 201);
        co_await api.call("POST", "/v1/setup", setup);
        EXPECT_EQ(api.last.status, 409);
        api.token = text(made.at("api_key"), "secret");

        // Bad input answers with what, where and why.
        const std::tuple<const char*, const char*, std::string, int, const char*> bad[] = {
            {"POST", "/v1/fleets", "{", 400, "not valid JSON"},
            {"POST", "/v1/fleets", R"({"nam":"x"})", 400, "/nam"},
            {"POST", "/v1/fleets", R"({"name":5})", 400, "/name"},
            {"POST", "/v1/fleets", R"({"name":"x","slug":"No Slug"})", 400, "/slug"},
            {"GET", "/v1/fleets?wat=1", "", 400, "wat"},
            {"GET", "/v1/fleets?page_size=x", "", 400, "page_size"},
            {"GET", "/v1/fleets?page_token=!!", "", 400, "page_token"},
            {"GET", "/v1/fleets/nosuch", "", 404, "no such fleet"},
            {"GET", "/v1/rollouts/nosuch", "", 400, "not a valid rollout id"},
            {"DELETE", "/v1/whoami", "", 405, "GET"},
            {"GET", "/v1/nowhere", "", 404, "no such path"},
            {"POST", "/v1/releases", R"({"compose":"services: {a: {build: .}}"})", 400,
             "/services/a/build"},
            {"POST", "/v1/deployments", R"({"release_id":"x","target":{}})", 400, "/target"},
            {"POST", "/v1/deployments",
             R"({"release_id":"x","target":{"fleet_id":"f"},"strategy":{"kind":"sudden"}})", 400,
             "/strategy/kind"},
            {"POST", "/v1/devices/register", "{}", 400, "/provisioning_key"},
            {"POST", "/v1/fleets", std::string(2 << 20, 'x'), 413, "too large"},
        };
        for (const auto& [method, path, body, status, part] : bad) {
          co_await api.call(method, path, body);
          EXPECT_EQ(api.last.status, status)
              << path << " " << body.substr(0, 80) << " " << api.last.body;
          EXPECT_NE(api.last.body.find(part), std::string::npos) << path << " " << api.last.body;
          EXPECT_EQ(api.last.headers.get("Content-Type"), "application/problem+json") << path;
        }

        // Provisioning: idempotent by the device's key, limited by the provisioning key.
        co_await api.call("POST", "/v1/fleets", R"({"name":"Edge"})");
        const bj::value key = co_await api.call("POST", "/v1/provisioning-keys",
                                                R"({"fleet_id":"edge","max_uses":1})");
        const std::string secret = text(key, "secret");
        const crypto::Key device_key = crypto::Key::generate(crypto::Key::Kind::kP256),
                          other_key = crypto::Key::generate(crypto::Key::Kind::kP256);
        co_await api.call(
            "POST", "/v1/devices/register",
            registration(secret, device_key,
                         crypto::sign_jwt(other_key, assertion_claims(device_key.thumbprint()))));
        EXPECT_EQ(api.last.status, 401);
        co_await api.call("POST", "/v1/devices/register", registration("flp_unknown", device_key));
        EXPECT_EQ(api.last.status, 403);
        const bj::value device =
            co_await api.call("POST", "/v1/devices/register", registration(secret, device_key));
        EXPECT_EQ(api.last.status, 201);
        const bj::value again =
            co_await api.call("POST", "/v1/devices/register", registration(secret, device_key));
        EXPECT_EQ(api.last.status, 200);
        const std::string id = text(device, "device_id");
        EXPECT_EQ(text(again, "device_id"), id);
        co_await api.call("POST", "/v1/devices/register", registration(secret, other_key));
        EXPECT_EQ(api.last.status, 403);
        EXPECT_NE(api.last.body.find("used_up"), std::string::npos);
        EXPECT_EQ(text(crypto::verify_jwt(text(device, "token"), signing, {}, system_clock().now()),
                       "sub"),
                  id);

        // A release (put in past the registry, which is away here) and its rollout.
        const bj::value who = co_await api.call("GET", "/v1/whoami");
        const std::string org = text(who.at("organization"), "id");
        const std::string workload =
            R"({"services":[{"name":"web","image":"r.example/web:1","repository":"r.example/web","digests":{"linux/amd64":"sha256:d"}}]})";
        co_await db.query(postgres::Scope::system(),
                          "INSERT INTO releases(id, org_id, version, compose, workload, digest) "
                          "VALUES ($1, $2, '1', 'x', $3, 'x')",
                          postgres::Params().text(new_uuid()).text(org).text(workload));
        mqtt::Client link(executor, stack->bus(id));
        scope.spawn("device", link.run());
        co_await link.wait_connected();
        device::v1::DesiredState desired;
        Event got_desired(executor);
        mqtt::Subscription subscription;
        subscription.filter = "devices/" + id + "/desired";
        co_await link.subscribe(subscription, [&](mqtt::Delivery delivery) {
          desired.ParseFromString(delivery.message.payload);
          delivery.ack();
          got_desired.set();
        });
        const bj::value deployment =
            co_await api.call("POST", "/v1/deployments",
                              R"({"release_id":"1","target":{"fleet_id":"edge"},"soak":"0s"})");
        EXPECT_EQ(api.last.status, 201) << api.last.body;
        co_await got_desired.wait();
        EXPECT_EQ(desired.version(), 1);
        EXPECT_EQ(desired.services(0).image(), "r.example/web@sha256:d");

        std::int64_t seq = to_unix_ms(system_clock().now());
        const auto report = [&](device::v1::ReportedState::Phase phase, const std::string& digest,
                                std::int64_t number) -> Task<void> {
          device::v1::ReportedState state;
          state.set_seq(number);
          state.set_desired_version(1);
          state.set_phase(phase);
          auto* service = state.add_services();
          service->set_name("web");
          service->set_image_digest(digest);
          service->set_state(device::v1::ServiceState::RUNNING);
          service->set_health(device::v1::ServiceState::NO_CHECK);
          mqtt::Message message;
          message.topic = "devices/" + id + "/state";
          message.payload = state.SerializeAsString();
          co_await link.publish(std::move(message));
        };
        const auto rollout_state = [&]() -> Task<std::string> {
          const bj::value rollouts = co_await api.call("GET", "/v1/rollouts");
          const bj::value& rollout = rollouts.at("items").as_array().at(0);
          co_return text(rollout, "state") + " " +
              std::to_string(rollout.at("counts").at("confirmed").to_number<int>());
        };
        co_await report(device::v1::ReportedState::CONFIRMED, "sha256:other",
                        ++seq);  // a claim without proof
        co_await sleep_for(Duration(300));
        EXPECT_EQ(co_await rollout_state(), "RUNNING 0");
        mqtt::Message garbage;
        garbage.topic = "devices/" + id + "/state";
        garbage.payload = "\xff\xff";
        co_await link.publish(std::move(garbage));
        co_await report(device::v1::ReportedState::CONFIRMED, "sha256:d", ++seq);
        co_await report(device::v1::ReportedState::STARTING, "sha256:d",
                        seq - 5);  // late and out of order
        std::string state;
        for (int i = 0; i < 100 && !state.starts_with("COMPLETED"); ++i) {
          co_await sleep_for(Duration(50));
          state = co_await rollout_state();
        }
        EXPECT_EQ(state, "COMPLETED 1");
        const bj::value devices = co_await api.call("GET", "/v1/devices");
        EXPECT_EQ(text(devices.at("items").as_array().at(0), "state"), "ONLINE");

        // Revoked: no more tokens.
        co_await api.call("POST", "/v1/devices/" + id + "/actions/revoke");
        EXPECT_EQ(api.last.status, 200) << api.last.body;
        co_await api.call("POST", "/v1/devices/register", registration(secret, device_key));
        EXPECT_EQ(api.last.status, 403);

        co_await backend.stop();
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::targets

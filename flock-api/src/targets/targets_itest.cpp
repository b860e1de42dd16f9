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
#include "net/http_client.h"
#include "targets/target.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::targets {
namespace {

namespace bj = boost::json;
using flock::testing::run_task;

// The servers, shared by the tests of this program.
struct Stack {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  flock::testing::TempDir dir;
  int api_port = flock::testing::free_port();
  Settings settings;

  Stack() {
    postgres.start();
    mosquitto.start();
    valkey.start();
    settings.public_url = url("");
    settings.api_listen = "127.0.0.1:" + std::to_string(api_port);
    settings.setup_key_file = dir.file("setup");
    settings.mqtt_url = mosquitto.url();
    settings.registry_url = "http://127.0.0.1:1";
    settings.registry_hosts = {"registry.example"};
  }
  std::string url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(api_port) + path;
  }
};

mqtt::ClientOptions bus_options(const Stack& stack, const std::string& id) {
  mqtt::ClientOptions options;
  options.url = stack.mosquitto.url();
  options.client_id = id;
  options.backoff_first = options.backoff_max = Duration(50);
  return options;
}

class Targets : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (flock::testing::require({"postgres", "initdb", "psql", "mosquitto", "redis-server"}))
      stack = std::make_unique<Stack>();
  }
  static void TearDownTestSuite() { stack.reset(); }
  void SetUp() override {
    if (!stack) GTEST_SKIP() << "the servers are not installed";
  }
  static std::unique_ptr<Stack> stack;
};
std::unique_ptr<Stack> Targets::stack;

// A client of the API; `status` of the last answer.
class Api {
 public:
  Api(Executor executor, const Stack& stack) : http_(executor, {}), stack_(stack) {}
  Task<bj::value> call(std::string method, std::string path, std::string body = "") {
    net::Headers headers;
    if (!token.empty()) headers.add("Authorization", "Bearer " + token);
    last = co_await http_.send(method, stack_.url(path), headers, body);
    if (last.body.empty()) co_return nullptr;
    co_return json::parse(last.body);
  }
  std::string token;
  net::Response last;

 private:
  net::HttpClient http_;
  const Stack& stack_;
};

std::string text(const bj::value& value, const char* key) {
  return std::string(value.at(key).as_string());
}

std::string registration(const std::string& key, const crypto::Key& device,
                         const crypto::Key& signer) {
  const std::int64_t now = to_unix_ms(system_clock().now()) / 1000;
  const std::string id = device.thumbprint();
  return bj::serialize(bj::object{
      {"provisioning_key", key},
      {"device_public_key", device.public_pem()},
      {"hardware", {{"architecture", "amd64"}, {"hostname", "box"}}},
      {"assertion",
       crypto::sign_jwt(
           signer,
           {{"iss", id}, {"sub", id}, {"aud", "flock-api"}, {"iat", now}, {"exp", now + 60}})}});
}

TEST_F(Targets, CarryADeviceFromSetupToAConfirmedRollout) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        postgres::Options db_options;
        db_options.url = stack->postgres.url();
        db_options.password = Secret(read_secret_file(stack->postgres.password_file()));
        postgres::Database db(executor, db_options);
        co_await db.migrate();
        const auto live = stores::make_valkey_live_state(executor, stack->valkey.address(), "");
        mqtt::Client bus(executor, bus_options(*stack, "backend"));
        TaskScope scope(executor);
        scope.spawn("bus", bus.run());
        co_await bus.wait_connected();
        const crypto::Key signing = crypto::Key::generate(crypto::Key::Kind::kP256);
        const auto parts = [&] {
          return Parts{executor, stack->settings, db, *live, bus, signing};
        };
        std::vector<std::unique_ptr<Target>> targets;
        targets.push_back(make_api_target(parts()));
        targets.push_back(make_ingester_target(parts()));
        targets.push_back(make_scheduler_target(parts()));
        for (const auto& target : targets) co_await target->start();
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
            {"POST", "/v1/releases",
             R"({"compose":"services: {a: {image: \"registry.example/a/b:1\"}}"})", 503,
             "registry"},
            {"POST", "/v1/deployments", R"({"release_id":"x","target":{}})", 400, "/target"},
            {"POST", "/v1/deployments",
             R"({"release_id":"x","target":{"fleet_id":"f"},"strategy":{"kind":"canary"}})", 400,
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
        co_await api.call("POST", "/v1/devices/register",
                          registration(secret, device_key, other_key));
        EXPECT_EQ(api.last.status, 401);
        co_await api.call("POST", "/v1/devices/register",
                          registration("flp_unknown", device_key, device_key));
        EXPECT_EQ(api.last.status, 403);
        const bj::value device = co_await api.call("POST", "/v1/devices/register",
                                                   registration(secret, device_key, device_key));
        EXPECT_EQ(api.last.status, 201);
        const bj::value again = co_await api.call("POST", "/v1/devices/register",
                                                  registration(secret, device_key, device_key));
        EXPECT_EQ(api.last.status, 200);
        const std::string id = text(device, "device_id");
        EXPECT_EQ(text(again, "device_id"), id);
        co_await api.call("POST", "/v1/devices/register",
                          registration(secret, other_key, other_key));
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
        mqtt::Client link(executor, bus_options(*stack, id));
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
        co_await api.call("POST", "/v1/devices/register",
                          registration(secret, device_key, device_key));
        EXPECT_EQ(api.last.status, 403);

        for (const auto& target : targets) co_await target->drain();
        for (const auto& target : targets) co_await target->stop();
        scope.cancel();
        co_await scope.join();
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::targets

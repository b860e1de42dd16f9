// SPDX-License-Identifier: Apache-2.0
// Bad input, bad credentials and foreign tenants against the real api target: each is refused with
// a clear problem, and nothing is half-made.
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/json.h"
#include "crypto/jwt.h"
#include "services/credentials.h"
#include "targets/api_itest.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;
using flock::testing::run_task;

using BadInput = ApiTest;
using Identity = ApiTest;
using Tenants = ApiTest;

std::string compose_body(const std::string& compose) {
  return bj::serialize(bj::object{{"compose", compose}});
}

TEST_F(BadInput, IsNamedByItsPlace) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    const std::string key = "/v1/provisioning-keys", id = new_uuid();
    const std::string deep = std::string(2000, '[') + std::string(2000, ']');
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    std::vector<Case> cases;
    cases.push_back({"POST", "/v1/fleets", deep, 413, "nested too deeply"});
    cases.push_back({"POST", "/v1/fleets", std::string(10 << 20, 'x'), 413, "too large"});
    cases.push_back({"POST", "/v1/fleets", "{\"name\":\"\xff\xfe\"}", 400, "not valid JSON"});
    cases.push_back({"POST", "/v1/fleets", R"({"name":"a\u0000b"})", 400, "/name"});
    cases.push_back({"POST", "/v1/fleets", R"({"name":"x","colour":"red"})", 400, "/colour"});
    cases.push_back({"POST", "/v1/fleets", R"({"name":"Edge"})", 409, "already"});
    cases.push_back({"GET", "/v1/fleets/%ff", "", 400, "UTF-8"});
    cases.push_back({"GET", "/v1/fleets/edge%00x", "", 400, "NUL"});
    cases.push_back({"GET", "/v1/devices?fleet_id=%ff", "", 400, "UTF-8"});
    cases.push_back({"GET", "/v1/devices?fleet_id=a%00b", "", 400, "NUL"});
    cases.push_back({"GET", "/v1/devices?state=ASLEEP", "", 400, "ONLINE, OFFLINE"});
    cases.push_back(
        {"GET", "/v1/fleets?page_token=" + to_base64url("\xff"), "", 400, "page_token"});
    cases.push_back(
        {"POST", key, R"({"fleet_id":"edge","expires_in":"soon"})", 400, "/expires_in"});
    cases.push_back(
        {"POST", key, R"({"fleet_id":"edge","expires_in":"90000000000d"})", 400, "/expires_in"});
    cases.push_back({"POST", key, R"({"fleet_id":"edge","max_uses":0})", 400, "/max_uses"});
    cases.push_back({"DELETE", key + "/" + id, "", 404, "no such provisioning key"});
    cases.push_back({"POST", "/v1/releases", compose_body("services: [1"), 400, "YAML"});
    cases.push_back({"POST", "/v1/releases", compose_body("services: {}"), 400, "/services"});
    cases.push_back(
        {"POST", "/v1/releases",
         bj::serialize(bj::object{{"compose", "services: {a: {image: x}}"}, {"version", id}}), 400,
         "/version"});
    cases.push_back(
        {"POST", "/v1/deployments",
         R"({"release_id":"1","target":{"device_ids":["nonsense-nonsense-nonsense-nonsense-"]}})",
         400, "/target/device_ids/0"});
    cases.push_back({"POST", "/v1/deployments",
                     R"({"release_id":"1","target":{"fleet_id":"edge"},"soak":"400d"})", 400,
                     "/soak"});
    cases.push_back({"POST", "/v1/deployments",
                     R"({"release_id":"nosuch","target":{"fleet_id":"edge"}})", 404,
                     "no such release"});
    co_await refuse(api, std::move(cases));
    const bj::value fleets = co_await api.call("GET", "/v1/fleets");
    EXPECT_EQ(fleets.at("items").as_array().size(), 1u);
    // A device that is named twice is still one device.
    co_await backend.put_release(api.token, "1", {{"linux/amd64", "sha256:a"}});
    const bj::value made =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    FakeDevice device(backend);
    co_await device.join(api, text(made, "secret"));
    co_await api.call(
        "POST", "/v1/deployments",
        bj::object{
            {"release_id", "1"},
            {"target", {{"device_ids", bj::array{bj::value(device.id), bj::value(device.id)}}}}});
    EXPECT_EQ(api.last.status, 201) << api.last.body;
  });
}

TEST_F(BadInput, NoReleaseIsMadeOfWhatCannotBeHad) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    const std::string unknown = compose_body(
        "services: {a: {image: 'registry.example/no/such:1'}, b: {image: "
        "'registry.example/none:2'}}");
    co_await api.call("POST", "/v1/releases", unknown);
    EXPECT_EQ(api.last.status, 422) << api.last.body;
    for (const char* part : {"/services/a/image", "/services/b/image", "no such image"})
      EXPECT_NE(api.last.body.find(part), std::string::npos) << api.last.body;
    stack->stop_registry();
    co_await api.call("POST", "/v1/releases", unknown);
    EXPECT_EQ(api.last.status, 503);
    EXPECT_NE(api.last.body.find("cannot reach the registry"), std::string::npos) << api.last.body;
    EXPECT_TRUE(api.last.headers.get("Retry-After"));
    stack->start_registry();
    const bj::value releases = co_await api.call("GET", "/v1/releases");
    EXPECT_TRUE(releases.at("items").as_array().empty());
    co_await push_image(backend.executor, stack->registry_host(), "late", "1", {"amd64"});
    std::string bomb = "x-big: &big " + std::string(30'000, 'b') +
                       "\nservices:\n  a:\n    image: registry.example/late:1\n    environment:\n";
    for (int i = 0; i < 20; ++i) bomb += "      V" + std::to_string(i) + ": *big\n";
    co_await api.call("POST", "/v1/releases", compose_body(bomb));
    EXPECT_EQ(api.last.status, 413) << api.last.status << api.last.body.substr(0, 300);
    // Releases made at the same time, none naming its version: each gets a number of its own.
    std::set<std::string> versions;
    TaskScope scope(backend.executor);
    const auto make = [&]() -> Task<void> {
      Api own(backend.executor, *stack, api.token);
      const bj::value made =
          co_await own.call("POST", "/v1/releases",
                            compose_body("services: {a: {image: 'registry.example/late:1'}}"));
      EXPECT_EQ(own.last.status, 201) << own.last.body;
      if (own.last.status == 201) versions.insert(text(made, "version"));
    };
    for (int i = 0; i < 6; ++i) scope.spawn("release", make());
    co_await scope.join();
    EXPECT_EQ(versions.size(), 6u);
  });
}

TEST_F(BadInput, AStoreThatIsAwayIsAClearProblem) {
  with_api([this](Backend&, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    const crypto::Key device = crypto::Key::generate(crypto::Key::Kind::kP256);
    co_await api.call("POST", "/v1/devices/register", registration(text(key, "secret"), device));
    const auto refused = [&](const char* path, const char* part) -> Task<void> {
      co_await api.call("GET", path);
      EXPECT_EQ(api.last.status, 503) << api.last.body;
      EXPECT_NE(api.last.body.find(part), std::string::npos) << api.last.body;
      // Where our servers stand and who we are there is nobody's business.
      for (const char* secret : {"127.0.0.1", "port ", "sqlstate", "password"})
        EXPECT_EQ(api.last.body.find(secret), std::string::npos) << api.last.body;
    };
    stack->stop_valkey();
    co_await refused("/v1/devices", "live state");
    co_await api.call("GET", "/v1/fleets");  // needs no live state
    EXPECT_EQ(api.last.status, 200);
    stack->start_valkey();
    stack->stop_postgres();
    for (int i = 0; i < 3; ++i) co_await refused("/v1/fleets", "database");
    stack->start_postgres();
    co_await eventually("the API is back", [&]() -> Task<bool> {
      co_await api.call("GET", "/v1/fleets");
      co_return api.last.status == 200;
    });
  });
}

TEST_F(Identity, ProvisioningKeysThatMayNotAdmitAreToldApart) {
  with_api([](Backend&, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const auto make = [&](bj::object extra) -> Task<bj::value> {
      extra["fleet_id"] = "edge";
      co_return co_await api.call("POST", "/v1/provisioning-keys", extra);
    };
    const auto join = [&](std::string secret) -> Task<std::string> {
      co_await api.call("POST", "/v1/devices/register",
                        registration(secret, crypto::Key::generate(crypto::Key::Kind::kP256)));
      co_return std::to_string(api.last.status) + " " +
          (api.last.status == 403 ? text(json::parse(api.last.body), "detail") : "");
    };
    const bj::value expired = co_await make({{"expires_in", "1ms"}});
    const bj::value revoked = co_await make({}), once = co_await make({{"max_uses", 1}});
    co_await api.call("DELETE", "/v1/provisioning-keys/" + text(revoked, "id"));
    EXPECT_EQ((co_await join(text(expired, "secret"))).substr(0, 28),
              "403 provisioning_key_expired");
    EXPECT_EQ((co_await join(text(revoked, "secret"))).substr(0, 28),
              "403 provisioning_key_revoked");
    EXPECT_EQ(co_await join(text(once, "secret")), "201 ");
    EXPECT_EQ((co_await join(text(once, "secret"))).substr(0, 28), "403 provisioning_key_used_up");
    EXPECT_EQ((co_await join("flp_x")).substr(0, 28), "403 provisioning_key_unknown");
    const bj::value devices = co_await api.call("GET", "/v1/devices");
    EXPECT_EQ(devices.at("items").as_array().size(), 1u);
  });
}

std::string unsigned_token(const bj::object& claims) {
  return to_base64url(R"({"alg":"none","typ":"JWT"})") + "." + to_base64url(bj::serialize(claims)) +
         ".";
}

TEST_F(Identity, OnlyTheDevicesOwnFreshAssertionCounts) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    FakeDevice mine(backend), other(backend);
    co_await mine.join(api, text(key, "secret"));
    co_await other.join(api, text(key, "secret"));
    Api anyone(backend.executor, backend.stack);
    const auto with = [&](const char* name, bj::value value) {
      bj::object claims = assertion_claims(mine.id);
      claims[name] = std::move(value);
      return crypto::sign_jwt(mine.key, claims);
    };
    const std::int64_t now = to_unix_ms(system_clock().now()) / 1000;
    bj::object no_expiry = assertion_claims(mine.id);
    no_expiry.erase("exp");
    const std::pair<std::string, const char*> refused[] = {
        {unsigned_token(assertion_claims(mine.id)), "wrong algorithm"},
        {crypto::sign_jwt(other.key, assertion_claims(mine.id)), "bad signature"},
        {crypto::sign_jwt(other.key, assertion_claims(other.id)), "bad signature"},
        {crypto::sign_jwt(mine.key, no_expiry), "no expiry"},
        {with("exp", now - 60), "expired"},
        {with("iat", now - 600), "too old"},
        {with("iat", now + 600), "issued in the future"},
        {with("aud", "flock-device"), "wrong audience"},
        {with("iss", bj::value(other.id)), "wrong issuer"},
        {with("sub", bj::value(other.id)), "wrong subject"},
        {mine.device_token, "bad signature"},
        {"nonsense", "malformed"},
    };
    for (const auto& [assertion, why] : refused) {
      co_await anyone.call("POST", "/v1/devices/token",
                           bj::object{{"device_id", mine.id}, {"assertion", assertion}});
      EXPECT_EQ(anyone.last.status, 401) << why << " " << anyone.last.body;
      EXPECT_NE(anyone.last.body.find(why), std::string::npos) << why << " " << anyone.last.body;
      EXPECT_EQ(anyone.last.body.find(assertion), std::string::npos) << "the token was repeated";
    }
    co_await anyone.call("POST", "/v1/devices/token",
                         bj::object{{"device_id", new_uuid()}, {"assertion", with("x", 1)}});
    EXPECT_EQ(anyone.last.status, 401);
    co_await anyone.call("POST", "/v1/devices/register", [&] {
      bj::object body = registration(text(key, "secret"), mine.key);
      body["device_public_key"] = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
      return body;
    }());
    EXPECT_EQ(anyone.last.status, 400) << anyone.last.body;
  });
}

TEST_F(Identity, TheRegistryEndpointGivesADeviceOnlyWhatItsReleaseNames) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    FakeDevice device(backend), other(backend);
    co_await device.join(api, text(key, "secret"));
    co_await other.join(api, text(key, "secret"));
    co_await backend.put_release(api.token, "1", {{"linux/amd64", "sha256:a"}});
    co_await api.call("POST", "/v1/deployments",
                      bj::object{{"release_id", "1"},
                                 {"target", {{"device_ids", bj::array{bj::value(device.id)}}}}});
    co_await eventually("desired state",
                        [&]() -> Task<bool> { co_return device.desired.version() == 1; });
    Api docker(backend.executor, backend.stack);
    const auto access = [&](std::string basic, std::string scope) -> Task<std::string> {
      docker.basic = basic;
      const bj::value answer =
          co_await docker.call("GET", "/v1/registry/token?service=flock-registry&scope=" + scope);
      if (docker.last.status != 200) co_return std::to_string(docker.last.status);
      const bj::object claims =
          crypto::verify_jwt(text(answer, "token"), backend.signing, {}, system_clock().now());
      co_return bj::serialize(claims.at("access"));
    };
    const std::string mine = device.id + ":" + device.device_token,
                      web = "repository:acme/web:pull,push";
    EXPECT_EQ(co_await access(mine, web),
              R"([{"type":"repository","name":"acme/web","actions":["pull"]}])");
    EXPECT_EQ(co_await access(mine, "repository:acme/other:pull"), "[]");
    EXPECT_EQ(co_await access(other.id + ":" + other.device_token, web), "[]");
    EXPECT_EQ(co_await access(other.id + ":" + device.device_token, web), "401");
    const auto identity = [&] {
      services::DeviceIdentity out;
      out.device = DeviceId::parse(device.id);
      out.org = OrgId::fresh();
      out.fleet = FleetId::fresh();
      return out;
    }();
    const std::string issuer = backend.stack.settings.public_url;
    const auto foreign = services::DeviceTokens(crypto::Key::generate(crypto::Key::Kind::kP256),
                                                issuer, Duration(60'000))
                             .issue(identity, system_clock().now());
    const auto old = services::DeviceTokens(backend.signing, issuer, Duration(1000))
                         .issue(identity, system_clock().now() - Duration(3'600'000));
    EXPECT_EQ(co_await access(device.id + ":" + foreign.text, web), "401");
    EXPECT_EQ(co_await access(device.id + ":" + old.text, web), "401");
    EXPECT_EQ(
        co_await access(
            device.id + ":" + unsigned_token({{"sub", device.id}, {"aud", "flock-device"}}), web),
        "401");
    EXPECT_EQ(co_await access("flock:flk_wrong", web), "401");
    // Another registry's image of the same path is no reason to pull ours.
    co_await backend.db.query(postgres::Scope::system(),
                              "UPDATE releases SET workload = replace(workload, "
                              "'registry.example/', 'elsewhere.example/') WHERE version = '1'");
    EXPECT_EQ(co_await access(mine, web), "[]");
    co_await api.call("POST", "/v1/devices/" + device.id + "/actions/revoke");
    EXPECT_EQ(co_await access(mine, web), "[]");
  });
}

TEST_F(Identity, OneKeyIsOneDeviceHoweverOftenItAsks) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value once = co_await api.call("POST", "/v1/provisioning-keys",
                                             bj::object{{"fleet_id", "edge"}, {"max_uses", 1}});
    const crypto::Key device = crypto::Key::generate(crypto::Key::Kind::kP256);
    // All at once: the answer of the first was lost and the device is impatient.
    std::multiset<int> statuses;
    std::set<std::string> ids;
    TaskScope scope(backend.executor);
    const auto ask = [&]() -> Task<void> {
      Api own(backend.executor, *stack);
      const bj::value answer = co_await own.call("POST", "/v1/devices/register",
                                                 registration(text(once, "secret"), device));
      statuses.insert(own.last.status);
      if (own.last.status < 300)
        ids.insert(text(answer, "device_id"));
      else
        ADD_FAILURE() << own.last.body;
    };
    for (int i = 0; i < 6; ++i) scope.spawn("register", ask());
    co_await scope.join();
    EXPECT_EQ(ids.size(), 1u);
    EXPECT_EQ(statuses.count(201), 1u);
    EXPECT_EQ(statuses.count(200), 5u);
    // Later too, whatever became of the key.
    co_await api.call("DELETE", "/v1/provisioning-keys/" + text(once, "id"));
    co_await api.call("POST", "/v1/devices/register", registration(text(once, "secret"), device));
    EXPECT_EQ(api.last.status, 200);
    const bj::value keys = co_await api.call("GET", "/v1/provisioning-keys");
    EXPECT_EQ(keys.at_pointer("/items/0/uses").as_int64(), 1);

    // Revoked stays out; removed by an administrator, it may come in again as a new device.
    const std::string id = *ids.begin();
    const bj::value fresh =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    co_await api.call("POST", "/v1/devices/" + id + "/actions/revoke");
    co_await api.call("POST", "/v1/devices/register", registration(text(fresh, "secret"), device));
    EXPECT_EQ(api.last.status, 403);
    EXPECT_NE(api.last.body.find("device_revoked"), std::string::npos);
    co_await api.call("DELETE", "/v1/devices/" + id);
    const bj::value again = co_await api.call("POST", "/v1/devices/register",
                                              registration(text(fresh, "secret"), device));
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    if (api.last.status == 201) EXPECT_NE(text(again, "device_id"), id);
  });
}

TEST_F(Tenants, DoNotSeeOrTouchEachOther) {
  with_api([this](Backend& backend, Api& mine) -> Task<void> {
    Api theirs(backend.executor, *stack, co_await backend.make_tenant("Other"));
    co_await theirs.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    co_await mine.call("POST", "/v1/fleets", bj::object{{"name", "Mine"}});
    const bj::value fleet = co_await theirs.call("GET", "/v1/fleets/edge");
    const bj::value key =
        co_await theirs.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    FakeDevice device(backend);
    co_await device.join(theirs, text(key, "secret"));
    const std::string release =
        co_await backend.put_release(theirs.token, "1", {{"linux/amd64", "sha256:a"}});
    const bj::value deployment =
        co_await theirs.call("POST", "/v1/deployments",
                             bj::object{{"release_id", "1"}, {"target", {{"fleet_id", "edge"}}}});
    std::string rollout;
    co_await eventually("the rollout", [&]() -> Task<bool> {
      const bj::value page = co_await theirs.call("GET", "/v1/rollouts");
      if (page.at("items").as_array().empty()) co_return false;
      rollout = text(page.at("items").as_array().at(0), "id");
      co_return true;
    });
    co_await backend.put_release(mine.token, "2", {{"linux/amd64", "sha256:b"}});
    const std::string rename = R"({"name":"x"})", fleet_id = text(fleet, "id");
    const std::string to_theirs = R"({"release_id":"2","target":{"fleet_id":")" + fleet_id + "\"}}";
    const std::string to_device =
        R"({"release_id":"2","target":{"device_ids":[")" + device.id + "\"]}}";
    const std::string of_theirs =
        R"({"release_id":")" + release + R"(","target":{"fleet_id":"mine"}})";
    std::vector<Case> cases{
        {"GET", "/v1/fleets/" + fleet_id, "", 404, "no such fleet"},
        {"GET", "/v1/fleets/edge", "", 404, "no such fleet"},
        {"PATCH", "/v1/fleets/" + fleet_id, rename, 404, "no such fleet"},
        {"DELETE", "/v1/fleets/" + fleet_id, "", 404, "no such fleet"},
        {"POST", "/v1/provisioning-keys", R"({"fleet_id":")" + fleet_id + "\"}", 404,
         "no such fleet"},
        {"DELETE", "/v1/provisioning-keys/" + text(key, "id"), "", 404, "no such provisioning key"},
        {"GET", "/v1/devices/" + device.id, "", 404, "no such device"},
        {"GET", "/v1/devices/box", "", 404, "no such device"},
        {"PATCH", "/v1/devices/" + device.id, rename, 404, "no such device"},
        {"POST", "/v1/devices/" + device.id + "/actions/revoke", "", 404, "no such device"},
        {"DELETE", "/v1/devices/" + device.id, "", 404, "no such device"},
        {"GET", "/v1/releases/" + release, "", 404, "no such release"},
        {"GET", "/v1/releases/1", "", 404, "no such release"},
        {"POST", "/v1/deployments", to_theirs, 404, "no such fleet"},
        {"POST", "/v1/deployments", to_device, 404, "not every device"},
        {"POST", "/v1/deployments", of_theirs, 404, "no such release"},
        {"GET", "/v1/deployments/" + text(deployment, "id"), "", 404, "no such deployment"},
        {"GET", "/v1/rollouts/" + rollout, "", 404, "no such rollout"},
        {"GET", "/v1/rollouts/" + rollout + "/devices", "", 404, "no such rollout"},
        {"GET", "/v1/rollouts/" + rollout + "/events", "", 404, "no such rollout"},
    };
    co_await refuse(mine, std::move(cases));
    for (const char* list :
         {"fleets", "provisioning-keys", "devices", "releases", "deployments", "rollouts"}) {
      const bj::value page = co_await mine.call("GET", std::string("/v1/") + list);
      EXPECT_EQ(bj::serialize(page).find(fleet_id), std::string::npos) << list;
      EXPECT_LE(page.at("items").as_array().size(), 1u) << list;
    }
    // A name that looks like another device's id does not hide that device from its owner.
    FakeDevice second(backend);
    co_await second.join(theirs, text(key, "secret"));
    co_await theirs.call("PATCH", "/v1/devices/" + second.id, bj::object{{"name", device.id}});
    const bj::value found = co_await theirs.call("GET", "/v1/devices/" + device.id);
    EXPECT_EQ(text(found, "id"), device.id);
  });
}

}  // namespace
}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
// How devices come in over the real servers: networks, the waiting room, devices known beforehand,
// and the audit log without which nobody comes in.
#include <map>

#include "async/scope.h"
#include "base/json.h"
#include "crypto/jwt.h"
#include "net/http_client.h"
#include "targets/api_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using Names = std::vector<std::string>;

class Provisioning : public ApiTest {
 public:
  static crypto::Key fresh() { return crypto::Key::generate(crypto::Key::Kind::kP256); }
  static Task<bj::value> make_key(Api& api, bj::object extra) {
    if (!extra.contains("fleet_id")) extra["fleet_id"] = "edge";
    bj::value key = co_await api.call("POST", "/v1/provisioning-keys", extra);
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    co_return key;
  }
  // Stack::get() would start a broker again that a test stopped.
  // Status and, of a refusal, the word its detail begins with.
  static Task<std::string> join(Api& api, std::string secret, const crypto::Key& device,
                                std::string forwarded = "") {
    net::HttpClient http(co_await asio::this_coro::executor, {});
    net::Headers headers;
    if (!forwarded.empty()) headers.add("X-Forwarded-For", forwarded);
    api.last = co_await http.send("POST", the_stack->url("/v1/devices/register"), headers,
                                  bj::serialize(registration(secret, device)));
    std::string out = std::to_string(api.last.status);
    if (api.last.status >= 400) {
      const std::string detail = text(json::parse(api.last.body), "detail");
      out += " " + detail.substr(0, detail.find(':'));
    }
    co_return out;
  }

 protected:
  void SetUp() override {
    ApiTest::SetUp();
    the_stack = stack;
  }
  static inline Stack* the_stack = nullptr;
  static Task<std::size_t> devices(Api& api) {
    const bj::value page = co_await api.call("GET", "/v1/devices");
    co_return page.at("items").as_array().size();
  }
  static Names actions(Backend& backend) {
    Names out;
    for (const auto& event : backend.audited) out.push_back(event.action());
    return out;
  }
};

TEST_F(Provisioning, ADeviceComesInWithATraceOrNotAtAll) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(api, {{"name", "line 2"}});
    co_await backend.heard();
    backend.audited.clear();
    const crypto::Key device = fresh();
    EXPECT_EQ(co_await join(api, text(key, "secret"), device), "201");
    EXPECT_EQ(co_await join(api, text(key, "secret"), device), "200");
    co_await backend.heard();
    EXPECT_EQ(backend.audited.size(), 1u) << "asking again changes nothing";
    const auto& event = backend.audited.front();
    EXPECT_EQ(event.actor_kind(), internal::v1::AuditEvent::DEVICE);
    EXPECT_EQ(event.action(), "registerDevice");
    EXPECT_EQ(event.resource_id(), text(json::parse(api.last.body), "device_id"));
    EXPECT_EQ(event.org_id(), text(json::parse(api.last.body), "organization_id"));
    EXPECT_EQ(event.ip(), "127.0.0.1");
    EXPECT_NE(event.detail_json().find("line 2"), std::string::npos);
    EXPECT_EQ(event.detail_json().find("flp_"), std::string::npos);

    stack->stop_broker();
    const crypto::Key second = fresh();
    EXPECT_EQ((co_await join(api, text(key, "secret"), second)).substr(0, 3), "503");
    EXPECT_EQ(co_await join(api, text(key, "secret"), device), "200") << "which changes nothing";
    EXPECT_EQ(co_await devices(api), 1u);
    stack->start_broker();
    co_await eventually("the audit log", [&]() -> Task<bool> {
      co_return co_await join(api, text(key, "secret"), second) == "201";
    });
    const bj::value now = co_await api.call("GET", "/v1/provisioning-keys/" + text(key, "id"));
    EXPECT_EQ(now.at("uses"), 2);
  });
}

// How many of so many devices that come at the same time were answered what; each asks once.
Task<std::map<std::string, int>> join_all(Backend& backend, std::string secret, int count) {
  std::map<std::string, int> answers;
  TaskScope scope(backend.executor);
  const auto one = [&]() -> Task<void> {
    Api api(backend.executor, backend.stack);
    ++answers[co_await Provisioning::join(api, secret, Provisioning::fresh())];
  };
  for (int i = 0; i < count; ++i) scope.spawn("device", one());
  co_await scope.join();
  co_return answers;
}

TEST_F(Provisioning, OfManyAtTheSameTimeNotOneMoreComesInThanTheKeyAllows) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(api, {{"max_uses", 10}});
    const auto answers = co_await join_all(backend, text(key, "secret"), 30);
    EXPECT_EQ(answers,
              (std::map<std::string, int>{{"201", 10}, {"403 provisioning_key_used_up", 20}}));
    EXPECT_EQ(co_await devices(api), 10u);
  });
}

TEST_F(Provisioning, ACrowdIsToldToComeAgainAndLeavesRoomForOthers) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    constexpr int kCrowd = 400;
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(api, {});
    bool over = false;
    TaskScope others(backend.executor);
    int listed = 0;
    const auto list = [&]() -> Task<void> {
      Api other(backend.executor, backend.stack, api.token);
      while (!over) {
        ++listed;
        co_await other.call("GET", "/v1/fleets");
        EXPECT_EQ(other.last.status, 200);
      }
    };
    others.spawn("others", list());
    auto answers = co_await join_all(backend, text(key, "secret"), kCrowd);
    over = true;
    co_await others.join();
    EXPECT_GE(answers["201"], 100) << "as many as may wait";
    EXPECT_GT(answers["503 too many ask for this at once"], 0);
    EXPECT_EQ(answers["201"] + answers["503 too many ask for this at once"], kCrowd);
    EXPECT_GE(listed, 10);
    EXPECT_EQ(text(co_await api.call("GET", "/v1/fleets/edge"), "slug"), "edge");
    EXPECT_EQ(api.last.status, 200);
  });
}

TEST_F(Provisioning, ADeviceMayAskForALongerToken) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(api, {});
    const crypto::Key device = fresh();
    Api anyone(backend.executor, backend.stack);
    const auto life = [](const bj::value& answer) {
      return parse_rfc3339(text(answer, "token_expires_at")) -
             parse_rfc3339(text(answer, "server_time"));
    };
    const auto enrol = [&](bj::value lifetime) -> Task<bj::value> {
      bj::object body = registration(text(key, "secret"), device);
      if (!lifetime.is_null()) body["lifetime"] = std::move(lifetime);
      co_return co_await anyone.call("POST", "/v1/devices/register", std::move(body));
    };
    const Duration hour(3'600'000);
    EXPECT_EQ(life(co_await enrol(nullptr)), backend.stack.settings.device_token_lifetime);
    EXPECT_EQ(life(co_await enrol("100h")), 100 * hour);
    EXPECT_EQ(life(co_await enrol("1000h")), 168 * hour) << "no more than the server allows";
    for (const char* bad : {"", "soon", "1s", "-1h"}) {
      co_await enrol(bad);
      EXPECT_EQ(anyone.last.status, 400) << bad;
      EXPECT_NE(anyone.last.body.find("/lifetime"), std::string::npos) << anyone.last.body;
    }
    const std::string id = text(co_await enrol(nullptr), "device_id");
    const bj::value renewed = co_await anyone.call(
        "POST", "/v1/devices/token",
        bj::object{{"device_id", id},
                   {"assertion", crypto::sign_jwt(device, assertion_claims(id))},
                   {"lifetime", "48h"}});
    EXPECT_EQ(life(renewed), 48 * hour);
  });
}

TEST_F(Provisioning, OnlyFromTheNetworksOfTheKey) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value here =
        co_await make_key(api, {{"allowed_networks", bj::array{"127.0.0.0/8", "2001:db8::/32"}}});
    const bj::value away =
        co_await make_key(api, {{"allowed_networks", bj::array{"203.0.113.0/24"}}});
    EXPECT_EQ(co_await join(api, text(here, "secret"), fresh()), "201");
    EXPECT_EQ(co_await join(api, text(away, "secret"), fresh()), "403 provisioning_key_network");
    EXPECT_EQ(co_await join(api, text(away, "secret"), fresh(), "203.0.113.7"),
              "403 provisioning_key_network")
        << "anybody can write that header";
  });
  stack->settings.api_trusted_proxies = {"127.0.0.1"};
  with_api([](Backend& backend, Api& api) -> Task<void> {
    api.more_headers = {{"X-Forwarded-For", "198.51.100.9, 192.0.2.7"}};
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    api.more_headers.clear();
    const bj::value away =
        co_await make_key(api, {{"allowed_networks", bj::array{"203.0.113.0/24"}}});
    const std::string secret = text(away, "secret");
    co_await backend.heard();
    // People as devices: who the proxy saw, not who the header's writer says there was before.
    EXPECT_EQ(backend.audited.at(0).action(), "createFleet");
    EXPECT_EQ(backend.audited.at(0).ip(), "192.0.2.7");
    EXPECT_EQ(backend.audited.at(1).ip(), "127.0.0.1");
    backend.audited.clear();
    EXPECT_EQ(co_await join(api, secret, fresh(), "203.0.113.7"), "201");
    co_await backend.heard();
    EXPECT_EQ(backend.audited.at(0).ip(), "203.0.113.7");
    EXPECT_EQ(co_await join(api, secret, fresh(), "203.0.113.7, 198.51.100.1"),
              "403 provisioning_key_network");
    EXPECT_EQ(co_await join(api, secret, fresh()), "403 provisioning_key_network");
  });
  stack->settings.api_trusted_proxies.clear();
}

TEST_F(Provisioning, WaitsForAnApproval) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(api, {{"approval_required", true}, {"max_uses", 1}});
    const std::string secret = text(key, "secret");
    const crypto::Key good = fresh(), bad = fresh();
    co_await backend.heard();
    backend.audited.clear();
    EXPECT_EQ(co_await join(api, secret, good), "202");
    EXPECT_EQ(api.last.headers.get("Retry-After"), "30");
    const std::string request = text(json::parse(api.last.body), "device_request_id");
    EXPECT_EQ(co_await join(api, secret, good), "202");
    EXPECT_EQ(text(json::parse(api.last.body), "device_request_id"), request) << "the same one";
    EXPECT_EQ(co_await join(api, secret, bad), "202");
    const std::string other = text(json::parse(api.last.body), "device_request_id");
    co_await backend.heard();
    EXPECT_EQ(actions(backend), (Names{"requestDevice", "requestDevice"}));
    const bj::value page = co_await api.call("GET", "/v1/device-requests?state=PENDING");
    EXPECT_EQ(page.at("items").as_array().size(), 2u);
    EXPECT_EQ(text(page.at("items").at(0), "thumbprint"), good.thumbprint());
    EXPECT_EQ(text(page.at("items").at(0), "ip"), "127.0.0.1");
    EXPECT_EQ(co_await devices(api), 0u);

    // Somebody who sees another fleet only has no say.
    const bj::value fleet = co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    Api limited(backend.executor, backend.stack,
                co_await backend.make_key(api.token, "developer", {}, Names{text(fleet, "id")}));
    const std::string path = "/v1/device-requests/" + request;
    const std::string of_key = "/v1/provisioning-keys/" + text(key, "id");
    co_await refuse(
        limited,
        {{"POST", path + "/actions/approve", "", 404, "no such device request"},
         {"GET", of_key, "", 404, "no such provisioning key"},
         {"PATCH", of_key, R"({"name":"x"})", 404, "no such provisioning key"},
         {"GET", of_key + "/devices", "", 404, "no such provisioning key"},
         {"DELETE", of_key, "", 404, "no such provisioning key"},
         {"POST", "/v1/provisioning-keys", R"({"fleet_id":"edge"})", 404, "no such fleet"}});
    const bj::value none = co_await limited.call("GET", "/v1/device-requests");
    EXPECT_TRUE(none.at("items").as_array().empty());

    co_await api.call("POST", "/v1/device-requests/" + other + "/actions/reject");
    EXPECT_EQ(co_await join(api, secret, bad), "403 device_request_rejected");
    co_await api.call("POST", path + "/actions/approve?validate_only=true");
    EXPECT_EQ(co_await join(api, secret, good), "202");
    const bj::value approved = co_await api.call("POST", path + "/actions/approve");
    EXPECT_EQ(text(approved, "state"), "APPROVED");
    EXPECT_EQ(text(approved, "decided_by"), "test");
    EXPECT_EQ(co_await join(api, secret, good), "201");
    const bj::value admitted = co_await api.call("GET", path);
    EXPECT_EQ(text(admitted, "state"), "ADMITTED");
    EXPECT_EQ(text(admitted, "device_id"), text(json::parse(api.last.body), "device_id"));
    co_await refuse(api, {{"POST", path + "/actions/reject", "", 409, "is in already"}});
    // The key is used up, yet a word is a word.
    EXPECT_EQ(co_await join(api, secret, fresh()), "403 provisioning_key_used_up");
    co_await api.call("POST", "/v1/device-requests/" + other + "/actions/approve");
    EXPECT_EQ(co_await join(api, secret, bad), "201");
    // Who was removed waits anew, as far as the key goes.
    co_await api.call("PATCH", of_key, bj::object{{"max_uses", 5}});
    co_await api.call("DELETE", "/v1/devices/" + text(admitted, "device_id"));
    EXPECT_EQ(co_await join(api, secret, good), "202");
  });
}

TEST_F(Provisioning, AdmitsOnlyDevicesThatWereNamed) {
  with_api([](Backend&, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value lab = co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Lab"}});
    const bj::value key = co_await make_key(api, {{"mode", "PREREGISTERED"}});
    const bj::value open = co_await make_key(api, {});
    const std::string secret = text(key, "secret"),
                      path = "/v1/provisioning-keys/" + text(key, "id") + "/devices";
    const crypto::Key first = fresh(), second = fresh();
    EXPECT_EQ(co_await join(api, secret, first), "403 provisioning_key_unlisted");
    const bj::value by_pem = co_await api.call(
        "POST", path, bj::object{{"public_key", first.public_pem()}, {"name", "gw-1"}});
    EXPECT_EQ(text(by_pem, "thumbprint"), first.thumbprint());
    co_await api.call("POST", path,
                      bj::object{{"thumbprint", second.thumbprint()}, {"fleet_id", "lab"}});
    EXPECT_EQ(co_await join(api, secret, first), "201");
    EXPECT_EQ(text(json::parse(api.last.body), "name"), "gw-1");
    EXPECT_EQ(co_await join(api, secret, second), "201");
    EXPECT_EQ(text(json::parse(api.last.body), "fleet_id"), text(lab, "id"));
    const bj::value page = co_await api.call("GET", path + "?page_size=1");
    EXPECT_TRUE(page.at("items").at(0).as_object().contains("device_id"));
    EXPECT_NE(text(page, "next_page_token"), "");
    const std::string body = bj::serialize(bj::object{{"thumbprint", fresh().thumbprint()}});
    const std::string again = bj::serialize(bj::object{{"thumbprint", first.thumbprint()}});
    co_await refuse(
        api,
        {{"POST", path, again, 409, "known to this key already"},
         {"POST", path, "{}", 400, "one of both"},
         {"POST", path, R"({"thumbprint":"short"})", 400, "/thumbprint"},
         {"POST", path, R"({"public_key":"no pem"})", 400, "/public_key"},
         {"POST", path,
          bj::serialize(bj::object{{"thumbprint", fresh().thumbprint()}, {"fleet_id", "nosuch"}}),
          404, "no such fleet"},
         {"POST", "/v1/provisioning-keys/" + text(open, "id") + "/devices", body, 409,
          "admits every device"},
         {"DELETE", path + "/" + new_uuid(), "", 404, "no such preregistration"}});
    co_await api.call("DELETE", path + "/" + text(by_pem, "id"));
    EXPECT_EQ(co_await join(api, secret, first), "200") << "who is in stays in";
  });
}

TEST_F(Provisioning, KeysCanBeChangedAndSayWhatTheyAre) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key = co_await make_key(
        api, {{"expires_in", "1ms"}, {"labels", {{"site", "oslo"}, {"rack/row", "7"}}}});
    const std::string path = "/v1/provisioning-keys/" + text(key, "id");
    EXPECT_EQ(co_await join(api, text(key, "secret"), fresh()), "403 provisioning_key_expired");
    const bj::value changed = co_await api.call(
        "PATCH", path, bj::object{{"name", "n"}, {"max_uses", 1}, {"expires_in", "1h"}});
    EXPECT_EQ(text(changed, "name"), "n");
    EXPECT_FALSE(changed.as_object().contains("secret"));
    EXPECT_EQ(text(changed.at("labels"), "site"), "oslo");
    EXPECT_EQ(co_await join(api, text(key, "secret"), fresh()), "201");
    const bj::value joined =
        co_await api.call("GET", "/v1/devices?filter=labels.site%20%3D%20oslo");
    EXPECT_EQ(joined.at("items").at(0).at("labels"), key.at("labels"));
    EXPECT_EQ(co_await join(api, text(key, "secret"), fresh()), "403 provisioning_key_used_up");
    const auto post = [](bj::object extra) {
      extra["fleet_id"] = "edge";
      return bj::serialize(extra);
    };
    const char* keys = "/v1/provisioning-keys";
    co_await refuse(
        api, {{"PATCH", path, "{}", 400, "must have a name"},
              {"PATCH", path, R"({"max_uses":0})", 400, "/max_uses"},
              {"PATCH", path, R"({"mode":"OPEN"})", 400, "/mode"},
              {"POST", keys, post({{"mode", "CLOSED"}}), 400, "/mode"},
              {"POST", keys, post({{"allowed_networks", bj::array{"10.1.2.3/8"}}}), 400,
               "/allowed_networks/0"},
              {"POST", keys, post({{"allowed_networks", bj::array{"10.0.0.0/8", "x"}}}), 400,
               "/allowed_networks/1"},
              {"POST", keys, post({{"labels", {{"Big Key", "x"}}}}), 400, "/labels"},
              {"POST", keys, post({{"labels", {{"site", 7}}}}), 400, "/labels/site"},
              {"POST", keys, post({{"approval_required", "yes"}}), 400, "/approval_required"},
              {"GET", "/v1/device-requests?state=OLD", "", 400, "?state"},
              {"GET", "/v1/provisioning-keys/" + new_uuid(), "", 404, "no such provisioning key"}});
    co_await api.call("DELETE", path);
    co_await refuse(api, {{"PATCH", path, R"({"name":"x"})", 409, "was revoked"}});
    co_await backend.heard();
    EXPECT_EQ(actions(backend),
              (Names{"createFleet", "createProvisioningKey", "changeProvisioningKey",
                     "registerDevice", "revokeProvisioningKey"}));
  });
}

}  // namespace
}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"
#include "base/json.h"
#include "targets/api_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using Subscriptions = ApiTest;

bj::object hook(bj::object extra = {}) {
  bj::object out{{"name", "ops"},
                 {"url", "https://hooks.acme.example/flock?a=b"},
                 {"event_types", bj::array{"rollout.*", "device.offline"}}};
  for (auto& item : extra) out[item.key()] = item.value();
  return out;
}

TEST_F(Subscriptions, LiveWithASecretThatIsShownOnce) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    const char* all = "/v1/event-subscriptions";
    const bj::value made = co_await api.call(
        "POST", all, hook({{"filter", "labels.site=\"oslo\"   AND type = \"rollout.failed\""}}));
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    const std::string secret = text(made, "secret"), path = all + ("/" + text(made, "id"));
    EXPECT_EQ(secret.substr(0, 6), "whsec_");
    EXPECT_EQ(from_base64(secret.substr(6)).value_or("").size(), 32u);
    const auto stored = co_await backend.db.query(
        postgres::Scope::system(), "SELECT secret FROM event_subscriptions WHERE id = $1",
        postgres::Params().text(text(made, "id")));
    EXPECT_TRUE(stored.rows.at(0).text("secret").starts_with("v1.")) << "it is kept sealed";
    EXPECT_EQ(text(made, "filter"), "labels.site = \"oslo\" AND type = \"rollout.failed\"");
    EXPECT_EQ(made.at("enabled"), true);
    bj::value read = co_await api.call("GET", path);
    EXPECT_EQ(api.last.body.find("whsec_"), std::string::npos);
    co_await api.call("GET", all);
    EXPECT_EQ(api.last.body.find("whsec_"), std::string::npos);

    const bj::value changed =
        co_await api.call("PATCH", path, bj::object{{"enabled", false}, {"filter", ""}});
    EXPECT_EQ(changed.at("enabled"), false);
    EXPECT_EQ(text(changed, "filter"), "");
    EXPECT_EQ(text(changed, "url"), text(made, "url"));
    const bj::value rotated = co_await api.call("POST", path + "/actions/rotate-secret");
    EXPECT_NE(text(rotated, "secret"), secret);
    EXPECT_TRUE(rotated.as_object().contains("previous_secret_expires_at"));

    co_await refuse(api, {{"POST", all, bj::serialize(hook()), 409, "of this name already"}});
    co_await api.call("DELETE", path);
    EXPECT_EQ(api.last.status, 204);
    co_await refuse(api, {{"GET", path, "", 404, "no such event subscription"},
                          {"PATCH", path, "{}", 404, "no such event subscription"},
                          {"DELETE", path, "", 404, "no such event subscription"}});
    co_await backend.heard();
    for (const auto& event : backend.audited) {
      EXPECT_EQ(event.resource_type(), "event_subscription");
      EXPECT_EQ(event.SerializeAsString().find("whsec_"), std::string::npos);
    }
    EXPECT_EQ(backend.audited.size(), 4u);
  });
}

TEST_F(Subscriptions, NameWhatCannotBe) {
  with_api([](Backend&, Api& api) -> Task<void> {
    std::vector<Case> cases;
    const auto refused = [&](bj::object extra, const char* part) {
      cases.push_back(
          {"POST", "/v1/event-subscriptions", bj::serialize(hook(std::move(extra))), 400, part});
    };
    refused({{"url", "http://hooks.acme.example/"}}, "/url");
    refused({{"url", "http://127.0.0.1:9/"}}, "https");
    refused({{"url", "ftp://hooks.acme.example/"}}, "/url");
    refused({{"url", "https://user:pw@hooks.acme.example/"}}, "user or password");
    refused({{"url", "https://hooks.acme.example/#x"}}, "fragment");
    refused({{"url", "hooks"}}, "/url");
    refused({{"event_types", bj::array{}}}, "/event_types");
    refused({{"event_types", bj::array{"*", "rollout"}}}, "/event_types/1");
    refused({{"event_types", bj::array{"Rollout.x"}}}, "/event_types/0");
    refused({{"event_types", bj::array{"*.x"}}}, "/event_types/0");
    refused({{"filter", "colour = \"red\""}}, "/filter");
    refused({{"filter", "labels.site ="}}, "/filter");
    refused({{"enabled", 1}}, "/enabled");
    refused({{"secret", "whsec_x"}}, "/secret");
    refused({{"name", ""}}, "/name");
    co_await refuse(api, std::move(cases));
    const bj::value page = co_await api.call("GET", "/v1/event-subscriptions");
    EXPECT_TRUE(page.at("items").as_array().empty());
  });
  stack->settings.webhooks_allow_loopback = true;
  with_api([](Backend&, Api& api) -> Task<void> {
    const char* all = "/v1/event-subscriptions";
    for (const char* url : {"http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/x"}) {
      co_await api.call("POST", all, hook({{"name", url}, {"url", url}}));
      EXPECT_EQ(api.last.status, 201) << url << api.last.body;
    }
    co_await refuse(
        api, {{"POST", all, bj::serialize(hook({{"url", "http://192.0.2.1/"}})), 400, "/url"}});
  });
  stack->settings.webhooks_allow_loopback = false;
}

}  // namespace
}  // namespace flock::targets

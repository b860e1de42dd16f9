// SPDX-License-Identifier: Apache-2.0
// The life of a release over the real servers: draft, final, invalid, compared, gone.
#include "base/json.h"
#include "services/release_retention.h"
#include "services/releases.h"
#include "targets/api_itest.h"

namespace flock::targets {
namespace {

using namespace itest;

class Releases : public ApiTest {
 protected:
  static constexpr const char* kCompose =
      "services:\n  web:\n    image: registry.example/acme/web:1\n";
  static constexpr const char* kOther =
      "services:\n  web:\n    image: registry.example/acme/web:1\n    command: [serve, --fast]\n"
      "    environment: {LEVEL: debug}\n";

  Task<void> push(Backend& backend) {
    co_await push_image(backend.executor, stack->registry_host(), "acme/web", "1",
                        {"amd64", "arm64"});
  }
  // A fleet with a device in it.
  static Task<std::string> fleet_with(Backend& backend, Api& api, FakeDevice& device) {
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    co_await device.join(api, text(key, "secret"));
    co_return text(key, "fleet_id");
  }
  static Task<void> deploy(Api& api, FakeDevice& device, std::string release) {
    const auto version = device.desired.version();
    co_await api.call("POST", "/v1/deployments",
                      bj::object{{"release_id", release}, {"target", {{"fleet_id", "edge"}}}});
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    co_await eventually("desired state",
                        [&]() -> Task<bool> { co_return device.desired.version() > version; });
    co_await device.report(device.state(device::v1::ReportedState::CONFIRMED));
    co_await eventually("no rollout under way", [&]() -> Task<bool> {
      const bj::value page = co_await api.call("GET", "/v1/rollouts");
      co_return text(page.at("items").at(0), "state") == "COMPLETED";
    });
  }
  static Task<std::vector<std::string>> versions(Api& api, std::string query) {
    std::vector<std::string> out;
    std::string token;
    do {
      const bj::value page = co_await api.call(
          "GET", "/v1/releases?" + query + (token.empty() ? "" : "&page_token=" + token));
      EXPECT_EQ(api.last.status, 200) << query << api.last.body;
      for (const bj::value& item : page.at("items").as_array())
        out.push_back(text(item, "version"));
      token = text(page, "next_page_token");
    } while (!token.empty());
    co_return out;
  }
};

using Names = std::vector<std::string>;

TEST_F(Releases, ADraftIsReplacedThenFinalThenInvalid) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    co_await push(backend);
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value draft = co_await api.call("POST", "/v1/releases",
                                              bj::object{{"version", "1.0.0-rc.1"},
                                                         {"draft", true},
                                                         {"tags", bj::array{"b", "a", "b"}},
                                                         {"compose", kCompose}});
    EXPECT_EQ(text(draft, "state"), "DRAFT");
    EXPECT_EQ(draft.at("tags"), (bj::array{"a", "b"}));
    EXPECT_FALSE(draft.as_object().contains("finalized_at"));
    const std::string path = "/v1/releases/1.0.0-rc.1";
    const std::string deployment = R"({"release_id":"1.0.0-rc.1","target":{"fleet_id":"edge"}})";
    const std::string compose = bj::serialize(bj::object{{"compose", kOther}});
    co_await refuse(
        api, {{"POST", "/v1/deployments", deployment, 409, "is a draft"},
              {"POST", path + "/actions/invalidate", R"({"reason":"x"})", 409, "is a draft"}});
    const bj::value replaced = co_await api.call("PUT", path, compose);
    EXPECT_EQ(api.last.status, 200) << api.last.body;
    EXPECT_NE(text(replaced, "digest"), text(draft, "digest"));
    EXPECT_EQ(text(replaced, "compose"), kOther);
    EXPECT_EQ(text(replaced, "id"), text(draft, "id"));

    const bj::value final = co_await api.call("POST", path + "/actions/finalize");
    EXPECT_EQ(text(final, "state"), "FINAL");
    co_await refuse(api, {{"PUT", path, compose, 409, "no draft"},
                          {"POST", path + "/actions/finalize", "", 409, "no draft"}});
    co_await api.call("POST", "/v1/deployments", deployment);
    EXPECT_EQ(api.last.status, 201) << api.last.body;

    const bj::value invalid = co_await api.call("POST", path + "/actions/invalidate",
                                                bj::object{{"reason", "loses data"}});
    EXPECT_EQ(text(invalid, "state"), "INVALID");
    EXPECT_EQ(text(invalid, "invalid_reason"), "loses data");
    co_await refuse(api,
                    {{"POST", "/v1/deployments", deployment, 409, "loses data"},
                     {"POST", "/v1/deployments?validate_only=true", deployment, 409, "invalid"}});
    const bj::value described =
        co_await api.call("PATCH", path, bj::object{{"note", "see 1.0.0"}, {"tags", bj::array{}}});
    EXPECT_EQ(text(described, "note"), "see 1.0.0");
    EXPECT_TRUE(described.at("tags").as_array().empty());
    const bj::value cleared = co_await api.call("PATCH", path, bj::object{{"note", ""}});
    EXPECT_FALSE(cleared.as_object().contains("note"));
    EXPECT_EQ(text(cleared, "digest"), text(replaced, "digest"));

    std::vector<std::string> actions;
    co_await backend.heard();
    for (const auto& event : backend.audited) actions.push_back(event.action());
    EXPECT_EQ(actions, (Names{"createFleet", "createRelease", "replaceRelease", "finalizeRelease",
                              "createDeployment", "invalidateRelease", "describeRelease",
                              "describeRelease"}));
  });
}

TEST_F(Releases, IfMatchKeepsTwoPeopleFromUndoingEachOther) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    co_await push(backend);
    co_await api.call("POST", "/v1/releases",
                      bj::object{{"version", "1"}, {"draft", true}, {"compose", kCompose}});
    co_await api.call("PATCH", "/v1/releases/1?validate_only=true", bj::object{{"note", "x"}});
    EXPECT_EQ(api.last.status, 200);
    const bj::value now = co_await api.call("GET", "/v1/releases/1");
    EXPECT_FALSE(now.as_object().contains("note"));
    const std::string before(api.last.headers.get("ETag").value());
    co_await api.call("PATCH", "/v1/releases/1", bj::object{{"note", "x"}});
    EXPECT_NE(api.last.headers.get("ETag"), before);
  });
}

TEST_F(Releases, WhatCannotBeIsNamedByItsPlace) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    co_await backend.put_release(api.token, "1.0.0", {{"linux/amd64", "sha256:a"}});
    const auto post = [](bj::object extra) {
      extra["compose"] = kCompose;
      return bj::serialize(extra);
    };
    co_await refuse(api,
                    {{"POST", "/v1/releases", post({{"version", "1.02.3"}}), 400, "/version"},
                     {"POST", "/v1/releases", post({{"version", "1.2.3.4"}}), 400, "semantic"},
                     {"POST", "/v1/releases", post({{"version", "a/b"}}), 400, "slash"},
                     {"POST", "/v1/releases", post({{"tags", bj::array{"a b"}}}), 400, "/tags/0"},
                     {"POST", "/v1/releases", post({{"tags", "a"}}), 400, "/tags"},
                     {"POST", "/v1/releases", post({{"draft", "yes"}}), 400, "/draft"},
                     {"PATCH", "/v1/releases/1.0.0", "{}", 400, "note or tags"},
                     {"PATCH", "/v1/releases/1.0.0", R"({"state":"DRAFT"})", 400, "/state"},
                     {"POST", "/v1/releases/1.0.0/actions/invalidate", "{}", 400, "/reason"},
                     {"PUT", "/v1/releases/1.0.0", "{}", 400, "/compose"},
                     {"PUT", "/v1/releases/nosuch", post({}), 404, "no such release"},
                     {"GET", "/v1/releases/1.0.0/diff", "", 400, "?to"},
                     {"GET", "/v1/releases/1.0.0/diff?to=9", "", 404, "no such release"},
                     {"GET", "/v1/releases?state=OLD", "", 400, "?state"},
                     {"GET", "/v1/releases?order_by=compose", "", 400, "?order_by"},
                     {"GET", "/v1/releases?filter=compose%20%3D%20%22x%22", "", 400, "?filter"},
                     {"GET", "/v1/releases?page_token=eyJ4Ijoxfg", "", 400, "page_token"},
                     {"GET", "/v1/releases?page_size=x", "", 400, "page_size"},
                     {"DELETE", "/v1/releases/nosuch", "", 404, "no such release"},
                     {"PUT", "/v1/release-retention", R"({"keep_last":0})", 400, "/keep_last"},
                     {"PUT", "/v1/release-retention", R"({"keep_days":1.5})", 400, "/keep_days"},
                     {"PUT", "/v1/release-retention", R"({"keep":1})", 400, "/keep"}});
  });
}

TEST_F(Releases, AreFoundByStateTagVersionAndFilterInOrder) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    for (const char* version : {"1.9.0", "1.10.0-rc.1", "1.10.0", "2.0.0", "7", "nightly"})
      co_await backend.put_release(api.token, version, {{"linux/amd64", "sha256:a"}});
    co_await api.call("PATCH", "/v1/releases/1.9.0", bj::object{{"tags", bj::array{"lts", "x"}}});
    co_await api.call("PATCH", "/v1/releases/2.0.0", bj::object{{"tags", bj::array{"lts"}}});
    co_await api.call("POST", "/v1/releases/1.10.0/actions/invalidate",
                      bj::object{{"reason", "bad"}});
    EXPECT_EQ(co_await versions(api, "page_size=4"),
              (Names{"nightly", "7", "2.0.0", "1.10.0", "1.10.0-rc.1", "1.9.0"}));
    EXPECT_EQ(co_await versions(api, "page_size=2&order_by=version"),
              (Names{"1.9.0", "1.10.0-rc.1", "1.10.0", "2.0.0", "7", "nightly"}));
    EXPECT_EQ(co_await versions(api, "page_size=1&order_by=version%20desc&version_prefix=1."),
              (Names{"1.10.0", "1.10.0-rc.1", "1.9.0"}));
    EXPECT_EQ(co_await versions(api, "tag=lts"), (Names{"2.0.0", "1.9.0"}));
    EXPECT_EQ(co_await versions(api, "tag=lts&version_prefix=1."), (Names{"1.9.0"}));
    EXPECT_EQ(co_await versions(api, "tag=lt"), Names());
    EXPECT_EQ(co_await versions(api, "version_prefix=%25"), Names()) << "no pattern";
    EXPECT_EQ(co_await versions(api, "state=INVALID"), (Names{"1.10.0"}));
    EXPECT_EQ(co_await versions(
                  api,
                  "page_size=1&order_by=version&filter=version%20%3C%20%222%22%20AND%20state"
                  "%20%3D%20FINAL"),
              (Names{"1.9.0", "1.10.0-rc.1"}));
    const bj::value page = co_await api.call("GET", "/v1/releases?page_size=1");
    co_await refuse(
        api,
        {{"GET", "/v1/releases?page_size=1&tag=lts&page_token=" + text(page, "next_page_token"), "",
          400, "page_token"}});
  });
}

TEST_F(Releases, DiffTellsFieldByField) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    co_await push(backend);
    co_await api.call("POST", "/v1/releases", bj::object{{"version", "1"}, {"compose", kCompose}});
    co_await api.call("POST", "/v1/releases",
                      bj::object{{"version", "2"}, {"draft", true}, {"compose", kOther}});
    const bj::value diff = co_await api.call("GET", "/v1/releases/1/diff?to=2");
    EXPECT_EQ(diff.at("equal"), false);
    const bj::value& web = diff.at("services").at(0);
    EXPECT_EQ(text(web, "change"), "CHANGED");
    EXPECT_EQ(web.at("fields").as_array().size(), 2u) << diff;
    EXPECT_EQ(web.at("fields").at(0),
              (bj::object{{"field", "command"}, {"to", bj::array{"serve", "--fast"}}}));
    EXPECT_EQ(web.at("fields").at(1),
              (bj::object{{"field", "environment.LEVEL"}, {"to", "debug"}}));
    const bj::value same = co_await api.call("GET", "/v1/releases/1/diff?to=1");
    EXPECT_EQ(same.at("equal"), true);
  });
}

TEST_F(Releases, AreDeletedOnlyWhenNothingNeedsThem) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    for (const char* version : {"1", "2"})
      co_await backend.put_release(api.token, version, {{"linux/amd64", "sha256:a"}});
    FakeDevice device(backend);
    const std::string fleet = co_await fleet_with(backend, api, device);
    co_await deploy(api, device, "1");
    co_await refuse(api, {{"DELETE", "/v1/releases/1", "", 409,
                           "1 device that wants it, 1 fleet whose release it is"}});
    // One who sees another fleet only is told too, and no fleet of his is counted.
    const bj::value other = co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    Api limited(backend.executor, backend.stack,
                co_await backend.make_key(api.token, "developer", {}, Names{text(other, "id")}));
    co_await refuse(limited, {{"DELETE", "/v1/releases/1", "", 409, "1 device that wants it"},
                              {"PUT", "/v1/release-retention", R"({"keep_last":1})", 403,
                               "organization:write"}});
    co_await deploy(api, device, "2");
    co_await api.call("DELETE", "/v1/releases/1");
    EXPECT_EQ(api.last.status, 204) << api.last.body;
    co_await refuse(api, {{"GET", "/v1/releases/1", "", 404, "no such release"},
                          {"DELETE", "/v1/releases/1", "", 404, "no such release"}});
    EXPECT_EQ(co_await versions(api, ""), (Names{"2"}));
    // The past still has its name, and the version is free again.
    const bj::value rollouts = co_await api.call("GET", "/v1/rollouts");
    EXPECT_EQ(text(rollouts.at("items").at(1).at("release"), "version"), "1");
    co_await backend.put_release(api.token, "1", {{"linux/amd64", "sha256:a"}});
    co_await api.call("GET", "/v1/releases/1");
    EXPECT_EQ(api.last.status, 200);
  });
}

TEST_F(Releases, AnInvalidOneStaysWhereItIsAndGoesToNobodyElse) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    for (const char* version : {"1", "2"})
      co_await backend.put_release(api.token, version, {{"linux/amd64", "sha256:a"}});
    FakeDevice device(backend);
    co_await fleet_with(backend, api, device);
    co_await deploy(api, device, "1");
    co_await api.call("POST", "/v1/releases/1/actions/invalidate", bj::object{{"reason", "bad"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    FakeDevice late(backend);
    co_await late.join(api, text(key, "secret"));
    // The scheduler has looked for latecomers once it delivered to one of another fleet.
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    co_await api.call("POST", "/v1/deployments",
                      bj::object{{"release_id", "2"}, {"target", {{"fleet_id", "other"}}}});
    const bj::value other =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "other"}});
    FakeDevice second(backend);
    co_await second.join(api, text(other, "secret"));
    co_await eventually("another latecomer",
                        [&]() -> Task<bool> { co_return second.desired.version() > 0; });
    EXPECT_EQ(late.desired_messages, 0);
    const bj::value kept = co_await api.call("GET", "/v1/devices/" + device.id);
    EXPECT_EQ(text(kept.at("desired").at("release"), "version"), "1");
  });
}

TEST_F(Releases, RetentionTakesOnlyWhatNobodyNeeds) {
  with_api([this](Backend& backend, Api& api) -> Task<void> {
    for (const char* version : {"1", "2", "3", "4", "5", "6"})
      co_await backend.put_release(api.token, version, {{"linux/amd64", "sha256:a"}});
    co_await push(backend);
    co_await api.call("POST", "/v1/releases",
                      bj::object{{"version", "draft"}, {"draft", true}, {"compose", kCompose}});
    Api other(backend.executor, backend.stack, co_await backend.make_tenant("Other"));
    co_await backend.put_release(other.token, "1", {{"linux/amd64", "sha256:a"}});
    FakeDevice device(backend);
    co_await fleet_with(backend, api, device);
    co_await deploy(api, device, "2");
    co_await deploy(api, device, "3");
    services::AuditTrail audit(backend.bus);
    const auto retire = [&] { return services::retire_releases(backend.db, audit); };
    while (co_await retire() > 0) {  // what organizations of other tests asked for
    }
    EXPECT_EQ((co_await versions(api, "")).size(), 7u) << "nobody asked for it";
    co_await api.call("PUT", "/v1/release-retention", bj::object{{"keep_days", 30}});
    EXPECT_EQ(co_await retire(), 0) << "all are young";
    co_await api.call("PUT", "/v1/release-retention", bj::object{{"keep_last", 1}});
    EXPECT_EQ(api.last.status, 200);
    co_await backend.heard();
    backend.audited.clear();
    EXPECT_EQ(co_await retire(), 3);
    EXPECT_EQ(co_await retire(), 0);
    // 6 is the newest; 3 is wanted; 2 was wanted before, which is the way back.
    EXPECT_EQ(co_await versions(api, ""), (Names{"draft", "6", "3", "2"}));
    EXPECT_EQ(co_await versions(other, ""), (Names{"1"}));
    Names gone;
    co_await backend.heard();
    for (const auto& event : backend.audited) {
      gone.push_back(event.resource_name());
      EXPECT_EQ(event.actor_kind(), internal::v1::AuditEvent::SYSTEM);
      EXPECT_EQ(event.action(), "deleteRelease");
    }
    EXPECT_EQ(gone, (Names{"1", "4", "5"}));

    co_await backend.put_release(api.token, "7", {{"linux/amd64", "sha256:a"}});
    stack->stop_broker();
    bool refused = false;
    try {
      co_await retire();
    } catch (const Error& error) {
      refused = error.code() == Code::kUnavailable;
    }
    EXPECT_TRUE(refused) << "nothing goes without a trace";
    EXPECT_EQ((co_await versions(api, "")).size(), 5u);
    stack->start_broker();
  });
}

}  // namespace
}  // namespace flock::targets

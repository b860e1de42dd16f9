// SPDX-License-Identifier: Apache-2.0
// People signed in by a real OpenID provider: how they come in, what they may, how they leave. And
// what surrounds every change: validate_only, If-Match, Idempotency-Key, limits, the audit log.
#include <gtest/gtest.h>

#include "base/json.h"
#include "crypto/keys.h"
#include "targets/api_itest.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::targets::itest {
namespace {

using flock::testing::OidcProvider;

class People : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Stack::get() == nullptr || !flock::testing::require({"node"}))
      GTEST_SKIP() << "the servers are not installed";
    static OidcProvider provider;
    static const bool started = (provider.start(), true);
    (void)started;
    provider_ = &provider;
    Stack::get()->settings.oidc_issuer = provider.issuer();
    Stack::get()->settings.oidc_audience = {OidcProvider::audience()};
  }
  void TearDown() override {
    if (Stack* stack = Stack::get()) stack->settings.oidc_issuer.clear();
  }
  static OidcProvider* provider_;
};
OidcProvider* People::provider_ = nullptr;

// With the organization named, as the CLI does it.
Task<bj::value> call_in(Api& api, std::string organization, std::string method, std::string path,
                        bj::object body = {}) {
  api.more_headers = {{"Flock-Organization", std::move(organization)}};
  co_return co_await api.call(std::move(method), std::move(path),
                              body.empty() ? "" : bj::serialize(body));
}

TEST_F(People, AreInvitedWithARoleAndSeeOneAnothersOrganizationsOnlyWhenTheyAreIn) {
  const std::string ada_token = provider_->access_token("ada-" + new_uuid().substr(24)),
                    bob_token = provider_->access_token("bob-" + new_uuid().substr(24));
  flock::testing::run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        Api ada(backend.executor, backend.stack, ada_token),
            bob(backend.executor, backend.stack, bob_token);
        const bj::value stranger = co_await ada.call("GET", "/v1/whoami");
        EXPECT_EQ(text(stranger, "kind"), "user");
        EXPECT_FALSE(stranger.as_object().contains("organization"));
        co_await ada.call("GET", "/v1/fleets");
        EXPECT_EQ(ada.last.status, 403) << ada.last.body;

        const std::string slug = "org-" + new_uuid();
        const bj::value org = co_await ada.call("POST", "/v1/organizations",
                                                bj::object{{"name", "Ada's"}, {"slug", slug}});
        EXPECT_EQ(ada.last.status, 201) << ada.last.body;
        const bj::value owner = co_await ada.call("GET", "/v1/whoami");
        EXPECT_EQ(text(owner, "role"), "owner");
        co_await ada.call("POST", "/v1/fleets", bj::object{{"name", "edge"}});
        EXPECT_EQ(ada.last.status, 201) << ada.last.body;

        // Bob is no member yet: Ada's organization is not there for him.
        co_await call_in(bob, slug, "GET", "/v1/fleets");
        EXPECT_EQ(bob.last.status, 404) << bob.last.body;
        const bj::value invitation =
            co_await ada.call("POST", "/v1/invitations",
                              bj::object{{"email", "bob@example.com"}, {"role", "viewer"}});
        bob.more_headers.clear();
        const bj::object accept{{"token", text(invitation, "secret")}};
        const bj::value member = co_await bob.call("POST", "/v1/invitations/accept", accept);
        EXPECT_EQ(bob.last.status, 201) << bob.last.body;
        co_await bob.call("POST", "/v1/invitations/accept", accept);
        EXPECT_EQ(bob.last.status, 409) << "an invitation works once";
        const bj::value fleets = co_await call_in(bob, slug, "GET", "/v1/fleets");
        EXPECT_EQ(fleets.at("items").as_array().size(), 1u);
        co_await call_in(bob, slug, "POST", "/v1/fleets", {{"name", "mine"}});
        EXPECT_EQ(bob.last.status, 403) << bob.last.body;
        co_await call_in(bob, slug, "PATCH", "/v1/members/" + text(member, "id"),
                         {{"role", "owner"}});
        EXPECT_EQ(bob.last.status, 403) << "nobody promotes himself";

        // A promotion counts at once.
        const std::string bob_id = text(member, "id"), ada_id = text(owner, "id");
        co_await ada.call("PATCH", "/v1/members/" + bob_id, bj::object{{"role", "admin"}});
        EXPECT_EQ(ada.last.status, 200) << ada.last.body;
        co_await call_in(bob, slug, "POST", "/v1/fleets", {{"name", "mine"}});
        EXPECT_EQ(bob.last.status, 201) << bob.last.body;
        co_await call_in(bob, slug, "PATCH", "/v1/members/" + ada_id, {{"role", "viewer"}});
        EXPECT_EQ(bob.last.status, 403) << "an admin cannot change an owner";
        co_await ada.call("DELETE", "/v1/members/" + ada_id);
        EXPECT_EQ(ada.last.status, 409) << "the last owner stays";

        // Limited to a fleet: the others are not there.
        co_await ada.call("PATCH", "/v1/members/" + bob_id,
                          bj::object{{"role", "developer"}, {"fleet_ids", bj::array{"edge"}}});
        const bj::value limited = co_await call_in(bob, slug, "GET", "/v1/fleets");
        EXPECT_EQ(limited.at("items").as_array().size(), 1u);
        co_await call_in(bob, slug, "GET", "/v1/fleets/mine");
        EXPECT_EQ(bob.last.status, 404) << bob.last.body;
        co_await call_in(bob, slug, "POST", "/v1/provisioning-keys", {{"fleet_id", "mine"}});
        EXPECT_EQ(bob.last.status, 404) << bob.last.body;

        co_await ada.call("DELETE", "/v1/members/" + bob_id);
        EXPECT_EQ(ada.last.status, 204) << ada.last.body;
        co_await call_in(bob, slug, "GET", "/v1/fleets");
        EXPECT_EQ(bob.last.status, 404) << bob.last.body;
        std::vector<std::string> actions;
        co_await backend.heard();
        for (const auto& event : backend.audited) {
          EXPECT_EQ(event.org_id(), text(org, "id")) << event.action();
          EXPECT_EQ(event.outcome(), internal::v1::AuditEvent::DONE);
          actions.push_back(event.action());
        }
        EXPECT_EQ(actions,
                  (std::vector<std::string>{"createOrganization", "createFleet", "createInvitation",
                                            "acceptInvitation", "changeMember", "createFleet",
                                            "changeMember", "removeMember"}));
        co_await backend.stop();
      },
      Duration(60'000));
}

class Changes : public StackTest {
 protected:
  void TearDown() override {
    if (stack != nullptr) stack->settings.api_rate_limit = 0;
  }
};

TEST_F(Changes, AreTriedWithoutBeingMadeAndRefusedWhenStale) {
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        Api api(backend.executor, backend.stack, co_await backend.make_tenant("changes"));
        co_await api.call("POST", "/v1/fleets?validate_only=true", bj::object{{"name", "edge"}});
        EXPECT_EQ(api.last.status, 201) << api.last.body;
        EXPECT_TRUE(api.last.headers.get("Flock-Validate-Only").has_value());
        co_await api.call("GET", "/v1/fleets/edge");
        EXPECT_EQ(api.last.status, 404);
        co_await backend.heard();
        EXPECT_TRUE(backend.audited.empty()) << "what is not done leaves no trace";

        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "edge"}});
        co_await api.call("GET", "/v1/fleets/edge");
        const std::string tag(api.last.headers.get("ETag").value_or(""));
        EXPECT_FALSE(tag.empty());
        api.more_headers = {{"If-Match", tag}};
        co_await api.call("PATCH", "/v1/fleets/edge", bj::object{{"name", "one"}});
        EXPECT_EQ(api.last.status, 200) << api.last.body;
        EXPECT_NE(api.last.headers.get("ETag").value_or(""), tag);
        co_await api.call("PATCH", "/v1/fleets/edge", bj::object{{"name", "two"}});
        EXPECT_EQ(api.last.status, 412) << api.last.body;
        co_await api.call("DELETE", "/v1/fleets/edge");
        EXPECT_EQ(api.last.status, 412) << api.last.body;
        api.more_headers.clear();
        const bj::value fields = co_await api.call("GET", "/v1/fleets?fields=slug,name");
        EXPECT_EQ(bj::serialize(fields.at("items")), R"([{"name":"one","slug":"edge"}])");
        co_await api.call("GET", "/v1/fleets?fields=slug,colour");
        EXPECT_EQ(api.last.status, 400) << api.last.body;
        EXPECT_NE(api.last.body.find("there is no field colour; known are "), std::string::npos);
        co_await backend.stop();
      },
      Duration(30'000));
}

// Making an organization is what puts the person into one, so the answer is the person's.
TEST_F(People, MakeOneOrganizationHoweverOftenTheyAskWithOneKey) {
  const std::string eve_token = provider_->access_token("eve-" + new_uuid().substr(24)),
                    kim_token = provider_->access_token("kim-" + new_uuid().substr(24));
  flock::testing::run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        Api eve(backend.executor, backend.stack, eve_token),
            kim(backend.executor, backend.stack, kim_token);
        eve.more_headers = kim.more_headers = {{"Idempotency-Key", "first-1"}};
        const bj::object body{{"name", "Org " + new_uuid()}};
        const bj::value first = co_await eve.call("POST", "/v1/organizations", body);
        EXPECT_EQ(eve.last.status, 201) << eve.last.body;
        const bj::value again = co_await eve.call("POST", "/v1/organizations", body);
        EXPECT_EQ(eve.last.status, 201) << eve.last.body;
        EXPECT_EQ(first, again);
        EXPECT_TRUE(eve.last.headers.get("Idempotent-Replayed").has_value());
        const std::string slug = text(first, "slug");
        co_await call_in(eve, slug, "GET", "/v1/whoami");
        eve.more_headers = {{"Idempotency-Key", "first-1"}, {"Flock-Organization", slug}};
        EXPECT_EQ(co_await eve.call("POST", "/v1/organizations", body), first)
            << "also as a member of it";
        co_await eve.call("POST", "/v1/organizations", bj::object{{"name", "Other " + new_uuid()}});
        EXPECT_EQ(eve.last.status, 422) << eve.last.body;
        const bj::value all = co_await eve.call("GET", "/v1/organizations");
        EXPECT_EQ(all.at("items").as_array().size(), 1u);
        co_await backend.heard();
        EXPECT_EQ(std::ranges::count_if(
                      backend.audited,
                      [](const auto& event) { return event.action() == "createOrganization"; }),
                  1);
        // The same key of somebody else is another key.
        const bj::value other = co_await kim.call("POST", "/v1/organizations",
                                                  bj::object{{"name", "Kim " + new_uuid()}});
        EXPECT_EQ(kim.last.status, 201) << kim.last.body;
        // An invitation works once; its answer is given again.
        const bj::value invitation =
            co_await call_in(kim, text(other, "slug"), "POST", "/v1/invitations",
                             bj::object{{"email", "eve@example.com"}, {"role", "viewer"}});
        const bj::object accept{{"token", text(invitation, "secret")}};
        eve.more_headers = {{"Idempotency-Key", "enter-1"}};
        const bj::value entered = co_await eve.call("POST", "/v1/invitations/accept", accept);
        EXPECT_EQ(eve.last.status, 201) << eve.last.body;
        EXPECT_EQ(co_await eve.call("POST", "/v1/invitations/accept", accept), entered);
        EXPECT_EQ(eve.last.status, 201) << eve.last.body;
        // No organization sees what is kept for a person.
        const auto seen =
            co_await backend.db.query(postgres::Scope::tenant(OrgId::trusted(text(first, "id"))),
                                      "SELECT count(*) AS n FROM idempotency_keys");
        EXPECT_EQ(seen.rows.at(0).integer("n"), 0);
        const auto kept = co_await backend.db.query(
            postgres::Scope::system(),
            "SELECT count(*) AS n FROM idempotency_keys WHERE user_id IS NOT NULL");
        EXPECT_EQ(kept.rows.at(0).integer("n"), 3);
        co_await backend.stop();
      },
      Duration(30'000));
}

TEST_F(Changes, WithAnIdempotencyKeyHappenOnce) {
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        const std::string owner = co_await backend.make_tenant("once");
        Api api(backend.executor, backend.stack, owner);
        api.more_headers = {{"Idempotency-Key", "order-1"}};
        const bj::object body{{"name", "edge"}};
        const bj::value first = co_await api.call("POST", "/v1/fleets", body);
        const bj::value again = co_await api.call("POST", "/v1/fleets", body);
        EXPECT_EQ(api.last.status, 201) << api.last.body;
        EXPECT_EQ(first, again);
        EXPECT_TRUE(api.last.headers.get("Idempotent-Replayed").has_value());
        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "other"}});
        EXPECT_EQ(api.last.status, 422) << api.last.body;
        // Another caller's key of the same name is another key.
        Api other(backend.executor, backend.stack, co_await backend.make_key(owner, "developer"));
        other.more_headers = api.more_headers;
        co_await other.call("POST", "/v1/fleets", bj::object{{"name", "other"}});
        EXPECT_EQ(other.last.status, 201) << other.last.body;
        // A request that failed is not remembered.
        api.more_headers = {{"Idempotency-Key", "order-2"}};
        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "edge"}});
        EXPECT_EQ(api.last.status, 409) << api.last.body;
        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "third"}});
        EXPECT_EQ(api.last.status, 201) << api.last.body;
        // Many at once: one is done, all get its answer.
        TaskScope scope(backend.executor);
        std::vector<std::string> answers;
        const auto send = [&]() -> Task<void> {
          Api one(backend.executor, backend.stack, owner);
          one.more_headers = {{"Idempotency-Key", "order-3"}};
          co_await one.call("POST", "/v1/fleets", bj::object{{"name", "fourth"}});
          answers.push_back(one.last.body);
        };
        for (int i = 0; i < 5; ++i) scope.spawn("send", send());
        co_await scope.join();
        EXPECT_EQ(answers, std::vector<std::string>(5, answers.at(0)));
        EXPECT_NE(answers.at(0).find("fourth"), std::string::npos) << answers.at(0);
        co_await backend.stop();
      },
      Duration(30'000));
}

TEST_F(Changes, AreLimitedPerCaller) {
  Stack::get()->settings.api_rate_limit = 20;
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        const std::string owner = co_await backend.make_tenant("limits");
        Api api(backend.executor, backend.stack, owner);
        int refused = 0;
        for (int i = 0; i < 25; ++i) {
          co_await api.call("GET", "/v1/fleets");
          if (api.last.status == 429) ++refused;
          EXPECT_EQ(api.last.headers.get(api.last.status == 429 ? "Retry-After" : "RateLimit")
                        .has_value(),
                    true);
        }
        EXPECT_GE(refused, 3);
        Api other(backend.executor, backend.stack, co_await backend.make_key(owner, "viewer"));
        co_await other.call("GET", "/v1/fleets");
        EXPECT_EQ(other.last.status, 200) << "another caller has a limit of its own";
        co_await backend.stop();
      },
      Duration(30'000));
}

TEST_F(Changes, AreNotMadeWhenNobodyWritesTheAuditLog) {
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        Api api(backend.executor, backend.stack, co_await backend.make_tenant("unwritten"));
        co_await backend.bus.unsubscribe("flock/internal/v1/audit");
        co_await backend.recorder.unsubscribe("flock/internal/v1/audit");
        co_await api.call("POST", "/v1/fleets", bj::object{{"name", "edge"}});
        EXPECT_EQ(api.last.status, 503) << api.last.body;
        const bj::value fleets = co_await api.call("GET", "/v1/fleets");
        EXPECT_TRUE(fleets.at("items").as_array().empty());
        co_await backend.stop();
      },
      Duration(30'000));
}

}  // namespace
}  // namespace flock::targets::itest

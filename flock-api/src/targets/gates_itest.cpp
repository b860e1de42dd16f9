// SPDX-License-Identifier: Apache-2.0
// Gates that look elsewhere, over real servers: what they ask, and what a rollout makes of it.
#include <gtest/gtest.h>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/json.h"
#include "crypto/keys.h"
#include "net/http_server.h"
#include "services/sealing.h"
#include "stores/webhooks/gate_webhook.h"
#include "targets/rollout_fleet_itest.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;

// Devices whose time series lie in a real ClickHouse.
class Measured : public Fleet {
 public:
  using Fleet::Fleet;

  Task<void> open() {
    if (const auto options = backend.stack.clickhouse())
      backend.time_series = stores::make_clickhouse_time_series(backend.executor, *options);
    co_await Fleet::open();
    org = text((co_await api.call("GET", "/v1/whoami")).at("organization"), "id");
  }
  // Of every device that is to run `release` a value, now.
  Task<void> measure(std::string name, double value, std::string release = "") {
    stores::Rows rows;
    for (const auto& device : devices) {
      if (!release.empty() && device->desired.release_version() != release) continue;
      rows.metrics.push_back(
          {{org, "edge", device->id, ""}, name, to_unix_ms(system_clock().now()), value});
    }
    co_await backend.time_series->insert(std::move(rows));
  }
  std::string org;
};

class Gates : public SiteTest<Measured> {
 protected:
  void SetUp() override {
    SiteTest<Measured>::SetUp();
    if (stack != nullptr && !stack->clickhouse()) GTEST_SKIP() << "ClickHouse is not installed";
  }
};

bj::object metric(bj::object more = {}) {
  bj::object gate{{"kind", "metric"},
                  {"metric", "load_1m"},
                  {"aggregate", "max"},
                  {"window", "1m"},
                  {"interval", "5s"}};
  for (auto& [key, value] : more) gate[key] = value;
  return gate;
}

TEST_F(Gates, AMetricOfTheDevicesReachedLetsTheNextStageBegin) {
  on_site([](Measured& f) -> Task<void> {
    co_await f.grow(3);
    f.held = {"1"};
    co_await f.measure("load_1m", 100);  // before: of no device that the rollout reached
    const std::string rollout = co_await f.deploy(
        "1", staged({bj::object{{"count", 1}}},
                    {{"gates", bj::array{metric({{"at_most", 4}, {"name", "load"}})}}}));
    co_await f.until_given("1", 1);
    co_await f.measure("load_1m", 0.5, "1");
    f.held.clear();
    const bj::value done = co_await f.until(rollout, "COMPLETED");
    const bj::value& gate = done.at_pointer("/gates/0");
    EXPECT_EQ(text(gate, "title"), "load");
    EXPECT_EQ(text(gate, "result"), "PASS") << bj::serialize(gate);
    EXPECT_EQ(gate.at("now").to_number<double>(), 0.5);
    EXPECT_EQ(gate.at("at_most").to_number<double>(), 4);
    EXPECT_EQ(gate.at("measured_on").as_int64(), 1);
    EXPECT_TRUE(gate.as_object().contains("looked_at"));
    // The timeline has it too.
    const bj::value page = co_await f.api.call("GET", rollout + "/timeline");
    EXPECT_EQ(page.at_pointer("/items/0/seen/gates/0/now").to_number<double>(), 0.5);
  });
}

TEST_F(Gates, AMetricBeyondItsLimitTakesTheReleaseBack) {
  on_site([](Measured& f) -> Task<void> {
    co_await f.grow(3);
    const std::string rollout = co_await f.deploy(
        "1", staged({bj::object{{"count", 1}, {"soak", "10m"}}},
                    {{"on_failure", "ROLL_BACK"}, {"gates", bj::array{metric({{"at_most", 4}})}}}));
    co_await f.until_given("1", 1);
    co_await f.measure("load_1m", 12.5, "1");
    const bj::value back = co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(text(back, "reason"), "load_1m (max of 1m) 12.5 of 1 device, at most 4");
    EXPECT_EQ(f.given("1"), 0u);
  });
}

TEST_F(Gates, AMetricThatNobodySendsPausesAndIsLookedAtAgainAfterwards) {
  on_site([](Measured& f) -> Task<void> {
    co_await f.grow(2);
    const std::string rollout = co_await f.deploy(
        "1", staged({bj::object{{"count", 1}}}, {{"gates", bj::array{metric({{"at_most", 4}})}}}));
    const bj::value paused = co_await f.until(rollout, "PAUSED");
    EXPECT_EQ(text(paused, "reason"),
              "it cannot be judged: load_1m (max of 1m) says nothing: none of 1 device sent it "
              "within 1m");
    EXPECT_EQ(paused.at_pointer("/gates/0/result"), "UNKNOWN");
    co_await f.measure("load_1m", 1, "1");
    co_await f.order(rollout, "resume");
    co_await f.until(rollout, "COMPLETED");
  });
}

TEST_F(Gates, UpdatedDevicesThatDoWorseThanTheOthersStopTheRollout) {
  on_site([](Measured& f) -> Task<void> {
    co_await f.grow(12);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    f.restless = {"2"};
    const bj::object gate{
        {"kind", "comparison"}, {"sample", 4}, {"alpha", 0.2}, {"after", "0s"}, {"interval", "5s"}};
    const auto strategy = [&] {
      return staged({bj::object{{"count", 4}}},
                    {{"on_failure", "PAUSE"}, {"gates", bj::array{gate}}});
    };
    const std::string bad = co_await f.deploy("2", strategy());
    const bj::value paused = co_await f.until(bad, "PAUSED");
    EXPECT_TRUE(text(paused, "reason")
                    .starts_with("bad devices among the updated: 100 % of 4 devices; 0 % of "))
        << text(paused, "reason");
    EXPECT_EQ(f.given("2"), 4u);
    co_await f.order(bad, "roll-back");
    co_await f.until(bad, "ROLLED_BACK");
    const bj::value good = co_await f.until(co_await f.deploy("3", strategy()), "COMPLETED");
    EXPECT_EQ(good.at_pointer("/gates/0/result"), "PASS") << bj::serialize(good.at("gates"));
  });
}

// --- Queries

bj::object query(std::string text, bj::object more) {
  bj::object gate{
      {"kind", "query"}, {"query", std::move(text)}, {"window", "5m"}, {"interval", "5s"}};
  for (auto& [key, value] : more) gate[key] = value;
  return gate;
}

TEST_F(Gates, AnOperatorsQueryIsHeldAgainstItsLimit) {
  on_site([](Measured& f) -> Task<void> {
    co_await f.grow(2);
    co_await f.measure("load_1m", 50);
    const std::string of_reached =
        "SELECT max(value), uniqExact(device) FROM metrics WHERE name = 'load_1m' AND device IN "
        "(SELECT device FROM reached)";
    const std::string of_waiting =
        "SELECT count() FROM metrics WHERE device IN (SELECT device FROM waiting)";
    const std::string rollout = co_await f.deploy(
        "1",
        staged({bj::object{{"count", 1}}},
               {{"on_failure", "PAUSE"},
                {"gates", bj::array{query(of_reached, {{"at_most", 4}, {"name", "load"}}),
                                    query(of_waiting, {{"at_least", 1}, {"dry_run", true}})}}}));
    const bj::value paused = co_await f.until(rollout, "PAUSED");
    EXPECT_EQ(text(paused, "reason"), "load 50 of 1 device, at most 4");
    EXPECT_EQ(text(paused.at_pointer("/gates/0"), "query"), of_reached);
    EXPECT_EQ(paused.at_pointer("/gates/1/result"), "PASS") << bj::serialize(paused.at("gates"));
  });
}

TEST_F(Gates, AQueryThatCannotBeIsRefusedWithTheServersWords) {
  on_site([](Measured& f) -> Task<void> {
    const std::pair<const char*, const char*> cases[] = {
        {"SELECT sleep(3) FROM metrics", "'sleep' is no function that is offered"},
        {"SELECT count() FROM system.tables", "the tables are metrics, logs"},
        {"SELECT 1 FROM metrics; DROP TABLE metrics", "';' is not taken"},
        {"SELECT value + name FROM metrics", "ClickHouse cannot run the query: "},
        {"SELECT name FROM metrics", "the query must give numbers, not String"}};
    for (const auto& [text, words] : cases) {
      bj::object strategy{{"kind", "immediate"}};
      strategy["gates"] = bj::array{query(text, {{"at_most", 1}})};
      co_await f.api.call("POST", "/v1/deployments",
                          bj::object{{"release_id", "1"},
                                     {"target", {{"fleet_id", "edge"}}},
                                     {"strategy", std::move(strategy)}});
      EXPECT_EQ(f.api.last.status, 400) << text << f.api.last.body;
      EXPECT_NE(f.api.last.body.find("\"/strategy/gates/0/query\""), std::string::npos)
          << f.api.last.body;
      EXPECT_NE(f.api.last.body.find(words), std::string::npos) << f.api.last.body;
    }
  });
}

// --- Webhooks

constexpr const char* kSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

// A service of an operator's on loopback, which answers as the test wants.
class Judge {
 public:
  explicit Judge(Executor executor)
      : server_(
            executor,
            [this](net::Request request) -> Task<net::Reply> {
              asked.push_back(request);
              co_await sleep_for(delay);
              co_return net::Reply{answer, {}};
            },
            [](const net::Request&, std::exception_ptr) { return net::Response{}; }) {
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    port = listener->port();
    server_.listen(std::move(listener));
    say(200, R"({"result":"pass"})");
  }
  void say(int status, std::string body) {
    answer = {};
    answer.status = status;
    answer.body = std::move(body);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port) + "/check?team=qa"; }
  Task<void> stop() { co_await server_.stop(); }

  int port = 0;
  Duration delay{0};
  net::Response answer;
  std::vector<net::Request> asked;

 private:
  net::HttpServer server_;
};

class WebhookGates : public SiteTest<Fleet> {
 protected:
  void SetUp() override {
    SiteTest<Fleet>::SetUp();
    if (stack != nullptr) stack->settings.webhooks_allow_loopback = true;
  }
  void TearDown() override {
    if (stack != nullptr) stack->settings.webhooks_allow_loopback = false;
  }
  void on_judged_site(const std::function<Task<void>(Fleet&, Judge&)>& body) {
    on_site([&](Fleet& f) -> Task<void> {
      Judge judge(f.backend.executor);
      std::exception_ptr failure;
      try {
        co_await body(f, judge);
      } catch (...) {
        failure = std::current_exception();
      }
      co_await judge.stop();
      if (failure) std::rethrow_exception(failure);
    });
  }
};

bj::object judged_by(const Judge& judge, bj::object more = {}) {
  bj::object gate{{"kind", "webhook"}, {"url", judge.url()}, {"secret", kSecret},
                  {"interval", "5s"},  {"timeout", "1s"},    {"name", "quality"}};
  for (auto& [key, value] : more) gate[key] = value;
  return staged({bj::object{{"count", 1}}}, {{"gates", bj::array{std::move(gate)}}});
}

TEST_F(WebhookGates, AServiceThatSaysPassLetsItGoOn) {
  on_judged_site([](Fleet& f, Judge& judge) -> Task<void> {
    co_await f.grow(2);
    const std::string rollout = co_await f.deploy("1", judged_by(judge));
    const bj::value done = co_await f.until(rollout, "COMPLETED");
    EXPECT_EQ(done.at_pointer("/gates/0/result"), "PASS");
    EXPECT_FALSE(judge.asked.empty());
    const net::Request& request = judge.asked.front();
    EXPECT_EQ(request.method, "POST");
    EXPECT_EQ(request.target, "/check?team=qa");
    // Standard Webhooks: base64(HMAC-SHA256(key, "id.timestamp.body")).
    const auto header = [&](const char* name) {
      return std::string(request.headers.get(name).value_or(""));
    };
    const std::string signed_text =
        header("webhook-id") + "." + header("webhook-timestamp") + "." + request.body;
    const std::string key = *from_base64(std::string_view(kSecret).substr(6));
    EXPECT_EQ(header("webhook-signature"),
              "v1," + to_base64(crypto::hmac_sha256(key, signed_text)));
    const bj::value body = json::parse(request.body);
    EXPECT_EQ(text(body, "type"), "rollout.gate_check");
    EXPECT_EQ("/v1/rollouts/" + text(body.at("data"), "rollout_id"), rollout);
    EXPECT_EQ(body.at_pointer("/data/release/version"), "1");
    EXPECT_EQ(text(body.at("data"), "gate"), "quality");
    // The secret is told to nobody: not with the deployment, the rollout, the timeline or the audit
    // log, nor does it lie in the database as it is.
    co_await f.api.call("GET", "/v1/deployments");
    EXPECT_EQ(f.api.last.body.find("whsec"), std::string::npos);
    co_await f.api.call("GET", rollout + "/timeline");
    EXPECT_EQ(f.api.last.body.find("whsec"), std::string::npos);
    co_await f.backend.heard();
    for (const auto& event : f.backend.audited)
      EXPECT_EQ(event.DebugString().find("whsec"), std::string::npos);
    const auto kept = co_await f.backend.db.query(
        postgres::Scope::system(),
        "SELECT count(*) AS count FROM gate_secrets WHERE secret LIKE 'v1.%'");
    EXPECT_GE(kept.rows.at(0).integer("count"), 1);
    const auto plain = co_await f.backend.db.query(
        postgres::Scope::system(),
        "SELECT (SELECT count(*) FROM gate_secrets WHERE secret LIKE '%MfKQ9r8%') + (SELECT "
        "count(*) "
        "FROM deployments WHERE strategy::text LIKE '%MfKQ9r8%') AS count");
    EXPECT_EQ(plain.rows.at(0).integer("count"), 0);
    // A new sealing key reaches it like everything that is sealed.
    const auto newer = sealing_keys("b");
    co_await services::reseal_all(f.backend.db, *newer);
    const auto again = co_await f.backend.db.query(
        postgres::Scope::system(),
        "SELECT s.id, s.org_id, s.secret FROM gate_secrets s JOIN rollouts r ON r.deployment_id = "
        "s.deployment_id WHERE r.id = $1",
        postgres::Params().text(text(body.at("data"), "rollout_id")));
    const postgres::Row& row = again.rows.at(0);
    EXPECT_TRUE(row.text("secret").starts_with("v1.b.")) << row.text("secret");
    EXPECT_EQ(sealing_keys("b", true)->open(
                  row.text("secret"), services::gate_context(row.text("org_id"), row.text("id"))),
              kSecret);
  });
}

TEST_F(WebhookGates, OneThatSaysFailStopsItWithItsWords) {
  on_judged_site([](Fleet& f, Judge& judge) -> Task<void> {
    co_await f.grow(2);
    judge.say(200, R"({"result":"fail","reason":"checkout is\nbroken","more":1})");
    const bj::value end = co_await f.until(co_await f.deploy("1", judged_by(judge)), "FAILED");
    EXPECT_EQ(text(end, "reason"), "quality says fail: checkout is broken");
  });
}

TEST_F(WebhookGates, OneThatIsAwayPausesAndHoldsUpNobodyElse) {
  on_judged_site([](Fleet& f, Judge& judge) -> Task<void> {
    co_await f.grow(2);
    judge.delay = Duration(5000);  // longer than its timeout
    const std::string stuck = co_await f.deploy("1", judged_by(judge, {{"in_a_row", 2}}));
    co_await f.until_given("1", 1);
    co_await f.api.call("POST", "/v1/fleets", bj::object{{"name", "Other"}});
    const std::string other = co_await f.deploy("2", {{"kind", "immediate"}}, "other");
    co_await f.until(other, "COMPLETED");
    const bj::value paused = co_await f.until(stuck, "PAUSED");
    EXPECT_TRUE(text(paused, "reason").starts_with("it cannot be judged: quality says nothing: "))
        << text(paused, "reason");
    EXPECT_EQ(text(paused, "reason").find("team=qa"), std::string::npos);
    EXPECT_GE(judge.asked.size(), 2u);
  });
}

// Everything that is no answer is inconclusive, and says what it was.
TEST(GateWebhook, WhatIsNoAnswerIsInconclusive) {
  flock::testing::run_task(
      []() -> Task<void> {
        Judge judge(co_await asio::this_coro::executor);
        domain::Gate gate{
            .kind = domain::GateKind::kWebhook, .url = judge.url(), .timeout = Duration(300)};
        const Secret key = *stores::webhook_key(kSecret);
        const auto ask = [&](stores::WebhookRules rules) -> Task<domain::Check> {
          return stores::ask_webhook(std::move(rules), gate, key, {});
        };
        const stores::WebhookRules loopback{.allow_loopback = true};
        const auto says = [&](int status, std::string body) -> Task<std::string> {
          judge.say(status, std::move(body));
          const domain::Check check = co_await ask(loopback);
          EXPECT_EQ(check.verdict, domain::GateResult::kUnknown);
          co_return check.reason;
        };
        EXPECT_EQ(co_await says(200, R"({"result":"inconclusive","reason":"too early"})"),
                  "too early");
        EXPECT_EQ(co_await says(503, ""), "it answered 503");
        EXPECT_EQ(co_await says(302, ""), "it answered 302; redirects are not followed");
        for (const char* body : {R"({})", R"([])", R"({"result":true})", R"({"result":"PASS"})"})
          EXPECT_EQ(co_await says(200, body),
                    R"(it answered no "result": "pass", "fail" or "inconclusive")");
        EXPECT_NE(co_await says(200, "oops"), "");
        EXPECT_NE(
            co_await says(200, "{\"result\":\"pass\",\"a\":\"" + std::string(70'000, 'x') + "\"}"),
            "");
        EXPECT_NE(co_await says(200, "{\"result\":\"pass\",\"reason\":\"\xff\"}"), "");
        judge.delay = Duration(1000);
        EXPECT_NE(co_await says(200, R"({"result":"pass"})"), "");
        judge.delay = Duration(0);
        // Where it may not go, nobody is asked.
        judge.say(200, R"({"result":"pass"})");
        judge.asked.clear();
        for (const std::string host : {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"}) {
          gate.url = "http://" + host + ":" + std::to_string(judge.port) + "/";
          const domain::Check check = co_await ask({});
          EXPECT_EQ(check.verdict, domain::GateResult::kUnknown) << host;
          EXPECT_EQ(check.reason, "the host's address is not one that may be called") << host;
        }
        EXPECT_TRUE(judge.asked.empty());
        gate.url = judge.url();
        const domain::Check allowed = co_await ask({.allowed_networks = {"127.0.0.0/8"}});
        EXPECT_EQ(allowed.verdict, domain::GateResult::kPass) << allowed.reason;
        co_await judge.stop();
        EXPECT_EQ((co_await ask(loopback)).verdict, domain::GateResult::kUnknown)
            << "nobody is there";
      },
      Duration(30'000));
}

TEST(GateWebhook, NamesOnlyWhereItMayGo) {
  const stores::WebhookRules none, loopback{.allow_loopback = true},
      site{.allowed_networks = {"10.1.0.0/16"}};
  EXPECT_EQ(stores::webhook_fault(none, "https://qa.example.com/check"), "");
  EXPECT_EQ(stores::webhook_fault(loopback, "http://localhost:8080/check"), "");
  EXPECT_EQ(stores::webhook_fault(site, "https://10.1.2.3/check"), "");
  for (const char* bad :
       {"http://qa.example.com/", "http://localhost/", "https://user:pass@qa.example.com/",
        "https://qa.example.com/#a", "ftp://qa.example.com/", "https://127.0.0.1/",
        "https://[::1]/", "https://10.1.2.3/", "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/", "nonsense",
        ""})
    EXPECT_NE(stores::webhook_fault(none, bad), "") << bad;
  EXPECT_NE(stores::webhook_fault(site, "https://10.2.2.3/check"), "");
}

// What is wrong with a gate is said with its place.
TEST_F(Gates, AGateThatMakesNoSenseIsRefused) {
  on_site([](Measured& f) -> Task<void> {
    const std::pair<const char*, const char*> cases[] = {
        {R"({"kind":"oracle"})", "/kind"},
        {R"({"kind":"metric","metric":"mood","at_most":1})", "/metric"},
        {R"({"kind":"metric","metric":"cpu_cores","at_most":1})", "/metric"},
        {R"({"kind":"metric","metric":"load_1m","service":"web","at_most":1})", "/metric"},
        {R"({"kind":"metric","metric":"load_1m"})", "/at_most"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"at_least":2})", "/at_most"},
        {R"({"kind":"metric","metric":"load_1m","at_most":"1"})", "/at_most"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"aggregate":"sum"})", "/aggregate"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"window":"8d"})", "/window"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"interval":"1s"})", "/interval"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"sample":0})", "/sample"},
        {R"({"kind":"metric","metric":"load_1m","at_most":1,"signal":"failed"})", "/signal"},
        {R"({"kind":"query","at_most":1})", "/query"},
        {R"({"kind":"query","query":"SELECT 1 FROM metrics"})", "/at_most"},
        {R"({"kind":"webhook"})", "/url"},
        {R"({"kind":"webhook","url":"https://qa.example.com"})", "/secret"},
        {R"({"kind":"webhook","url":"https://qa.example.com","secret":"hunter2"})", "/secret"},
        {R"({"kind":"webhook","url":"http://qa.example.com","secret":"hunter2"})", "/url"},
        {R"({"kind":"webhook","url":"https://10.0.0.1","secret":"hunter2"})", "/url"},
        {R"({"kind":"webhook","url":"https://qa.example.com","timeout":"5m"})", "/timeout"},
        {R"({"kind":"comparison","alpha":0.9})", "/alpha"},
        {R"({"kind":"comparison","alpha":0})", "/alpha"},
        {R"({"kind":"comparison","tolerance":2})", "/tolerance"},
        {R"({"kind":"comparison","after":"30d"})", "/after"},
        {R"({"signal":"failed","at_most":0.1,"interval":"10s"})", "/interval"},
    };
    for (const auto& [gate, pointer] : cases) {
      bj::object strategy{{"kind", "immediate"}};
      strategy["gates"] = bj::array{json::parse(gate)};
      co_await f.api.call("POST", "/v1/deployments",
                          bj::object{{"release_id", "1"},
                                     {"target", {{"fleet_id", "edge"}}},
                                     {"strategy", std::move(strategy)}});
      EXPECT_EQ(f.api.last.status, 400) << gate << f.api.last.body;
      EXPECT_NE(f.api.last.body.find("\"/strategy/gates/0" + std::string(pointer) + "\""),
                std::string::npos)
          << gate << f.api.last.body;
    }
  });
}

}  // namespace
}  // namespace flock::targets

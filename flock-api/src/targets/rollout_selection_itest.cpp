// SPDX-License-Identifier: Apache-2.0
// Whom a deployment is for: filters, lists, newcomers, and several rollouts that want one device.
#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "targets/rollout_fleet_itest.h"

namespace flock::targets {
namespace {

using namespace itest;

class RolloutSelection : public SiteTest<Fleet> {};

const bj::object kOslo{{"site", "oslo"}}, kBergen{{"site", "bergen"}};

bj::object filtered(std::string release, std::string filter, bj::object more = {}) {
  return {{"release_id", release},
          {"target", {{"fleet_id", "edge"}, {"filter", filter}}},
          {"strategy", more.empty() ? bj::object{{"kind", "immediate"}} : std::move(more)}};
}

std::string release_of(const FakeDevice& device) { return device.desired.release_version(); }

Task<void> until_runs(const FakeDevice& device, std::string release) {
  co_await eventually("the device has release " + release, [&device, release]() -> Task<bool> {
    co_return release_of(device) == release;
  });
}

Task<void> relabel(Fleet& f, const FakeDevice& device, bj::object labels) {
  co_await f.api.call("PATCH", "/v1/devices/" + device.id, bj::object{{"labels", labels}});
}

TEST_F(RolloutSelection, AFilterNarrowsAFleetAndWhoComesToMatchJoins) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2, kOslo);
    co_await f.grow(2, kBergen);
    const bj::value done =
        co_await f.until(co_await f.deploy(filtered("1", "labels.site = oslo")), "COMPLETED");
    EXPECT_EQ(done.at_pointer("/counts/total").as_int64(), 2);
    EXPECT_EQ(f.given("1"), 2u);
    co_await f.grow(1, kOslo);
    co_await f.until_given("1", 3);
    co_await relabel(f, *f.devices[3], kOslo);
    co_await f.until_given("1", 4);
    co_await f.grow(1);
    // What is newer and for the whole fleet comes before, for newcomers too.
    co_await f.until(co_await f.deploy("2", {{"kind", "immediate"}}), "COMPLETED");
    EXPECT_EQ(f.given("2"), 6u);
    co_await f.grow(1, kOslo);
    co_await until_runs(*f.devices.back(), "2");
    // A filter that is newer than that has its devices.
    co_await f.until(co_await f.deploy(filtered("3", "labels.site = bergen")), "COMPLETED");
    co_await f.grow(1, kBergen);
    co_await until_runs(*f.devices.back(), "3");
    EXPECT_EQ(f.given("3"), 2u);
  });
}

TEST_F(RolloutSelection, AFrozenOneIsForWhoWasThere) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1, kOslo);
    bj::object frozen = filtered("1", "labels.site = oslo");
    frozen["target"].as_object()["membership"] = "FROZEN";
    co_await f.until(co_await f.deploy(frozen), "COMPLETED");
    // The moment decides: so does this, by itself.
    const std::string online = co_await f.deploy(filtered("2", "online = true"));
    co_await f.until(online, "COMPLETED");
    co_await f.grow(1, kOslo);
    // One that stands shows that newcomers were looked at.
    co_await f.until(co_await f.deploy(filtered("3", "labels.site:*")), "COMPLETED");
    EXPECT_EQ(f.given("3"), 2u);
    const bj::value page = co_await f.api.call("GET", "/v1/deployments");
    const bj::array& made = page.at("items").as_array();
    EXPECT_EQ(made.at(0).at("target").at("membership"), "DYNAMIC");
    EXPECT_EQ(made.at(1).at("target").at("membership"), "FROZEN");
    for (const char* older : {"1", "2"}) {
      const bj::value rollouts = co_await f.api.call("GET", "/v1/rollouts");
      for (const bj::value& rollout : rollouts.at("items").as_array())
        if (text(rollout.at("release"), "version") == older)
          EXPECT_EQ(rollout.at_pointer("/counts/total").as_int64(), 1) << older;
    }
  });
}

TEST_F(RolloutSelection, EachPartNarrows) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1, kOslo);
    co_await f.grow(2, kBergen);
    const bj::array list{bj::value(f.devices[0]->id), bj::value(f.devices[1]->id)};
    const bj::object target{{"device_ids", list}, {"filter", "labels.site = bergen"}};
    co_await f.until(co_await f.deploy(bj::object{{"release_id", "1"}, {"target", target}}),
                     "COMPLETED");
    EXPECT_EQ(f.given("1"), 1u);
    EXPECT_EQ(release_of(*f.devices[1]), "1");
    // By versions, over the whole organization.
    for (std::size_t i = 0; i < 3; ++i)
      co_await f.backend.db.query(
          postgres::Scope::system(), "UPDATE devices SET agent_version = $2 WHERE id = $1",
          postgres::Params().text(f.devices[i]->id).text("0." + std::to_string(9 + i) + ".0"));
    const bj::object versions{{"filter", "agent_version >= 0.10 AND agent_version < 0.11"}};
    co_await f.until(co_await f.deploy(bj::object{{"release_id", "2"}, {"target", versions}}),
                     "COMPLETED");
    EXPECT_EQ(f.given("2"), 1u);
    EXPECT_EQ(release_of(*f.devices[1]), "2");
    co_await f.api.call("POST", "/v1/fleets", bj::object{{"name", "North"}});
    co_await f.api.call(
        "POST", "/v1/deployments",
        bj::object{{"release_id", "1"}, {"target", {{"fleet_id", "north"}, {"device_ids", list}}}});
    EXPECT_EQ(f.api.last.status, 404) << f.api.last.body;
  });
}

TEST_F(RolloutSelection, WhatMeansNobodyIsRefusedWithItsPlace) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1, kOslo);
    struct Case {
      const char* target;
      unsigned status;
      const char *pointer, *part;
    };
    const Case cases[] = {
        {R"({"fleet_id":"edge","filter":"labels.site ="})", 400, "/target/filter", "column 14"},
        {R"({"fleet_id":"edge","filter":"nam = x"})", 400, "/target/filter", "did you mean name?"},
        {R"({"fleet_id":"edge","filter":"agent_version >= soon"})", 400, "/target/filter",
         "a version"},
        {R"({"fleet_id":"edge","filter":"labels.sites = oslo"})", 422, "/target/filter",
         "no device has the label sites; did you mean site?"},
        {R"({"fleet_id":"edge","filter":"NOT attributes.rack = 1"})", 422, "/target/filter",
         "no device has the attribute rack"},
        {R"({"fleet_id":"edge","filter":"labels.site = rome"})", 422, "/target/filter",
         "no device is meant by it"},
        {R"({"fleet_id":"edge","filter":"online = true","membership":"DYNAMIC"})", 400,
         "/target/membership", "`online`"},
        {R"({"device_ids":["019b0000-0000-7000-8000-000000000000"],"membership":"DYNAMIC"})", 400,
         "/target/membership", "nobody can join a list"},
        {R"({"fleet_id":"edge","membership":"FROZEN","allow_empty":true})", 400,
         "/target/allow_empty", "nobody would ever get it"},
        {R"({"membership":"FROZEN"})", 400, "\"/target\"",
         "name a fleet_id, device_ids or a filter"},
        {R"({"fleet_id":"edge","membership":"SOME"})", 400, "/target/membership", "FROZEN"},
    };
    for (const Case& each : cases) {
      co_await f.api.call("POST", "/v1/deployments",
                          bj::object{{"release_id", "1"}, {"target", json::parse(each.target)}});
      EXPECT_EQ(f.api.last.status, each.status) << each.target << f.api.last.body;
      for (const char* part : {each.pointer, each.part})
        EXPECT_NE(f.api.last.body.find(part), std::string::npos) << part << f.api.last.body;
    }
    // Those who are still to come are meant when that is said.
    const bj::object coming{
        {"fleet_id", "edge"}, {"filter", "labels.rack = \"7\""}, {"allow_empty", true}};
    co_await f.until(co_await f.deploy(bj::object{{"release_id", "1"}, {"target", coming}}),
                     "COMPLETED");
    EXPECT_EQ(f.given("1"), 0u);
    co_await f.grow(1, {{"rack", "7"}});
    co_await f.until_given("1", 1);
  });
}

TEST_F(RolloutSelection, ARolloutOfHigherPriorityKeepsItsDevices) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1, kOslo);
    co_await f.grow(1, kBergen);
    f.held = {"1"};
    bj::object urgent = filtered("1", "labels.site = oslo");
    urgent["priority"] = 5;
    const std::string first = co_await f.deploy(urgent);
    co_await f.until_given("1", 1);
    bj::object all{{"release_id", "2"}, {"target", {{"fleet_id", "edge"}}}};
    co_await f.api.call("POST", "/v1/deployments", all);
    EXPECT_EQ(f.api.last.status, 409) << f.api.last.body;
    for (const char* part : {"/priority", "with priority 5, has 1 device: ", "LEAVE_OUT"})
      EXPECT_NE(f.api.last.body.find(part), std::string::npos) << part << f.api.last.body;
    all["on_conflict"] = "LEAVE_OUT";
    const bj::value beside = co_await f.until(co_await f.deploy(all), "COMPLETED");
    EXPECT_EQ(beside.at_pointer("/counts/total").as_int64(), 1);
    EXPECT_EQ(release_of(*f.devices[0]), "1");
    EXPECT_EQ(release_of(*f.devices[1]), "2");
    // Nobody would be left.
    bj::object oslo = filtered("2", "labels.site = oslo");
    oslo["on_conflict"] = "LEAVE_OUT";
    co_await f.api.call("POST", "/v1/deployments", oslo);
    EXPECT_EQ(f.api.last.status, 422) << f.api.last.body;
    // At the same priority the newer one takes over, unless it says otherwise.
    bj::object same{{"release_id", "3"}, {"target", {{"fleet_id", "edge"}}}, {"priority", 5}};
    same["on_conflict"] = "REFUSE";
    co_await f.api.call("POST", "/v1/deployments", same);
    EXPECT_EQ(f.api.last.status, 409) << f.api.last.body;
    same.erase("on_conflict");
    co_await f.until(co_await f.deploy(same), "COMPLETED");
    co_await f.until(first, "SUPERSEDED");
    EXPECT_EQ(f.given("3"), 2u);
  });
}

TEST_F(RolloutSelection, WhatIsTakenBackStandsForNobodyAnyMore) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(1, kOslo);
    co_await f.until(co_await f.deploy(filtered("1", "labels.site = oslo")), "COMPLETED");
    const std::string second = co_await f.deploy(filtered("2", "labels.site = oslo"));
    co_await f.until(second, "COMPLETED");
    co_await f.api.call("DELETE", "/v1/releases/2");
    EXPECT_EQ(f.api.last.status, 409) << "newcomers get it";
    co_await f.order(second, "roll-back");
    co_await f.until(second, "ROLLED_BACK");
    co_await f.grow(1, kOslo);
    co_await f.until_given("1", 2);
  });
}

TEST_F(RolloutSelection, StagesTakeTheirShareOfEachValueOfALabel) {
  on_site([](Fleet& f) -> Task<void> {
    const auto fleet = co_await f.api.call("GET", "/v1/fleets/edge");
    co_await f.backend.db.query(
        postgres::Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, hardware, "
        "labels) SELECT "
        "md5($1::text || n)::uuid, f.org_id, f.id, 'gw-' || n, $1::text || n, 'amd64', "
        "'{\"architecture\":\"amd64\"}', CASE WHEN n "
        "<= 100 THEN '{\"site\":\"oslo\"}' WHEN n <= 140 THEN '{\"site\":\"rome\"}' ELSE '{}' "
        "END::jsonb FROM fleets f, generate_series(1, 150) n WHERE f.id = $1::uuid",
        postgres::Params().text(text(fleet, "id")));
    bj::object strategy{
        {"kind", "manual"},
        {"stages", bj::array{bj::object{{"percent", 10}}, bj::object{{"percent", 50}}}},
        {"spread_over", "site"}};
    const std::string rollout = co_await f.deploy("1", strategy);
    std::map<std::string, std::string> sites;
    const bj::value devices = co_await f.api.call("GET", "/v1/devices?page_size=1000");
    for (const bj::value& device : devices.at("items").as_array()) {
      const bj::object& labels = device.at("labels").as_object();
      sites[text(device, "id")] = labels.empty() ? "" : std::string(labels.at("site").as_string());
    }
    std::map<std::pair<std::string, std::int64_t>, int> counts;
    const bj::value page = co_await f.api.call("GET", rollout + "/devices?page_size=1000");
    for (const bj::value& item : page.at("items").as_array())
      ++counts[{sites.at(text(item, "device_id")), item.at("stage").as_int64()}];
    const std::map<std::string, int> sizes{{"oslo", 100}, {"rome", 40}, {"", 10}};
    for (const auto& [site, size] : sizes) {
      EXPECT_NEAR((counts[{site, 1}]), size * 0.1, 1) << site;
      EXPECT_NEAR((counts[{site, 1}] + counts[{site, 2}]), size * 0.5, 1) << site;
    }
    strategy["spread_over"] = "sites";
    co_await f.api.call(
        "POST", "/v1/deployments",
        bj::object{
            {"release_id", "1"}, {"target", {{"fleet_id", "edge"}}}, {"strategy", strategy}});
    EXPECT_EQ(f.api.last.status, 422) << f.api.last.body;
    EXPECT_NE(f.api.last.body.find("/strategy/spread_over"), std::string::npos);
    strategy["spread_over"] = "site";
    strategy["max_down_per"] = bj::object{{"label", "sites"}, {"count", 1}};
    co_await f.api.call(
        "POST", "/v1/deployments",
        bj::object{
            {"release_id", "1"}, {"target", {{"fleet_id", "edge"}}}, {"strategy", strategy}});
    EXPECT_EQ(f.api.last.status, 422) << f.api.last.body;
    EXPECT_NE(f.api.last.body.find("/strategy/max_down_per/label"), std::string::npos);
  });
}

bj::object planned(bj::object more) {
  bj::object body{{"release_id", "2"}, {"target", {{"fleet_id", "edge"}}}, {"soak", "0s"}};
  for (auto& [key, value] : more) body[key] = value;
  return body;
}

TEST_F(RolloutSelection, APlanSaysWhoIsInAndWhoIsOutAndWhy) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3, kOslo);
    co_await f.grow(2, kBergen);
    f.held = {"1"};
    const bj::array first_device{bj::value(f.devices[0]->id)};
    const std::string first = co_await f.deploy(bj::object{
        {"release_id", "1"}, {"target", {{"device_ids", first_device}}}, {"priority", 3}});
    co_await f.until_given("1", 1);
    co_await f.api.call("POST", "/v1/devices/" + f.devices[4]->id + "/actions/revoke");
    co_await f.backend.db.query(
        postgres::Scope::system(),
        "UPDATE devices SET architecture = 'riscv64', online = false WHERE id = $1",
        postgres::Params().text(f.devices[1]->id));
    const bj::object body = planned(
        {{"target", {{"fleet_id", "edge"}, {"filter", "labels.site = oslo"}}},
         {"on_conflict", "LEAVE_OUT"},
         {"strategy", {{"kind", "progressive"}, {"stages", bj::array{bj::object{{"count", 1}}}}}}});
    const bj::value plan = co_await f.api.call("POST", "/v1/deployments:plan", body);
    EXPECT_EQ(f.api.last.status, 200) << f.api.last.body;
    EXPECT_EQ(plan.at_pointer("/devices/included").as_int64(), 2);
    EXPECT_EQ(plan.at_pointer("/devices/offline").as_int64(), 1);
    EXPECT_EQ(plan.at_pointer("/devices/examples").as_array().size(), 2u);
    std::map<std::string, std::int64_t> outside;
    for (const bj::value& each : plan.at("excluded").as_array())
      outside[text(each, "reason")] = each.at("devices").as_int64();
    EXPECT_EQ(outside, (std::map<std::string, std::int64_t>{
                           {"CONFLICT", 1}, {"FILTER", 1}, {"REVOKED", 1}}));
    EXPECT_EQ(plan.at_pointer("/conflicts/0/outcome"), "LEFT_OUT");
    EXPECT_EQ("/v1/rollouts/" + text(plan.at_pointer("/conflicts/0"), "rollout_id"), first);
    EXPECT_EQ(plan.at_pointer("/stages/1/devices").as_int64(), 1);
    EXPECT_EQ(plan.at_pointer("/stages/1/reached").as_int64(), 2);
    std::map<std::string, std::size_t> missing;
    for (const bj::value& each : plan.at("platforms").as_array())
      missing[text(each, "platform")] = each.at("missing_images").as_array().size();
    EXPECT_EQ(missing,
              (std::map<std::string, std::size_t>{{"linux/amd64", 0}, {"linux/riscv64", 1}}));
    EXPECT_EQ(plan.at_pointer("/download/devices").as_int64(), 1);
    EXPECT_EQ(plan.at_pointer("/download/unknown_images").as_array().size(), 1u);
    EXPECT_TRUE(plan.at("obstacles").as_array().empty()) << f.api.last.body;
    EXPECT_LT(text(plan, "earliest_end_at"), text(plan, "latest_end_at"));
    // Nothing was written.
    const bj::value made = co_await f.api.call("GET", "/v1/deployments");
    EXPECT_EQ(made.at("items").as_array().size(), 1u);
    // What would be refused is said.
    const bj::value refused = co_await f.api.call("POST", "/v1/deployments:plan", planned({}));
    EXPECT_EQ(refused.at_pointer("/conflicts/0/outcome"), "REFUSED");
    EXPECT_EQ(refused.at("obstacles").as_array().size(), 1u);
    co_await f.order(first, "abort");
  });
}

TEST_F(RolloutSelection, APlanThatIsNotTheSameAnyMoreIsNotCarriedOut) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2, kOslo);
    bj::object body = planned({});
    const auto plan = [&]() -> Task<std::string> {
      co_return text(co_await f.api.call("POST", "/v1/deployments:plan", body), "hash");
    };
    const std::string hash = co_await plan();
    EXPECT_EQ(co_await plan(), hash);
    co_await relabel(f, *f.devices[0], kBergen);
    EXPECT_EQ(co_await plan(), hash) << "the same devices, whatever they are called";
    co_await f.grow(1);
    const auto refused = [&](bj::object asked) -> Task<void> {
      asked["plan_hash"] = hash;
      co_await f.api.call("POST", "/v1/deployments", asked);
      EXPECT_EQ(f.api.last.status, 412) << f.api.last.body;
      EXPECT_NE(f.api.last.body.find("not the same any more"), std::string::npos);
    };
    co_await refused(body);
    co_await refused(planned({{"release_id", "3"}}));
    body["plan_hash"] = co_await plan();
    co_await f.until(co_await f.deploy(body), "COMPLETED");
    EXPECT_EQ(f.given("2"), 3u);
  });
}

}  // namespace
}  // namespace flock::targets

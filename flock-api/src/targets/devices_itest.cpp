// SPDX-License-Identifier: Apache-2.0
// Devices over real servers: what people write about them, lists, moves, many at once, clones.
#include <gtest/gtest.h>

#include "async/scope.h"
#include "targets/itest_stack.h"
#include "testing/run_task.h"

namespace flock::targets {
namespace {

using namespace itest;
using flock::testing::run_task;
using Report = device::v1::ReportedState;

// An organization with the fleets edge and north, and `count` devices box-1 ... in edge.
struct Site {
  explicit Site(Backend& backend) : backend(backend), api(backend.executor, backend.stack) {}

  Task<void> make(std::string name, int count) {
    api.token = co_await backend.make_tenant(name);
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    north = text(co_await api.call("POST", "/v1/fleets", bj::object{{"name", "North"}}), "id");
    key = text(co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}}),
               "secret");
    for (int i = 1; i <= count; ++i) {
      devices.push_back(std::make_unique<FakeDevice>(backend));
      co_await devices.back()->join(api, key);
      co_await api.call("PATCH", path(i), bj::object{{"name", "box-" + std::to_string(i)}});
    }
  }
  std::string path(int number, const std::string& rest = "") const {
    return "/v1/devices/" + devices.at(static_cast<std::size_t>(number) - 1)->id + rest;
  }
  // The names on all pages of one device each, with commas.
  Task<std::string> names(std::string query) {
    std::string out, token;
    do {
      const bj::value page = co_await api.call(
          "GET", "/v1/devices?page_size=2" + query + (token.empty() ? "" : "&page_token=" + token));
      EXPECT_EQ(api.last.status, 200) << api.last.body;
      if (api.last.status != 200) co_return api.last.body;
      for (const bj::value& item : page.at("items").as_array())
        out += (out.empty() ? "" : ",") + text(item, "name");
      token = text(page, "next_page_token");
    } while (!token.empty());
    co_return out;
  }
  Task<std::string> kinds(std::string device) {
    std::string out;
    const bj::value page = co_await api.call("GET", "/v1/devices/" + device + "/history");
    for (const bj::value& item : page.at("items").as_array())
      out += (out.empty() ? "" : ",") + text(item, "kind");
    co_return out;
  }

  Backend& backend;
  Api api;
  std::string key, north;
  std::vector<std::unique_ptr<FakeDevice>> devices;
};

void with_site(int count, std::function<Task<void>(Site&)> body) {
  Stack* const stack = Stack::get();
  if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *stack);
        co_await backend.start();
        Site site(backend);
        co_await site.make("Devices " + new_uuid(), count);
        co_await body(site);
        site.devices.clear();
        co_await backend.stop();
      },
      Duration(60'000));
}

TEST(Devices, ArePatchedByMerging) {
  with_site(1, [](Site& s) -> Task<void> {
    bj::value device = co_await s.api.call(
        "PATCH", s.path(1),
        bj::object{{"labels", {{"site", "oslo"}, {"stage", "canary"}}},
                   {"attributes", {{"rack", 12}, {"row", "b"}, {"spare", true}}},
                   {"notes", "behind the door"}});
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    device = co_await s.api.call("PATCH", s.path(1),
                                 bj::object{{"labels", {{"stage", nullptr}, {"line", "4"}}},
                                            {"attributes", {{"row", nullptr}}}});
    EXPECT_EQ(device.at("labels"), (bj::object{{"site", "oslo"}, {"line", "4"}}));
    EXPECT_EQ(device.at("attributes"), (bj::object{{"rack", 12}, {"spare", true}}));
    EXPECT_EQ(text(device, "notes"), "behind the door");
    EXPECT_EQ(text(device, "name"), "box-1");
    device = co_await s.api.call(
        "PATCH", s.path(1),
        bj::object{{"labels", nullptr}, {"attributes", nullptr}, {"notes", nullptr}});
    EXPECT_TRUE(device.at("labels").as_object().empty());
    EXPECT_TRUE(device.at("attributes").as_object().empty());
    EXPECT_FALSE(device.as_object().contains("notes"));
    bj::object many;
    for (int i = 0; i < 65; ++i) many["k" + std::to_string(i)] = "v";
    const bj::object faulty[] = {{{"labels", many}},
                                 {{"labels", {{"Site", "oslo"}}}},
                                 {{"labels", {{"site", 4}}}},
                                 {{"labels", {{"site", std::string(256, 'x')}}}},
                                 {{"labels", {{std::string(64, 'x'), "y"}}}},
                                 {{"attributes", {{"a", bj::array{1}}}}},
                                 {{"notes", std::string(4001, 'x')}},
                                 {{"name", nullptr}},
                                 {{"colour", "red"}}};
    for (const bj::object& body : faulty) {
      co_await s.api.call("PATCH", s.path(1), body);
      EXPECT_EQ(s.api.last.status, 400) << bj::serialize(body).substr(0, 80);
    }
    many.erase("k0");
    co_await s.api.call("PATCH", s.path(1), bj::object{{"labels", many}});
    EXPECT_EQ(s.api.last.status, 200) << "64 are allowed";
    co_await s.api.call("PATCH", s.path(1), bj::object{{"labels", {{"more", "x"}}}});
    EXPECT_EQ(s.api.last.status, 422);
  });
}

TEST(Devices, AreListedByFilterAndOrder) {
  with_site(5, [](Site& s) -> Task<void> {
    for (int i = 1; i <= 5; ++i)
      co_await s.api.call("PATCH", s.path(i),
                          bj::object{{"labels", {{"site", i % 2 == 0 ? "oslo" : "bern"}}},
                                     {"attributes", {{"rack", i}}}});
    co_await s.api.call("POST", s.path(5, "/actions/revoke"));
    EXPECT_EQ(co_await s.names(""), "box-1,box-2,box-3,box-4,box-5");
    EXPECT_EQ(co_await s.names("&order_by=name%20desc"), "box-5,box-4,box-3,box-2,box-1");
    EXPECT_EQ(co_await s.names("&filter=labels.site=oslo"), "box-2,box-4");
    EXPECT_EQ(co_await s.names("&filter=NOT%20labels.site=oslo&order_by=name"),
              "box-1,box-3,box-5");
    EXPECT_EQ(co_await s.names("&filter=labels.site=bern%20AND%20attributes.rack%3E=3"),
              "box-3,box-5");
    EXPECT_EQ(co_await s.names("&filter=labels.site=bern%20OR%20attributes.rack=2&state=REVOKED"),
              "box-5");
    const std::string seen = "&order_by=last_seen%20desc,name";
    EXPECT_EQ(co_await s.names("&filter=fleet=edge%20AND%20architecture=amd64" + seen),
              co_await s.names("&fleet_id=edge" + seen));
    EXPECT_EQ(co_await s.names("&fleet_id=north"), "");
    EXPECT_EQ(co_await s.names("&filter=clone_suspected=true"), "");
    EXPECT_EQ(co_await s.names("&filter=os.version%3E1%20AND%20memory_bytes%3E-1%20AND%20cpus%3E-1"
                               "%20AND%20kernel%3E1"),
              "");
    EXPECT_EQ(co_await s.names("&filter=name=%22box-3%22"), "box-3");
    co_await s.api.call("GET", "/v1/devices?filter=nam=x");
    EXPECT_EQ(s.api.last.status, 400);
    EXPECT_NE(s.api.last.body.find("?filter"), std::string::npos) << s.api.last.body;
    co_await s.api.call("GET", "/v1/devices?order_by=notes");
    EXPECT_EQ(s.api.last.status, 400);
    const bj::value page = co_await s.api.call("GET", "/v1/devices?page_size=1&order_by=name");
    co_await s.api.call("GET", "/v1/devices?page_size=1&order_by=name%20desc&page_token=" +
                                   text(page, "next_page_token"));
    EXPECT_EQ(s.api.last.status, 400) << "the token belongs to another order";
  });
}

TEST(Devices, MoveAndGetWhatTheNewFleetRuns) {
  with_site(1, [](Site& s) -> Task<void> {
    FakeDevice& device = *s.devices[0];
    const std::string digest = "sha256:" + std::string(64, 'a');
    const std::string one = co_await s.backend.put_release(s.api.token, "one",
                                                           {{"linux/amd64", digest}}),
                      two = co_await s.backend.put_release(s.api.token, "two",
                                                           {{"linux/amd64", digest}});
    const auto deploy = [&](std::string release, std::string fleet) -> Task<void> {
      const bj::value made = co_await s.api.call(
          "POST", "/v1/deployments",
          bj::object{{"release_id", release}, {"target", {{"fleet_id", fleet}}}});
      co_await eventually("the deployment runs", [&]() -> Task<bool> {
        co_return text(co_await s.api.call("GET", "/v1/deployments/" + text(made, "id")),
                       "state") == "EXECUTED";
      });
    };
    const auto runs = [&](std::string release, int version) -> Task<void> {
      co_await eventually("the device is told of its release", [&]() -> Task<bool> {
        co_return device.desired.release_id() == release&& device.desired.version() == version;
      });
    };
    co_await deploy(one, "edge");
    co_await runs(one, 1);
    co_await deploy(two, "north");
    bj::value moved =
        co_await s.api.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", "north"}});
    EXPECT_EQ(text(moved.at("fleet"), "slug"), "north");
    co_await runs(two, 2);
    co_await s.api.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", "edge"}});
    co_await runs(one, 3);
    EXPECT_EQ(co_await s.kinds(device.id), "MOVED,MOVED,RENAMED,REGISTERED");
    co_await s.api.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", "nosuch"}});
    EXPECT_EQ(s.api.last.status, 404);
  });
}

TEST(Devices, StayInTheFleetsThatTheCallerSees) {
  with_site(1, [](Site& s) -> Task<void> {
    const bj::value fleets = co_await s.api.call("GET", "/v1/fleets/edge");
    Api limited(
        s.backend.executor, s.backend.stack,
        co_await s.backend.make_key(s.api.token, "admin", {}, std::vector{text(fleets, "id")}));
    co_await limited.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", s.north}});
    EXPECT_EQ(limited.last.status, 404);
    co_await limited.call(
        "POST", "/v1/devices:batchUpdate",
        bj::object{{"device_ids", {s.devices[0]->id}}, {"move_to_fleet_id", "north"}});
    EXPECT_EQ(limited.last.status, 404);
    co_await limited.call("DELETE", s.path(1));
    EXPECT_EQ(limited.last.status, 204) << limited.last.body;
    co_await limited.call("POST", s.path(1, "/actions/undelete"));
    EXPECT_EQ(limited.last.status, 200) << limited.last.body;
    co_await s.api.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", "north"}});
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    for (const char* rest : {"", "/history"}) {
      co_await limited.call("GET", s.path(1, rest));
      EXPECT_EQ(limited.last.status, 404) << rest;
    }
    co_await limited.call(
        "POST", "/v1/devices:batchUpdate",
        bj::object{{"device_ids", {s.devices[0]->id}}, {"set_labels", {{"a", "b"}}}});
    EXPECT_EQ(limited.last.status, 404) << limited.last.body;
  });
}

// What was read is kept, and shown again only while it holds and to who may see it.
TEST(Devices, AreShownAsTheyAreAtEachRead) {
  with_site(1, [](Site& s) -> Task<void> {
    const std::string edge = text(co_await s.api.call("GET", "/v1/fleets/edge"), "id");
    Api limited(s.backend.executor, s.backend.stack,
                co_await s.backend.make_key(s.api.token, "viewer", {}, std::vector{edge}));
    const auto read = [&](const char* pointer) -> Task<std::string> {
      const bj::value device = co_await s.api.call("GET", s.path(1));
      EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
      const bj::value again = co_await limited.call("GET", s.path(1));
      EXPECT_EQ(again, device);
      EXPECT_EQ(limited.last.headers.get("ETag"), s.api.last.headers.get("ETag"));
      boost::system::error_code none;
      const bj::value* found = device.find_pointer(pointer, none);
      co_return found != nullptr ? std::string(found->as_string()) : "";
    };
    EXPECT_EQ(co_await read("/fleet/name"), "Edge");
    co_await s.api.call("PATCH", "/v1/fleets/edge", bj::object{{"name", "Edge of Oslo"}});
    EXPECT_EQ(co_await read("/fleet/name"), "Edge of Oslo");
    const std::string tag(s.api.last.headers.get("ETag").value_or(""));
    co_await s.api.call("PATCH", s.path(1), bj::object{{"labels", {{"site", "oslo"}}}});
    EXPECT_EQ(co_await read("/labels/site"), "oslo");
    EXPECT_NE(s.api.last.headers.get("ETag"), tag);
    EXPECT_EQ(co_await read("/reported/phase"), "");
    co_await s.devices[0]->report(s.devices[0]->state(Report::SOAKING));
    // Both read the same only once the report has arrived, not while it does.
    const auto shows = [&](const char* word) {
      return s.api.last.body.find(word) != std::string::npos;
    };
    for (int i = 0; i < 250 && !(shows("SOAKING") && shows("ONLINE")); ++i) {
      co_await sleep_for(Duration(20));
      co_await s.api.call("GET", s.path(1));
    }
    EXPECT_EQ(co_await read("/reported/phase"), "SOAKING");
    co_await s.api.call("POST", s.path(1, "/actions/move"), bj::object{{"fleet_id", s.north}});
    co_await s.api.call("GET", s.path(1));
    EXPECT_NE(s.api.last.body.find(s.north), std::string::npos);
    co_await limited.call("GET", s.path(1));
    EXPECT_EQ(limited.last.status, 404) << limited.last.body;
    co_await s.api.call("DELETE", s.path(1));
    co_await s.api.call("GET", s.path(1));
    EXPECT_EQ(s.api.last.status, 404) << s.api.last.body;
  });
}

// Reads that come at the same time share a statement, but only of callers who see the same rows.
TEST(Devices, ReadAtTheSameTimeStayBehindTheWallsOfEachCaller) {
  with_site(4, [](Site& s) -> Task<void> {
    for (int number : {3, 4})
      co_await s.api.call("POST", s.path(number, "/actions/move"),
                          bj::object{{"fleet_id", s.north}});
    const std::string edge = text(co_await s.api.call("GET", "/v1/fleets/edge"), "id");
    const auto key_for = [&](std::vector<std::string> fleets) {
      return s.backend.make_key(s.api.token, "viewer", {}, std::move(fleets));
    };
    struct Caller {
      std::string token, sees;  // the numbers of devices
    };
    const std::vector<Caller> callers = {
        {s.api.token, "1234"},
        {co_await key_for({edge}), "12"},
        {co_await key_for({s.north}), "34"},
        {co_await key_for({}), ""},
        {co_await s.backend.make_tenant("Reads " + new_uuid()), ""}};
    int answers = 0;
    const auto read = [&](Caller caller, int number) -> Task<void> {
      Api api(s.backend.executor, s.backend.stack, caller.token);
      const bool sees = caller.sees.find(std::to_string(number)) != std::string::npos;
      for (int round = 0; round < 10; ++round, ++answers) {
        const bj::value device = co_await api.call("GET", s.path(number));
        EXPECT_EQ(api.last.status, sees ? 200 : 404) << caller.sees << " " << number;
        if (sees) EXPECT_EQ(text(device, "name"), "box-" + std::to_string(number));
      }
    };
    TaskScope scope(s.backend.executor);
    for (const Caller& caller : callers)
      for (int number = 1; number <= 4; ++number) scope.spawn("read", read(caller, number));
    co_await scope.join();
    EXPECT_EQ(answers, 200);
  });
}

TEST(Devices, AreDecommissionedAndUndeleted) {
  with_site(1, [](Site& s) -> Task<void> {
    const std::string id = s.devices[0]->id;
    co_await s.api.call("DELETE", s.path(1));
    EXPECT_EQ(s.api.last.status, 204);
    EXPECT_EQ(co_await s.names(""), "");
    EXPECT_EQ(co_await s.kinds(id), "REMOVED,RENAMED,REGISTERED") << "history stays";
    bj::value device = co_await s.api.call("POST", s.path(1, "/actions/undelete"));
    EXPECT_EQ(text(device, "state"), "OFFLINE") << "its removal alone had revoked it";
    co_await s.api.call("POST", s.path(1, "/actions/undelete"));
    EXPECT_EQ(s.api.last.status, 409);
    co_await s.api.call("DELETE", s.path(1));
    co_await s.api.call("POST", "/v1/devices/register", registration(s.key, s.devices[0]->key));
    EXPECT_EQ(s.api.last.status, 201) << "a removed device gave its key free";
    co_await s.api.call("POST", s.path(1, "/actions/undelete"));
    EXPECT_EQ(s.api.last.status, 409) << "and so cannot come back";

    const bj::value anew = co_await s.api.call("GET", "/v1/devices");
    const std::string other = text(anew.at("items").as_array().at(0), "id");
    device = co_await s.api.call("POST", "/v1/devices/" + other + "/actions/decommission",
                                 bj::object{{"reason", "sold"}});
    EXPECT_EQ(text(device, "state"), "DECOMMISSIONED");
    EXPECT_EQ(text(device, "decommission_reason"), "sold");
    EXPECT_NE(co_await s.names(""), "") << "it stays in the list";
    EXPECT_NE(co_await s.names("&state=DECOMMISSIONED"), "");
    EXPECT_EQ(co_await s.names("&filter=NOT%20state=DECOMMISSIONED"), "");
    co_await s.api.call("POST", "/v1/devices/register", registration(s.key, s.devices[0]->key));
    EXPECT_EQ(s.api.last.status, 403) << "it is revoked for good";
  });
}

TEST(Devices, ChangeManyAtOnceOrNone) {
  with_site(3, [](Site& s) -> Task<void> {
    const auto batch = [&](bj::object body) {
      return s.api.call("POST", "/v1/devices:batchUpdate", std::move(body));
    };
    co_await batch({{"filter", "fleet = edge"}, {"set_labels", {{"a", "1"}}}});
    EXPECT_EQ(s.api.last.status, 400) << "expected_count is missing";
    co_await batch(
        {{"filter", "fleet = edge"}, {"expected_count", 2}, {"set_labels", {{"a", "1"}}}});
    EXPECT_EQ(s.api.last.status, 409);
    EXPECT_NE(s.api.last.body.find(R"("actual_count":"3")"), std::string::npos) << s.api.last.body;
    EXPECT_EQ(co_await s.names("&filter=labels.a:*"), "");
    const bj::value done = co_await batch({{"filter", "fleet = edge"},
                                           {"expected_count", 3},
                                           {"set_labels", {{"a", "1"}, {"b", "2"}}},
                                           {"move_to_fleet_id", "north"}});
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    EXPECT_EQ(text(done, "state"), "DONE");
    EXPECT_EQ(done.at_pointer("/counts/total"), bj::value(3));
    EXPECT_EQ(done.at_pointer("/counts/changed"), bj::value(6));
    EXPECT_EQ(co_await s.names("&filter=labels.a=1&fleet_id=north"), "box-1,box-2,box-3");
    co_await batch(
        {{"device_ids", {s.devices[0]->id, s.devices[1]->id}}, {"remove_labels", {"a"}}});
    EXPECT_EQ(s.api.last.status, 200) << s.api.last.body;
    EXPECT_EQ(co_await s.names("&filter=labels.a=1"), "box-3");
    EXPECT_EQ(co_await s.names("&filter=labels.b=2"), "box-1,box-2,box-3");
    co_await batch({{"device_ids", {s.devices[0]->id, new_uuid()}}, {"remove_labels", {"b"}}});
    EXPECT_EQ(s.api.last.status, 404);
    bj::object many;
    for (int i = 0; i < 63; ++i) many["k" + std::to_string(i)] = "v";
    co_await s.api.call("PATCH", s.path(2), bj::object{{"labels", many}});
    co_await batch({{"filter", "fleet = north"},
                    {"expected_count", 3},
                    {"set_labels", {{"one", ""}, {"c", ""}}}});
    EXPECT_EQ(s.api.last.status, 422);
    EXPECT_EQ(co_await s.names("&filter=labels.c:*"), "") << "none of it";
  });
}

// More than a request waits for: fixed when it was asked for, done by the background.
TEST(Devices, ChangeVeryManyInTheBackground) {
  with_site(1, [](Site& s) -> Task<void> {
    co_await s.backend.db.query(
        postgres::Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) SELECT "
        "gen_random_uuid(), d.org_id, d.fleet_id, 'many', d.id || '-' || n, 'amd64' FROM devices "
        "d, generate_series(1, 20500) n WHERE d.id = $1",
        postgres::Params().text(s.devices[0]->id));
    const bj::value started = co_await s.api.call("POST", "/v1/devices:batchUpdate",
                                                  bj::object{{"filter", "name = many"},
                                                             {"expected_count", 20500},
                                                             {"set_labels", {{"site", "oslo"}}},
                                                             {"move_to_fleet_id", "north"}});
    EXPECT_EQ(s.api.last.status, 202) << s.api.last.body;
    bj::value operation;
    co_await eventually(
        "the operation ends",
        [&]() -> Task<bool> {
          operation = co_await s.api.call("GET", "/v1/operations/" + text(started, "id"));
          co_return text(operation, "state") != "RUNNING";
        },
        Duration(40'000));
    EXPECT_EQ(text(operation, "state"), "DONE") << operation;
    EXPECT_EQ(operation.at_pointer("/counts/changed"), bj::value(41000));
    const bj::value north = co_await s.api.call("GET", "/v1/fleets/north");
    EXPECT_EQ(north.at("device_count"), bj::value(20500));
  });
}

TEST(Devices, ThatSpeakFromTwoMachinesAreSuspectedClones) {
  with_site(1, [](Site& s) -> Task<void> {
    FakeDevice& device = *s.devices[0];
    std::int64_t at = to_unix_ms(system_clock().now());
    const auto speak = [&](std::string boot) -> Task<void> {
      Report report = device.state(Report::IDLE);
      report.set_boot_id(boot);
      report.set_at_ms(at += 1000);
      co_await device.report(report);
    };
    const auto suspected = [&]() -> Task<bool> {
      co_return (co_await s.names("&filter=clone_suspected=true")) == "box-1";
    };
    for (const char* boot : {"a", "a", "b", "b", "c"}) co_await speak(boot);
    co_await eventually("the reports are in", [&]() -> Task<bool> {
      co_return text(co_await s.api.call("GET", s.path(1)), "state") == "ONLINE";
    });
    EXPECT_FALSE(co_await suspected()) << "restarts are no clones";
    for (const char* boot : {"b", "c", "b"}) co_await speak(boot);
    co_await eventually("the suspicion", suspected);
    const bj::value seen = co_await s.api.call("GET", s.path(1));
    EXPECT_TRUE(seen.as_object().contains("clone_suspected_at"));
    EXPECT_EQ(co_await s.kinds(device.id), "CLONE_SUSPECTED,RENAMED,REGISTERED") << "once an hour";
    const bj::value clear =
        co_await s.api.call("POST", s.path(1, "/actions/clear-clone-suspicion"));
    EXPECT_FALSE(clear.as_object().contains("clone_suspected_at"));
    EXPECT_FALSE(co_await suspected());
  });
}

}  // namespace
}  // namespace flock::targets

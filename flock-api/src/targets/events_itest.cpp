// SPDX-License-Identifier: Apache-2.0
// What happens to devices and rollouts, as those hear it who follow.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "async/loop.h"
#include "base/json.h"
#include "services/credentials.h"
#include "targets/api_itest.h"
#include "targets/itest_document.h"
#include "targets/sse_listener_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using Report = device::v1::ReportedState;
using Kind = device::v1::DeviceEvent;

// A tenant with the fleets edge and north.
struct Site {
  Site(Executor executor, Stack& stack) : backend(executor, stack), api(executor, stack) {}
  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Events");
    for (const char* name : {"Edge", "North"}) {
      const bj::value fleet = co_await api.call("POST", "/v1/fleets", bj::object{{"name", name}});
      fleets[name] = text(fleet, "id");
      const bj::value key = co_await api.call("POST", "/v1/provisioning-keys",
                                              bj::object{{"fleet_id", text(fleet, "id")}});
      keys[name] = text(key, "secret");
    }
  }
  FakeDevice& device() { return *devices.emplace_back(std::make_unique<FakeDevice>(backend)); }
  template <class Message>
  Task<void> say(std::string leaf, const Message& event) {
    mqtt::Message message;
    message.topic = "flock/internal/v1/" + leaf;
    message.payload = event.SerializeAsString();
    co_await backend.bus.publish(std::move(message));
  }

  std::vector<std::unique_ptr<FakeDevice>> devices;  // outlives the backend
  Backend backend;
  Api api;
  std::map<std::string, std::string> fleets, keys;
};

class Events : public SiteTest<Site> {};

TEST_F(Events, TellWhatHappensToADeviceFromItsComingToItsGoing) {
  on_site([](Site& s) -> Task<void> {
    SseListener all(s.backend, s.api.token, "/v1/events");
    co_await all.connected();
    FakeDevice& device = s.device();
    co_await device.join(s.api, s.keys["Edge"]);
    co_await device.report(device.state(Report::IDLE));
    co_await all.until_count(3);
    EXPECT_EQ(all.types(), "device.registered,device.online,device.state_changed");
    internal::v1::ServiceExited exited;
    exited.set_org_id(text((co_await s.api.call("GET", "/v1/whoami")).at("organization"), "id"));
    exited.set_device_id(device.id);
    exited.set_service("web");
    exited.mutable_exit()->set_code(137);
    exited.mutable_exit()->set_signal(9);
    exited.mutable_exit()->set_out_of_memory(true);
    exited.mutable_exit()->set_by(device::v1::Exit::KERNEL);
    co_await s.say("device/service_exited", exited);
    co_await device.tell(Kind::OFFLINE);
    co_await all.until_count(5);
    co_await s.api.call("DELETE", "/v1/devices/" + device.id);
    co_await all.until_count(7);
    EXPECT_EQ(all.types(),
              "device.registered,device.online,device.state_changed,device.service_exited,"
              "device.offline,device.revoked,device.removed");
    for (std::size_t i = 0; i < all.events.size(); ++i) {
      const bj::value data = all.data(i);
      for (const std::string& fault : schema_faults("ResourceEvent", data))
        ADD_FAILURE() << all.events[i].event << ": " << fault;
      EXPECT_EQ(text(data.at("device"), "id"), device.id);
      EXPECT_EQ(text(data, "fleet_id"), s.fleets["Edge"]);
    }
    EXPECT_EQ(all.data(3).at_pointer("/exit/by"), "KERNEL");
    EXPECT_EQ(text(all.data(4), "reason"), "clean_stop");
    EXPECT_EQ(text(all.data(6), "reason"), "removed");
    co_await all.stop();
    Api::answered().insert("followEvents");
  });
}

// Of two reports that two ingesters took at the same time the newer one stays.
TEST_F(Events, TellNoOlderReportAfterANewerOne) {
  on_site([](Site& s) -> Task<void> {
    FakeDevice& device = s.device();
    co_await device.join(s.api, s.keys["Edge"]);
    SseListener all(s.backend, s.api.token, "/v1/events");
    co_await all.connected();
    internal::v1::DeviceStateChanged changed;
    changed.set_org_id(text((co_await s.api.call("GET", "/v1/whoami")).at("organization"), "id"));
    changed.set_device_id(device.id);
    for (const int seq : {2, 1, 3}) {
      changed.mutable_state()->set_seq(seq);
      changed.mutable_state()->set_error(std::to_string(seq));
      co_await s.say("device/state", changed);
    }
    co_await all.until_count(2);
    EXPECT_EQ(all.data(0).at_pointer("/reported/error"), "2");
    EXPECT_EQ(all.data(1).at_pointer("/reported/error"), "3");
    co_await all.stop();
  });
}

TEST_F(Events, StayWithinTheOrganizationTheFleetsAndTheTopicsOfTheReader) {
  on_site([](Site& s) -> Task<void> {
    const std::string other = co_await s.backend.make_tenant("Others");
    const std::string north = co_await s.backend.make_key(
        s.api.token, "owner", {}, std::vector<std::string>{s.fleets["North"]});
    FakeDevice &in_edge = s.device(), &in_north = s.device();
    co_await in_edge.join(s.api, s.keys["Edge"]);
    co_await in_north.join(s.api, s.keys["North"]);
    SseListener strangers(s.backend, other, "/v1/events"), limited(s.backend, north, "/v1/events"),
        by_fleet(s.backend, s.api.token, "/v1/events?fleet=edge"),
        by_device(s.backend, s.api.token, "/v1/events?device=" + in_north.id),
        rollouts(s.backend, s.api.token, "/v1/events?topics=rollouts"),
        all(s.backend, s.api.token, "/v1/events");
    for (SseListener* each : {&strangers, &limited, &by_fleet, &by_device, &rollouts, &all})
      co_await each->connected();
    co_await s.backend.put_release(s.api.token, "1", {{"linux/amd64", "sha256:a"}});
    co_await s.api.call("POST", "/v1/deployments",
                        bj::object{{"release_id", "1"}, {"target", {{"fleet_id", "edge"}}}});
    co_await in_edge.report(in_edge.state(Report::IDLE));
    co_await in_north.report(in_north.state(Report::IDLE));
    co_await all.until("both devices and the rollout", [&] {
      const std::string types = all.types();
      return types.find("rollout.changed") != std::string::npos &&
             std::count_if(all.events.begin(), all.events.end(), [](const net::SseEvent& event) {
               return event.event == "device.state_changed";
             }) == 2;
    });
    const auto about = [](const SseListener& listener) {
      std::set<std::string> ids;
      for (const auto& event : listener.events) {
        const bj::value data = json::parse(event.data);
        ids.insert(data.as_object().contains("device") ? text(data.at("device"), "id")
                                                       : event.event);
      }
      return ids;
    };
    co_await by_device.until_count(2);
    co_await limited.until_count(2);
    co_await rollouts.until_count(1);
    EXPECT_EQ(about(strangers), std::set<std::string>());
    EXPECT_EQ(about(limited), std::set<std::string>{in_north.id});
    EXPECT_EQ(about(by_device), std::set<std::string>{in_north.id});
    EXPECT_EQ(about(by_fleet), (std::set<std::string>{in_edge.id, "rollout.changed"}));
    EXPECT_EQ(about(rollouts), std::set<std::string>{"rollout.changed"});
    for (SseListener* each : {&strangers, &limited, &by_fleet, &by_device, &rollouts, &all})
      co_await each->stop();
    co_await refuse(s.api, {{"GET", "/v1/events?topics=weather", "", 400, "topics"},
                            {"GET", "/v1/events?fleet=nosuch", "", 404, "no such fleet"},
                            {"GET", "/v1/events?device=nosuch", "", 404, "no such device"}});
  });
}

TEST_F(Events, ResumeWithoutLossOrSayThatThereIsAGap) {
  on_site([](Site& s) -> Task<void> {
    FakeDevice& device = s.device();
    co_await device.join(s.api, s.keys["Edge"]);
    SseListener first(s.backend, s.api.token, "/v1/events");
    co_await first.connected();
    std::vector<std::string> sent;
    const auto report = [&](std::string message) -> Task<void> {
      Report state = device.state(Report::FAILED);
      state.set_error(message);
      sent.push_back(message);
      co_await device.report(std::move(state));
    };
    for (int i = 0; i < 20; ++i) co_await report("a" + std::to_string(i));
    co_await first.until_count(11);  // in the middle
    const std::string place = first.events[10].id;
    co_await first.stop();
    for (int i = 0; i < 20; ++i) co_await report("b" + std::to_string(i));
    SseListener second(s.backend, s.api.token, "/v1/events", place);
    co_await second.until("the last", [&] {
      return !second.events.empty() &&
             second.events.back().data.find("\"b19\"") != std::string::npos;
    });
    std::vector<std::string> heard;
    const auto note = [&](const net::SseEvent& event) {
      const bj::value data = json::parse(event.data);
      if (event.event == "device.state_changed")
        heard.push_back(text(data.at("reported"), "error"));
    };
    std::for_each(first.events.begin(), first.events.begin() + 11, note);
    std::for_each(second.events.begin(), second.events.end(), note);
    EXPECT_EQ(heard, sent);
    co_await second.stop();
    for (const std::string& id : {std::string("1-5"), std::string("nonsense")}) {
      SseListener lost(s.backend, s.api.token, "/v1/events", id);
      co_await lost.until_count(1);
      EXPECT_EQ(lost.types(), "gap") << id;
      EXPECT_FALSE(lost.last_id().empty());
      co_await lost.stop();
    }
  });
}

TEST_F(Events, ThatAreNotKeptAnyMoreShowAsAGap) {
  on_site([](Site& s) -> Task<void> {
    FakeDevice& device = s.device();
    SseListener first(s.backend, s.api.token, "/v1/events");
    co_await first.connected();
    co_await device.join(s.api, s.keys["Edge"]);
    co_await first.until_count(1);
    const std::string place = first.events[0].id;
    co_await first.stop();
    internal::v1::DeviceRevoked event;
    event.set_org_id(text((co_await s.api.call("GET", "/v1/whoami")).at("organization"), "id"));
    event.set_device_id(device.id);
    constexpr int kMore = 10'005;  // than the ring holds
    for (int i = 1; i <= kMore; ++i) {
      event.set_at_ms(i);
      co_await s.say("device/revoked", event);
    }
    event.set_at_ms(kMore + 1);
    SseListener second(s.backend, s.api.token, "/v1/events", place);
    co_await s.say("device/revoked", event);
    const std::string last = to_rfc3339(from_unix_ms(kMore + 1));
    co_await second.until("the last", [&] {
      return !second.events.empty() && second.events.back().data.find(last) != std::string::npos;
    });
    EXPECT_EQ(second.events[0].event, "gap");
    EXPECT_EQ(second.events[1].event, "device.revoked");
    EXPECT_GT(second.events.size(), 9'900u) << "all that is kept comes after the gap";
    co_await second.stop();
  });
}

TEST_F(Events, EndWhenTheReaderMayNotReadAnyMore) {
  on_site([](Site& s) -> Task<void> {
    const std::string key = co_await s.backend.make_key(s.api.token, "viewer");
    SseListener reader(s.backend, key, "/v1/events");
    co_await reader.connected();
    co_await s.backend.db.query(postgres::Scope::system(),
                                "UPDATE api_keys SET revoked_at = now() WHERE hash = $1",
                                postgres::Params().bytes(services::hash_key(key)));
    co_await eventually(
        "the stream ends", [&]() -> Task<bool> { co_return reader.ended; }, Duration(15'000));
    EXPECT_EQ(reader.types(), "end");
    co_await reader.stop();
  });
}

TEST_F(Events, ShowAChangeOfStateWithinHalfASecond) {
  constexpr int kReports = 200;
  on_site([](Site& s) -> Task<void> {
    FakeDevice& device = s.device();
    co_await device.join(s.api, s.keys["Edge"]);
    co_await device.report(device.state(Report::IDLE));
    SseListener reader(s.backend, s.api.token, "/v1/events");
    co_await reader.connected();
    std::map<std::string, SteadyPoint> sent;
    for (int i = 0; i < kReports; ++i) {
      Report state = device.state(Report::FAILED);
      state.set_error("change " + std::to_string(i));
      sent[state.error()] = std::chrono::steady_clock::now();
      co_await device.report(std::move(state));
      co_await sleep_for(Duration(5));
    }
    std::vector<double> took;
    co_await reader.until("all of them", [&] {
      took.clear();
      for (std::size_t i = 0; i < reader.events.size(); ++i) {
        const bj::value data = json::parse(reader.events[i].data);
        const bj::value* reported = data.as_object().if_contains("reported");
        if (reported == nullptr || !reported->as_object().contains("error")) continue;
        const auto found = sent.find(text(*reported, "error"));
        if (found == sent.end()) continue;
        took.push_back(
            std::chrono::duration<double, std::milli>(reader.at[i] - found->second).count());
      }
      return took.size() == kReports;
    });
    std::sort(took.begin(), took.end());
    std::printf("device's state to SSE: p50 %.1f ms, p99 %.1f ms\n", took[kReports / 2],
                took[kReports * 99 / 100]);
    EXPECT_LT(took[kReports * 99 / 100], 500.0);
    co_await reader.stop();
  });
}

}  // namespace
}  // namespace flock::targets

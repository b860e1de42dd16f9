// SPDX-License-Identifier: Apache-2.0
// The ingester alone over the real broker, PostgreSQL and Valkey: what devices send arrives once.
#include "targets/ingester_itest.h"

namespace flock::targets::ingester_itest {

TEST_F(Ingester, StoresTelemetryAndLogsAsTheyWere) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    TelemetryBatch batch;
    auto* point = batch.add_points();
    point->set_at_ms(now_ms());
    point->mutable_host()->set_cpu_ratio(0.25);
    point->mutable_host()->set_throttled(true);
    auto* service = point->add_services();
    service->set_service("web");
    service->set_memory_bytes(1 << 20);
    co_await site.send(id, "telemetry", batch.SerializeAsString());
    co_await site.send(id, "telemetry", batch.SerializeAsString());  // again is once
    LogBatch logs = Site::lines(1, 3);
    auto* gap = logs.mutable_streams(0)->add_gaps();
    gap->set_first_number(4);
    gap->set_count(5);
    gap->set_reason(LogGap::RATE_LIMITED);
    gap->set_from_ms(now_ms());
    co_await site.send(id, "logs", logs.SerializeAsString());
    stores::MetricQuery query;
    query.subject = {site.org, {}, {id}, {}};
    query.from_ms = now_ms() - 60'000;
    query.to_ms = now_ms() + 60'000;
    co_await site.until_lines(id, 8);
    std::vector<stores::MetricPoint> points;
    co_await eventually("the values", [&]() -> Task<bool> {
      points = co_await site.series.range(query);
      co_return points.size() == 3;
    });
    for (const auto& p : points) {
      const double value = p.name == "cpu_ratio" ? 0.25 : p.name == "throttled" ? 1 : 1 << 20;
      EXPECT_EQ(p.avg, value) << p.name;
      EXPECT_EQ(p.service, p.name == "memory_bytes" ? "web" : "");
    }
    const auto numbers = co_await site.numbers(id);
    EXPECT_EQ(numbers.size(), 8u);
    EXPECT_EQ(numbers.at(3), 1);
    EXPECT_EQ(numbers.at(4), -100);
    const auto rows = co_await site.logs(id);
    EXPECT_EQ(rows.at(0).text, "1");
    EXPECT_EQ(rows.at(0).origin.fleet, site.fleet);
  });
}

TEST_F(Ingester, AClockThatIsAYearOffPoisonsNothing) {
  on_site([](Site& site) -> Task<void> {
    const std::int64_t year = 365LL * 86'400'000;
    for (const std::int64_t off : {year, -year}) {
      const std::string id = co_await site.device();
      LogBatch logs = Site::lines(1, 2);
      for (auto& line : *logs.mutable_streams(0)->mutable_lines())
        line.set_at_ms(now_ms() + off + line.number());
      co_await site.send(id, "logs", logs.SerializeAsString());
      co_await site.until_lines(id, 2);
      const auto rows = co_await site.logs(id);
      EXPECT_EQ(rows.at(1).at_ms - rows.at(0).at_ms, 1);
    }
    // What it kept while it was away keeps its points, though all come at once.
    const std::string away = co_await site.device();
    TaskScope together(site.executor);
    for (int i = 0; i < 20; ++i) {
      TelemetryBatch batch;
      auto* point = batch.add_points();
      point->set_at_ms(now_ms() - year + i * 1000);
      point->mutable_host()->set_uptime_seconds(i);
      together.spawn("telemetry", site.send(away, "telemetry", batch.SerializeAsString()));
    }
    co_await together.join();
    stores::MetricQuery points;
    points.subject = {site.org, {}, {away}, {}};
    points.from_ms = now_ms() - 60'000;
    points.to_ms = now_ms() + 60'000;
    co_await eventually("every point", [&]() -> Task<bool> {
      co_return (co_await site.series.range(points)).size() == 20u;
    });
    // A report from the future hides none that comes when the clock is right again.
    const std::string id = co_await site.device();
    co_await site.report(id, now_ms() + year, "wrong");
    co_await sleep_for(Duration(5));
    co_await site.report(id, now_ms() + 10, "right");
    co_await eventually("the right report", [&]() -> Task<bool> {
      std::vector<DeviceId> ids{DeviceId::trusted(id)};
      const auto stored = co_await site.live->get_reported(ids);
      ReportedState state;
      co_return state.ParseFromString(stored.at(0).value_or("")) && state.release_id() == "right";
    });
  });
}

TEST_F(Ingester, PoisonGoesAsideAndBlocksNobody) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    site.series.refused = "2";
    co_await site.send(id, "logs", Site::lines(1, 1).SerializeAsString());
    co_await site.until_lines(id, 1);
    for (const char* leaf : {"state", "events", "telemetry", "logs"})
      co_await site.send(id, leaf, "\xff\xff");
    co_await site.send(id, "telemetry", std::string(300 * 1024, 'x'));
    co_await site.send("devices/nobody/state", "x");
    TaskScope together(site.executor);
    for (int i = 2; i <= 6; ++i)
      together.spawn("line", site.send(id, "logs", Site::lines(i, 1).SerializeAsString()));
    co_await together.join();
    co_await site.report(id, now_ms());
    co_await site.until("the report behind it", [&] { return site.turns[id] == "connected"; });
    co_await site.until_lines(id, 5);
    EXPECT_FALSE((co_await site.numbers(id)).contains(2));
    co_await site.until("all is put aside", [&] { return site.quarantined().size() == 7; });
    const auto files = site.quarantined();
    std::string all;
    for (const std::string& file : files) {
      all += file.substr(0, file.find('\n'));
      EXPECT_LT(file.size(), 66u * 1024);
    }
    for (const char* part : {"devices/nobody/state", "the time series refused it", "no such line",
                             "it has more than 262144 bytes", "received_at",
                             "it is not the message that belongs on this topic"})
      EXPECT_NE(all.find(part), std::string::npos) << part << "\n" << all;
  });
}

// What PostgreSQL would refuse must not come back for ever.
TEST_F(Ingester, NoTextStopsTheOthers) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device(), other = co_await site.device();
    ReportedState state;
    state.set_seq(now_ms());
    for (const std::string& version :
         {std::string("1\0.0", 4), std::string(199, 'v') + "\xc3\xa9" + "beta"}) {
      state.set_seq(state.seq() + 1);
      state.set_agent_version(version);
      co_await site.send(id, "state", state.SerializeAsString());
    }
    DeviceEvent event;
    event.set_seq(state.seq() + 1);
    event.set_at_ms(now_ms());
    event.set_kind(DeviceEvent::SHUTDOWN);
    event.set_detail(std::string(199, 'd') + "\xc3\xa9");
    co_await site.send(id, "events", event.SerializeAsString());
    co_await site.report(other, now_ms());
    co_await site.until("the report behind them", [&] { return site.turns[other] == "connected"; });
    co_await site.until("one is put aside", [&] { return site.quarantined().size() == 1; });
    EXPECT_EQ(site.turns[id], "connected");
    co_await eventually("the history", [&]() -> Task<bool> {
      const auto rows =
          co_await site.series.connectivity({site.org, {}, {id}, {}}, 0, INT64_MAX, 9);
      co_return rows.size() == 2u;
    });
  });
}

TEST_F(Ingester, TellsEachTurnOnceWithItsReason) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    const std::int64_t t = now_ms();
    co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.report(id, t + 12);
    co_await site.tell(id, DeviceEvent::OFFLINE, t + 13);
    co_await site.report(id, t + 12);
    co_await site.tell(id, DeviceEvent::ONLINE, t + 21);
    co_await site.tell(id, DeviceEvent::LOST, t + 10);  // of the connection before
    co_await site.tell(id, DeviceEvent::OFFLINE, t + 13);
    co_await site.tell(id, DeviceEvent::COMMAND, t + 22);
    co_await site.until("the last message", [&] { return site.heard["device/command"] == 1; });
    EXPECT_EQ(site.turns[id], "connected clean_stop connected");
    EXPECT_EQ(co_await site.turned(id), "connected");
    co_await site.tell(id, DeviceEvent::LOST, t + 20);
    co_await site.until("it is lost", [&] { return site.turns[id].ends_with("lost"); });
    co_await eventually("it is written down", [&]() -> Task<bool> {
      co_return co_await site.turned(id) == "connection_lost";
    });
    const auto seen = co_await site.db.query(
        Scope::system(), "SELECT last_seen_at < turned_at AS before FROM devices WHERE id = $1",
        Params().text(id));
    EXPECT_TRUE(seen.rows.at(0).boolean("before")) << "it was seen before it was lost";
    co_await site.tell(id, DeviceEvent::ONLINE, t + 31);
    // Nothing more is heard of it.
    co_await site.db.query(Scope::system(),
                           "UPDATE devices SET silent_after_ms = 300 WHERE id = $1",
                           Params().text(id));
    co_await site.until("silence", [&] { return site.turns[id].ends_with("silent"); });
    EXPECT_EQ(site.turns[id], "connected clean_stop connected connection_lost connected silent");
    co_await eventually("silence is written down",
                        [&]() -> Task<bool> { co_return co_await site.turned(id) == "silent"; });
    co_await site.report(id, t + 32);
    co_await site.until("it speaks", [&] { return site.turns[id].ends_with("connected"); });
    co_await eventually("the history", [&]() -> Task<bool> {
      co_return (
          co_await site.series.connectivity({site.org, {}, {id}, {}}, t - 60'000, t + 600'000, 100))
              .size() == 7u;
    });
  });
}

// A broker that is stopped sends the last wills of all devices, and the ingester finds them in its
// session when the broker is back.
TEST_F(Ingester, AStoppedBrokerMakesNobodyOffline) {
  on_site([](Site& site) -> Task<void> {
    co_await site.target->drain();
    site.target.reset();
    site.settings.presence_return = Duration(3000);
    co_await site.start();
    const std::string back = co_await site.device(), gone = co_await site.device();
    const std::int64_t t = now_ms();
    for (const std::string& id : {back, gone}) co_await site.tell(id, DeviceEvent::ONLINE, t + 11);
    co_await site.until("both are there", [&] { return site.turns.size() == 2; });
    site.servers.mosquitto.stop();
    site.servers.mosquitto.start();
    co_await site.devices_bus.wait_connected();
    co_await site.until("the ingester is back", [&] { return site.connections == 2; });
    for (const std::string& id : {back, gone}) co_await site.tell(id, DeviceEvent::LOST, t + 10);
    co_await site.tell(back, DeviceEvent::ONLINE, t + 21);
    co_await site.until("who did not come back is gone",
                        [&] { return site.turns[gone].ends_with("connection_lost"); });
    EXPECT_EQ(site.turns[back], "connected");
    EXPECT_EQ(co_await site.online(back), "online");
  });
}

TEST_F(Ingester, TellsChangesOnceAndWhatBecameOfCommands) {
  on_site([](Site& site) -> Task<void> {
    const std::string id = co_await site.device();
    const std::int64_t t = now_ms();
    for (int i = 1; i <= 5; ++i) co_await site.report(id, t + i, "r1");
    co_await site.report(id, t + 6, "r2");
    co_await site.report(id, t + 7, "r2");
    co_await site.report(id, t + 8, "r1");
    co_await site.report(id, t + 4, "late");
    DeviceEvent event;
    event.set_seq(t + 9);
    event.set_kind(DeviceEvent::COMMAND);
    event.mutable_command()->set_command_id("c1");
    event.mutable_command()->set_state(device::v1::CommandResult::DONE);
    co_await site.send(id, "events", event.SerializeAsString());
    event.Clear();
    event.set_seq(t + 10);
    event.set_kind(DeviceEvent::SERVICE_EXITED);
    event.set_service("web");
    event.mutable_exit()->set_code(3);
    co_await site.send(id, "events", event.SerializeAsString());
    event.Clear();
    event.set_seq(t + 11);
    event.set_at_ms(now_ms() + 60'000);  // it sorts behind its hello
    event.set_kind(DeviceEvent::SHUTDOWN);
    event.set_detail("reboot");
    co_await site.send(id, "events", event.SerializeAsString());
    co_await site.until("all is told", [&] { return site.heard["device/service_exited"] == 1; });
    EXPECT_EQ(site.heard["device/state"], 3);
    internal::v1::CommandResulted result;
    EXPECT_TRUE(result.ParseFromString(site.last["device/command"]));
    EXPECT_EQ(result.result().command_id() + result.org_id() + result.device_id(),
              "c1" + site.org + id);
    internal::v1::ServiceExited exited;
    EXPECT_TRUE(exited.ParseFromString(site.last["device/service_exited"]));
    EXPECT_EQ(exited.exit().code(), 3);
    EXPECT_EQ(exited.fleet_id(), site.fleet);
    const stores::Subject subject{site.org, {}, {id}, {}};
    co_await eventually("the history", [&]() -> Task<bool> {
      const auto rows = co_await site.series.connectivity(subject, t - 60'000, t + 600'000, 100);
      co_return rows.size() == 2 && rows.at(1).reason == "shutdown: reboot";
    });
    const auto updates = co_await site.series.updates(subject, t - 60'000, t + 600'000, 100);
    EXPECT_EQ(updates.size(), 3u);
    if (!updates.empty()) EXPECT_EQ(updates[0].phase + updates[0].release, "IDLEr1");
  });
}

// A crowd that comes back at once costs a statement for a batch, not for a device.
TEST_F(Ingester, ACrowdComesOnlineInBatches) {
  on_site([](Site& site) -> Task<void> {
    constexpr int kDevices = 3000;  // many times what may be in flight
    std::vector<std::string> ids;
    for (int i = 0; i < kDevices; ++i) ids.push_back(new_uuid());
    co_await site.db.query(
        Scope::system(),
        "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) SELECT id, $2, "
        "$3, id::text, id::text, 'amd64' FROM unnest($1::uuid[]) AS n(id)",
        Params().texts(ids).text(site.org).text(site.fleet));
    const std::int64_t t = now_ms();
    TaskScope together(site.executor);
    for (const std::string& id : ids)
      together.spawn("hello", site.tell(id, DeviceEvent::ONLINE, t));
    co_await together.join();
    co_await site.until("all are told", [&] { return site.heard["device/presence"] >= kDevices; });
    EXPECT_EQ(site.heard["device/presence"], kDevices);
    co_await eventually("the history", [&]() -> Task<bool> {
      co_return (co_await site.series.connectivity({site.org, {}, {}, {}}, t - 60'000, t + 600'000,
                                                   10'000))
              .size() == std::size_t{kDevices};
    });
  });
}

}  // namespace flock::targets::ingester_itest

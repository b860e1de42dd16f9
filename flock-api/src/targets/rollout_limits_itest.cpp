// SPDX-License-Identifier: Apache-2.0
// Rollouts that may take down only so many devices of one site at a time.
#include <gtest/gtest.h>

#include <set>

#include "targets/rollout_fleet_itest.h"

namespace flock::targets {
namespace {

using namespace itest;
using Kind = device::v1::DeviceEvent;

const bj::object kOslo{{"site", "oslo"}}, kBergen{{"site", "bergen"}};
constexpr const char* kLimit = "at most 1 with the same site may be down at a time";

bj::object one_per_site(bj::object more = {}) {
  more["kind"] = "immediate";
  more["max_down_per"] = bj::object{{"label", "site"}, {"count", 1}};
  return more;
}

class RolloutLimits : public SiteTest<Fleet> {};

Task<void> until_reason(Fleet& f, std::string rollout, std::string reason) {
  std::string now;
  try {
    co_await eventually(reason, [&]() -> Task<bool> {
      now = text(co_await f.api.call("GET", rollout), "reason");
      co_return now == reason;
    });
  } catch (const Error& error) {
    ADD_FAILURE() << error.message() << "; it is: " << now;
    throw;
  }
}

Task<void> until_state(Fleet& f, const FakeDevice& device, std::string state) {
  co_await eventually(state, [&]() -> Task<bool> {
    co_return text(co_await f.api.call("GET", "/v1/devices/" + device.id), "state") == state;
  });
}

std::string id_of(const std::string& rollout) { return rollout.substr(rollout.rfind('/') + 1); }

// Of one site.
Task<std::int64_t> most_at_work(Fleet& f, std::string rollout) {
  const auto rows = co_await f.backend.db.query(
      postgres::Scope::system(),
      "SELECT coalesce(max(n), 0) AS most FROM (SELECT count(*) AS n FROM rollout_devices x JOIN "
      "devices d ON d.id = x.device_id WHERE x.rollout_id = $1 AND x.state IN ('PENDING', "
      "'DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING') GROUP BY d.labels ->> 'site') sites",
      postgres::Params().text(id_of(rollout)));
  co_return rows.rows.at(0).integer("most");
}

// Devices that are held confirm, one after another; whoever follows has begun by then or not.
Task<void> confirm_each(Fleet& f, std::string rollout, std::string release) {
  std::set<const FakeDevice*> done;
  while (done.size() < f.devices.size()) {
    co_await eventually("the next one begins",
                        [&]() -> Task<bool> { co_return f.given(release) > done.size(); });
    EXPECT_EQ(co_await most_at_work(f, rollout), 1);
    for (const auto& device : f.devices) {
      if (device->desired.release_version() != release || done.contains(device.get())) continue;
      done.insert(device.get());
      co_await device->report(device->state(Report::CONFIRMED));
      break;
    }
  }
}

TEST_F(RolloutLimits, NoMoreOfASiteAreDownThanMayBe) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3, kOslo);
    co_await f.grow(2, kBergen);
    co_await f.grow(2);  // those without a site are held to it as well
    f.held = {"1"};
    const std::string rollout = co_await f.deploy("1", one_per_site({{"max_per_minute", 100}}));
    co_await f.until_given("1", 3);
    co_await until_reason(
        f, rollout,
        std::string("3 devices are updating, 4 wait: ") + kLimit + " (0 confirmed, 0 failed)");
    co_await sleep_for(Duration(2500));  // a round of the scheduler
    EXPECT_EQ(f.given("1"), 3u);
    co_await confirm_each(f, rollout, "1");
    const bj::value done = co_await f.until(rollout, "COMPLETED");
    EXPECT_EQ(done.at_pointer("/counts/confirmed").as_int64(), 7);
    const bj::value deployment =
        co_await f.api.call("GET", "/v1/deployments/" + text(done, "deployment_id"));
    EXPECT_EQ(deployment.at_pointer("/strategy/max_down_per"),
              (bj::object{{"label", "site"}, {"count", 1}}));
  });
}

TEST_F(RolloutLimits, ADeviceThatIsAwayHoldsItsSiteUntilItIsBackOrPatienceIsOver) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3, kOslo);
    co_await f.grow(1, kBergen);
    FakeDevice& away = *f.devices.front();
    co_await away.tell(Kind::OFFLINE);
    co_await until_state(f, away, "OFFLINE");
    const std::string first = co_await f.deploy("1", one_per_site());
    co_await until_reason(f, first,
                          std::string("2 devices wait: ") + kLimit + " (1 confirmed, 0 failed)");
    EXPECT_EQ(f.given("1"), 1u);
    co_await away.report(away.state(Report::IDLE));
    co_await f.until(first, "COMPLETED");

    co_await away.tell(Kind::OFFLINE);
    co_await until_state(f, away, "OFFLINE");
    const std::string second = co_await f.deploy("2", one_per_site({{"offline_patience", "6s"}}));
    co_await until_reason(f, second,
                          std::string("2 devices wait: ") + kLimit + " (1 confirmed, 0 failed)");
    const bj::value done = co_await f.until(second, "COMPLETED");
    EXPECT_EQ(text(done, "reason"), "3 devices confirmed; 1 device is offline and will follow");
    co_await away.report(away.state(Report::IDLE));
    co_await f.until_given("2", 4);
  });
}

TEST_F(RolloutLimits, ADeviceThatIsNotWellHoldsItsSite) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2, kOslo);
    f.restless = {"1"};
    const std::string rollout = co_await f.deploy("1", one_per_site());
    co_await until_reason(f, rollout,
                          std::string("1 device waits: ") + kLimit + " (1 confirmed, 0 failed)");
    f.restless.clear();
    FakeDevice& first = *f.devices[f.devices[0]->desired.release_version() == "1" ? 0 : 1];
    co_await first.report(first.state(Report::CONFIRMED));
    co_await f.until(rollout, "COMPLETED");
  });
}

// It may be about to reboot, however long its stage has been open.
TEST_F(RolloutLimits, WhoWentOfflineAtWorkCountsForAsLongAsPatienceLasts) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2, kOslo);
    f.held = {"1"};
    const std::string rollout = co_await f.deploy("1", one_per_site({{"offline_patience", "1s"}}));
    co_await f.until_given("1", 1);
    const FakeDevice& first = *f.devices[f.devices[0]->desired.release_version() == "1" ? 0 : 1];
    const auto went = [&f, id = first.id](const char* when) {
      return f.backend.db.query(postgres::Scope::system(),
                                "UPDATE devices SET online = false, turned_at = now() + "
                                "$2::interval WHERE id = $1",
                                postgres::Params().text(id).text(std::string(when)));
    };
    co_await went("1 hour");
    co_await until_reason(f, rollout,
                          std::string("1 device waits: ") + kLimit + " (0 confirmed, 0 failed)");
    co_await sleep_for(Duration(2500));  // patience is over, and a round has passed
    EXPECT_EQ(f.given("1"), 1u);
    co_await went("-1 hour");
    co_await f.until_given("1", 2);
  });
}

TEST_F(RolloutLimits, WhoseWindowIsClosedTakesNobodysPlace) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(4, kOslo);
    for (std::size_t i : {0U, 1U})
      co_await f.api.call("PATCH", "/v1/devices/" + f.devices[i]->id,
                          bj::object{{"attributes", {{"time_zone", "Etc/GMT-10"}}}});
    const auto clock = [](int minutes) {
      return to_rfc3339(system_clock().now() + Duration(minutes * 60'000)).substr(11, 5);
    };
    const bj::array open{bj::object{{"from", clock(-60)}, {"to", clock(60)}}};
    const std::string rollout = co_await f.deploy("1", one_per_site({{"windows", open}}));
    co_await f.until_given("1", 2);
    co_await eventually("the others wait for their window", [&]() -> Task<bool> {
      const std::string reason = text(co_await f.api.call("GET", rollout), "reason");
      co_return reason.starts_with("2 devices wait for their maintenance window; the next opens ");
    });
    co_await f.order(rollout, "abort");
    co_await f.until(rollout, "ABORTED");
    EXPECT_EQ(f.given("1"), 2u);
  });
}

TEST_F(RolloutLimits, TheWayBackKeepsToThem) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(2, kOslo);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    const std::string rollout = co_await f.deploy("2", one_per_site());
    co_await f.until(rollout, "COMPLETED");
    f.held = {"1"};
    co_await f.order(rollout, "roll-back");
    co_await f.until_given("1", 1);
    co_await until_reason(f, rollout,
                          std::string("1 device is on the way back, 1 to follow: ") + kLimit);
    co_await sleep_for(Duration(2500));
    EXPECT_EQ(f.given("1"), 1u);
    f.held.clear();
    co_await f.until(rollout, "ROLLED_BACK");
    EXPECT_EQ(f.given("1"), 2u);
  });
}

// Those that failed go back at once, although none of the others of their site may.
TEST_F(RolloutLimits, WhoIsDownAlreadyGoesBackAtOnce) {
  on_site([](Fleet& f) -> Task<void> {
    co_await f.grow(3, kOslo);
    co_await f.until(co_await f.deploy("1", {{"kind", "immediate"}}), "COMPLETED");
    const std::string rollout = co_await f.deploy("2", one_per_site());
    co_await f.until(rollout, "COMPLETED");
    for (std::size_t i : {0U, 1U}) {
      Report report = f.devices[i]->state(Report::CONFIRMED);
      for (auto& service : *report.mutable_services()) service.set_restart_count(5);
      co_await f.devices[i]->report(std::move(report));
    }
    co_await eventually("they restart again and again", [&]() -> Task<bool> {
      const auto rows = co_await f.backend.db.query(
          postgres::Scope::system(),
          "SELECT count(*) AS count FROM rollout_devices WHERE rollout_id = $1 AND restarting",
          postgres::Params().text(id_of(rollout)));
      co_return rows.rows.at(0).integer("count") == 2;
    });
    f.held = {"1"};
    co_await f.order(rollout, "roll-back");
    co_await until_reason(f, rollout,
                          std::string("2 devices are on the way back, 1 to follow: ") + kLimit);
    co_await f.until_given("1", 2);
    EXPECT_EQ(f.devices[2]->desired.release_version(), "2");
    f.held.clear();
    co_await f.until(rollout, "ROLLED_BACK");
  });
}

}  // namespace
}  // namespace flock::targets

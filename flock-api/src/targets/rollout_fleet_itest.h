// SPDX-License-Identifier: Apache-2.0
// A fleet for tests of rollouts: devices that do what the test has them do.
#pragma once

#include <set>

#include "async/loop.h"
#include "targets/api_itest.h"

namespace flock::targets::itest {

using Report = device::v1::ReportedState;

// A tenant with devices in the fleet `edge` that answer by themselves.
class Fleet {
 public:
  Fleet(Executor executor, Stack& stack)
      : backend(executor, stack), api(executor, stack), work_(executor) {}

  Task<void> open() {
    co_await backend.start();
    api.token = co_await backend.make_tenant("Acme");
    co_await api.call("POST", "/v1/fleets", bj::object{{"name", "Edge"}});
    const bj::value key =
        co_await api.call("POST", "/v1/provisioning-keys", bj::object{{"fleet_id", "edge"}});
    secret_ = text(key, "secret");
    for (const char* version : {"1", "2", "3"})
      co_await backend.put_release(api.token, version,
                                   {{"linux/amd64", std::string("sha256:") + version}});
  }

  Task<void> grow(std::size_t count, bj::object labels = {}) {
    for (; count > 0; --count) {
      FakeDevice& device = *devices.emplace_back(std::make_unique<FakeDevice>(backend));
      co_await device.join(api, secret_);
      co_await device.report(device.state(Report::IDLE));
      work_.spawn("device", live(device));
      const std::string id = device.id;
      co_await eventually("the device is online", [&]() -> Task<bool> {
        co_return text(co_await api.call("GET", "/v1/devices/" + id), "state") == "ONLINE";
      });
      if (!labels.empty())
        co_await api.call("PATCH", "/v1/devices/" + id, bj::object{{"labels", labels}});
    }
  }

  // The rollout's path.
  Task<std::string> deploy(std::string release, bj::object strategy, std::string fleet = "edge") {
    co_return co_await deploy(bj::object{{"release_id", release},
                                         {"target", {{"fleet_id", fleet}}},
                                         {"strategy", std::move(strategy)}});
  }
  Task<std::string> deploy(bj::object deployment) {
    deployment["soak"] = "0s";
    const bj::value made = co_await api.call("POST", "/v1/deployments", std::move(deployment));
    EXPECT_EQ(api.last.status, 201) << api.last.body;
    std::string rollout;
    co_await eventually("the rollout is made", [&]() -> Task<bool> {
      const bj::value now = co_await api.call("GET", "/v1/deployments/" + text(made, "id"));
      if (now.as_object().contains("rollout_id")) rollout = text(now, "rollout_id");
      co_return !rollout.empty();
    });
    co_return "/v1/rollouts/" + rollout;
  }
  Task<bj::value> until(std::string rollout, std::string state) {
    bj::value now;
    co_await eventually(
        "the rollout is " + state,
        [&]() -> Task<bool> {
          now = co_await api.call("GET", rollout);
          co_return text(now, "state") == state;
        },
        Duration(20'000));
    co_return now;
  }
  Task<void> order(std::string rollout, std::string what) {
    co_await api.call("POST", rollout + "/actions/" + what);
    EXPECT_EQ(api.last.status, 200) << api.last.body;
  }
  Task<void> until_given(std::string release, std::size_t count) {
    co_await eventually("devices have release " + release,
                        [&]() -> Task<bool> { co_return given(release) == count; });
  }
  // How many devices are to run the release.
  std::size_t given(const std::string& release) const {
    std::size_t count = 0;
    for (const auto& device : devices) count += device->desired.release_version() == release;
    return count;
  }
  Task<std::set<std::string>> steps(std::string rollout) {
    const bj::value page = co_await api.call("GET", rollout + "/timeline");
    std::set<std::string> steps;
    for (const bj::value& item : page.at("items").as_array()) {
      steps.insert(text(item, "step"));
      EXPECT_NE(text(item, "why"), "") << bj::serialize(item);
    }
    co_return steps;
  }

  Backend backend;
  Api api;
  std::vector<std::unique_ptr<FakeDevice>> devices;
  // Releases that fail, those that take for ever, and those whose service restarts again and again.
  std::set<std::string> bad, held, restless;

 private:
  Task<void> live(FakeDevice& device) {
    for (std::int64_t done = 0;; co_await sleep_for(Duration(30))) {
      const std::string release = device.desired.release_version();
      if (device.desired.version() == done || held.contains(release)) continue;
      done = device.desired.version();
      Report report = device.state(bad.contains(release) ? Report::FAILED : Report::CONFIRMED);
      if (bad.contains(release)) {
        report.set_error_code("exited");
        report.set_error("web: exit 1");
      }
      if (restless.contains(release))
        for (auto& service : *report.mutable_services()) service.set_restart_count(5);
      co_await device.report(std::move(report));
    }
  }

  std::string secret_;
  TaskScope work_;
};

inline bj::object staged(bj::array stages, bj::object more = {}) {
  more["kind"] = "progressive";
  more["stages"] = std::move(stages);
  return more;
}

}  // namespace flock::targets::itest

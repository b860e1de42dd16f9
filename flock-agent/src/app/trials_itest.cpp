// SPDX-License-Identifier: Apache-2.0
// Going back by itself from a release that cannot be kept, with a real Podman.
#include <filesystem>

#include "app/device_itest.h"
#include "app/podman_itest.h"
#include "base/files.h"
#include "testing/crash_points.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using ft::run_task;

// Ends with code 3, at once or after as many seconds as its argument says.
constexpr const char* kBadApp = R"c(
#include <stdlib.h>
#include <unistd.h>
int main(int count, char** words) {
  sleep(count > 1 ? atoi(words[1]) : 0);
  return 3;
}
)c";

class TrialOnPodman : public OnPodman {
 protected:
  void start() {
    start_podman();
    bad = podman->build("bad", kBadApp);
  }
  // Version 1 is good and called 1.0; later ones are called 2.0.
  DesiredState release(std::int64_t version, const std::string& image,
                       const std::string& rollout = "r") const {
    DesiredState state = one_service(version, image);
    state.set_release_id(version == 1 ? "one" : "two");
    state.set_release_version(version == 1 ? "1.0" : "2.0");
    state.set_rollout_id(rollout);
    return state;
  }
  DesiredState ends_at_once(std::int64_t version, const std::string& rollout = "r") const {
    DesiredState state = release(version, bad, rollout);
    state.set_soak_ms(1'000);  // it may be seen running for a moment
    state.mutable_services(0)->mutable_restart()->set_policy(device::v1::Restart::NO);
    return state;
  }
  Task<void> confirm_first(Reconciler& on) const {
    on.want(release(1, images[0]), [] {});
    co_await until("v1 runs", phase(on, 1, ReportedState::CONFIRMED));
  }
  // Back at version 1, and it says so under the version that it went back from.
  std::function<bool()> is_back(const Reconciler& on, std::int64_t from) const {
    return [this, &on, from] {
      const ReportedState& report = on.report();
      return report.desired_version() == from && report.phase() == ReportedState::FAILED &&
             report.rollback().release_id() == "one" &&
             report.rollback().phase() == ReportedState::CONFIRMED && report.services_size() == 1 &&
             report.services(0).state() == ServiceState::RUNNING &&
             images[0].ends_with(report.services(0).image_digest());
    };
  }
  // Every container of the service that was ever made, also those that are gone.
  std::string made() const {
    return podman->run({"events", "--stream=false", "--filter", "event=create", "--filter",
                        "container=flock-web", "--format", "{{.ID}}"});
  }
  void with(const std::function<Task<void>(Reconciler&)>& body) {
    run_task([&]() -> Task<void> { co_await with_reconciler(body); }, kPodmanLimit);
  }

  std::string bad;
};

TEST_F(TrialOnPodman, GoesBackFromWhatEndsAtOnceAndDoesNotTryItAgainByItself) {
  start();
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm_first(on);
    on.want(ends_at_once(2), [] {});
    co_await until("v1 runs again", is_back(on, 2));
    EXPECT_EQ(on.report().error_code(), "exited");
    EXPECT_EQ(on.report().error(), "web exited with code 3; this device runs 1.0 again");
    EXPECT_EQ(on.report().release_id(), "two");
    EXPECT_EQ(on.report().rollout_id(), "r");
  });
  const std::string tried = made(), running = containers();
  EXPECT_NE(tried, "");
  with([&](Reconciler& on) -> Task<void> {  // flockd was started again
    co_await until("it still knows", is_back(on, 2));
    on.want(ends_at_once(3), [] {});  // the same, made anew for the device
    co_await until("the newer one of the same is refused, too", is_back(on, 3));
    EXPECT_EQ(containers(), running);
    EXPECT_EQ(made(), tried);
    DesiredState again = ends_at_once(4);
    again.set_attempt(1);  // the server asks for it again
    on.want(again, [] {});
    co_await until("v1 runs again", is_back(on, 4));
    const std::string twice = made();
    EXPECT_NE(twice, tried);
    on.want(ends_at_once(5, "another rollout"), [] {});
    co_await until("v1 runs again", is_back(on, 5));
    EXPECT_NE(made(), twice);
    on.want(release(6, images[1], "r3"), [] {});
    co_await until("a good one is kept", phase(on, 6, ReportedState::CONFIRMED));
    EXPECT_FALSE(on.report().has_rollback());
  });
}

TEST_F(TrialOnPodman, GoesBackFromWhatKeepsCrashingBeforeItHasSoaked) {
  start();
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm_first(on);
    DesiredState state = release(2, bad);
    state.set_soak_ms(60'000);
    state.mutable_services(0)->set_has_command(true);
    state.mutable_services(0)->add_command("1");
    on.want(state, [] {});
    co_await until("it is healthy for a while", phase(on, 2, ReportedState::SOAKING));
    EXPECT_FALSE(on.report().has_rollback());
    co_await until("v1 runs again", is_back(on, 2));
    EXPECT_EQ(on.report().error(), "web exited with code 3; this device runs 1.0 again");
  });
}

TEST_F(TrialOnPodman, GoesBackFromWhatDoesNotBecomeHealthyInTime) {
  start();
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm_first(on);
    DesiredState state = release(2, images[1]);
    state.set_start_timeout_ms(1'500);
    auto* check = state.mutable_services(0)->mutable_healthcheck();
    for (const char* word : {"CMD", "/nothing"}) check->add_test(word);
    check->set_start_period_ms(600'000);  // the check itself never gives up
    on.want(state, [] {});
    co_await until("v1 runs again", is_back(on, 2));
    EXPECT_EQ(on.report().error_code(), "not_healthy_in_time");
    EXPECT_EQ(on.report().error(),
              "web did not run and become healthy within 1500ms; this device runs 1.0 again");
  });
}

TEST_F(TrialOnPodman, GoesBackFromWhatCutsItOffAndConfirmsNothingUnheard) {
  start();
  limits.contact = Duration(1'500);
  with([&](Reconciler& on) -> Task<void> {
    on.note_contact(true);
    on.want(release(1, images[0]), [] {});
    co_await until("v1 is healthy", phase(on, 1, ReportedState::SOAKING));
    co_await sleep_for(3 * kInterval);
    EXPECT_EQ(on.report().phase(), ReportedState::SOAKING) << "nobody has heard of it";
    on.note_contact(true);
    co_await until("v1 is confirmed", phase(on, 1, ReportedState::CONFIRMED));
    on.want(release(2, images[1]), [] {});
    co_await until("v2 is healthy", phase(on, 2, ReportedState::SOAKING));
    on.note_contact(false);
    co_await until("v1 runs again", is_back(on, 2));
    EXPECT_EQ(on.report().error_code(), "lost_contact");
    EXPECT_EQ(on.report().error(),
              "the server could not be reached for 1500ms after the switch, although it could be "
              "before; this device runs 1.0 again");
  });
}

TEST_F(TrialOnPodman, TheFirstReleaseOfAllGoesOnTryingUnlessItCutsTheDeviceOff) {
  start();
  limits.contact = Duration(1'500);
  with([&](Reconciler& on) -> Task<void> {
    on.want(ends_at_once(2), [] {});
    co_await until("it has failed", phase(on, 2, ReportedState::FAILED));
    co_await sleep_for(3 * kInterval);
    EXPECT_FALSE(on.report().has_rollback());
    EXPECT_EQ(on.report().services_size(), 1);
    on.note_contact(true);
    on.want(release(3, images[0]), [] {});
    co_await until("it is healthy", phase(on, 3, ReportedState::SOAKING));
    on.note_contact(false);
    co_await until("nothing runs", [&] {
      return on.report().has_rollback() && on.report().services_size() == 0 &&
             on.report().rollback().phase() == ReportedState::CONFIRMED;
    });
    EXPECT_EQ(on.report().error_code(), "lost_contact");
  });
  EXPECT_EQ(containers(), "");
  with([&](Reconciler& on) -> Task<void> {
    co_await until("it still knows", [&] { return on.report().has_rollback(); });
    co_await sleep_for(3 * kInterval);
    EXPECT_EQ(containers(), "");
  });
}

TEST_F(TrialOnPodman, ADeviceThatIsNotToGoBackKeepsWhatItHas) {
  start();
  goes_back = false;
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm_first(on);
    on.want(ends_at_once(2), [] {});
    co_await until("it has failed", phase(on, 2, ReportedState::FAILED));
    co_await sleep_for(3 * kInterval);
    EXPECT_FALSE(on.report().has_rollback());
    EXPECT_EQ(on.report().error(), "web exited with code 3");
  });
}

// A release whose machine starts again and again: the boot id stands for it.
TEST_F(TrialOnPodman, GoesBackFromWhatMakesTheMachineStartAgain) {
  start();
  const auto soaking = [&](Reconciler& on) -> Task<void> {
    co_await until("v2 is healthy", phase(on, 2, ReportedState::SOAKING));
  };
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm_first(on);
    DesiredState state = release(2, images[1]);
    state.set_soak_ms(600'000);
    on.want(state, [] {});
    co_await soaking(on);
  });
  for (const char* boot : {"second", "third"}) {
    boot_id = boot;
    with(soaking);
  }
  with(soaking);  // flockd alone was started again
  boot_id = "fourth";
  with([&](Reconciler& on) -> Task<void> {
    co_await until("v1 runs again", is_back(on, 2));
    EXPECT_EQ(on.report().error_code(), "restarts");
  });
}

// Killed at every step of taking up a bad release and of the way back, a device is back at the good
// one after the next start, and has told why.
TEST_F(TrialOnPodman, FindsItsWayBackFromAKillAtEveryStep) {
  start();
  podman->run({"create", "--network", "none", images[0]});  // so that no image is cleaned away
  podman->run({"create", "--network", "none", bad});
  ft::CrashPoints steps(own_data.file("podman.sock"), podman->socket());
  const auto through_steps = [&](Executor executor) {
    return runtime(std::move(executor), own_data.file("podman.sock"));
  };
  const auto back = [&] {
    const auto text = read_file(data_dir + "/trial.json");
    return text && text->find("\"verdict\"") != std::string::npos && only_runs(images[0], 1);
  };
  int deaths = 0;
  for (bool died = true; died; ++deaths) {
    const std::int64_t version = 2 + deaths;
    with([&](Reconciler& on) -> Task<void> {
      DesiredState good = release(1, images[0]);
      good.set_version(10 * version);
      on.want(good, [] {});
      co_await until("the good one runs", phase(on, 10 * version, ReportedState::CONFIRMED));
      on.want(ends_at_once(10 * version + 1, "r" + std::to_string(version)), [] {});
    });
    std::filesystem::remove(data_dir + "/trial.json");  // the verdict of the last round
    {
      const Victim first(through_steps, options(data_dir), own_data.file("log"));
      steps.arm(deaths, [&] { first.kill(); });
      ft::wait_until("a crash, or the way back", [&] { return steps.crashed() || back(); });
      died = steps.crashed();
    }
    const std::string where = died ? steps.step() : "none";
    steps.arm(-1, [] {});
    with([&](Reconciler& on) -> Task<void> {
      co_await until("the way back after a kill at " + where, is_back(on, 10 * version + 1));
    });
  }
  EXPECT_GE(deaths, 8);  // remove, create, start, of the bad one and of the good one
}

}  // namespace
}  // namespace flock::agent

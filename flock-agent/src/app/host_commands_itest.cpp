// SPDX-License-Identifier: Apache-2.0
// Host commands through the reconciler, with a real Podman and real programs. The boot id stands
// for a start of the machine.
#include <filesystem>

#include "app/device_itest.h"
#include "app/podman_itest.h"
#include "base/bytes.h"
#include "base/files.h"
#include "crypto/keys.h"
#include "link/desired_store.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using device::v1::HostCommand;
using device::v1::HostCommandState;
using ft::run_task;

class HostCommandOnPodman : public OnPodman {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0 || !ft::require({"podman", "runc"})) return;
    device = std::make_unique<ft::Podman>();
    device->start();
  }
  static void TearDownTestSuite() { device.reset(); }
  void SetUp() override {
    OnPodman::SetUp();
    if (IsSkipped()) return;
    device->run({"rm", "--all", "--force", "--time", "0"});
    // The test before may have had no more need of them.
    image = device->build("steady", kSteadyApp);
    other = device->build("other", kSteadyApp, "ENV OTHER=1");
    bad = device->build("bad", "int main(void) { return 3; }");
    socket = device->socket();
    host.verify_pause = Duration(100);
    host.goes_down = Duration(60'000);
    host.on_output = [this](device::v1::LogBatch batch) { logs.MergeFrom(batch); };
    reboot_command = {"/bin/sh", "-c", "echo rebooted >>" + own_data.file("reboots")};
  }
  Reconciler::Options with_host() const {
    Reconciler::Options out = options(data_dir);
    out.host = host;
    out.reboot_command = reboot_command;
    return out;
  }
  // Runs a reconciler in this process for as long as `body` takes.
  void with(const std::function<Task<void>(Reconciler&)>& body) {
    run_task([&]() -> Task<void> { co_await with_reconciler(socket, with_host(), body); },
             kPodmanLimit);
  }
  // Version 1 is without a host command; the others are of `deployment`.
  DesiredState release(std::int64_t version, const std::string& command = "",
                       const std::string& deployment = "d") const {
    DesiredState state = one_service(version, image);
    state.set_release_id("one");
    state.set_release_version("1.0");
    state.set_rollout_id(deployment);
    if (version == 1) return state;
    HostCommand* wanted = state.mutable_host_command();
    wanted->set_id(deployment);
    wanted->set_command(command);
    wanted->set_timeout_ms(20'000);
    return state;
  }
  // Appends a line to the file, so that what was run can be counted.
  std::string note(const std::string& line) const {
    return "echo " + line + " >>" + own_data.file("done");
  }
  std::string done() const { return read_file(own_data.file("done")).value_or(""); }

  Task<void> confirm(Reconciler& on, DesiredState state) const {
    const std::int64_t version = state.version();
    on.want(std::move(state), [] {});
    co_await until("confirmed", phase(on, version, ReportedState::CONFIRMED));
  }
  Task<void> fail(Reconciler& on, DesiredState state) const {
    const std::int64_t version = state.version();
    on.want(std::move(state), [] {});
    co_await until("failed, and the old release runs", [&on, version] {
      return on.report().desired_version() == version &&
             on.report().phase() == ReportedState::FAILED &&
             on.report().rollback().phase() == ReportedState::CONFIRMED;
    });
  }
  static std::string running() {
    return device->run({"ps", "--no-trunc", "--quiet", "--filter", "label=io.flock.managed=true"});
  }
  static const HostCommandState& seen(const Reconciler& on) { return on.report().host_command(); }

  static std::unique_ptr<ft::Podman> device;
  static std::string image, other, bad;
  std::string socket;
  HostCommands::Options host;
  std::vector<std::string> reboot_command;
  device::v1::LogBatch logs;
};
std::unique_ptr<ft::Podman> HostCommandOnPodman::device;
std::string HostCommandOnPodman::image, HostCommandOnPodman::other, HostCommandOnPodman::bad;

TEST_F(HostCommandOnPodman, IsDoneOnceBeforeTheServicesAndTouchesNone) {
  std::string before;
  DesiredState state = release(2, note("ran") + "; echo out; echo err >&2");
  state.mutable_host_command()->set_verify_command("grep -q ran " + own_data.file("done"));
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    before = running();
    co_await confirm(on, state);
    EXPECT_EQ(seen(on).step(), HostCommandState::DONE);
    EXPECT_EQ(seen(on).exit_code(), 0);
    EXPECT_EQ(seen(on).output(), "out\nerr\n[verify]\n");
    EXPECT_FALSE(on.report().has_rollback());
  });
  std::string told;
  for (const auto& stream : logs.streams())
    for (const auto& line : stream.lines()) told += line.text() + "\n";
  EXPECT_EQ(told,
            "[command] of deployment d\nout\nerr\n[command] exit code 0\n"
            "[verify] of deployment d\n[verify] exit code 0\n");
  with([&](Reconciler& on) -> Task<void> {  // flockd was started again
    co_await until("confirmed", phase(on, 2, ReportedState::CONFIRMED));
    state.set_version(3);  // and the same deployment has another version
    co_await confirm(on, state);
  });
  std::filesystem::remove(data_dir + "/host-commands.json");
  with([&](Reconciler& on) -> Task<void> {
    state.set_version(4);
    co_await confirm(on, state);
  });
  EXPECT_EQ(done(), "ran\n");
  EXPECT_EQ(running(), before);
}

TEST_F(HostCommandOnPodman, WithAReleaseComesFirst) {
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    DesiredState state = release(2, "sleep 1");
    state.mutable_services(0)->set_image(other);
    on.want(state, [] {});
    co_await until("it runs", [&] { return seen(on).step() == HostCommandState::RUNNING; });
    EXPECT_EQ(on.report().phase(), ReportedState::STARTING);
    EXPECT_TRUE(image.ends_with(on.report().services(0).image_digest()));
    co_await until("confirmed", phase(on, 2, ReportedState::CONFIRMED));
    EXPECT_TRUE(other.ends_with(on.report().services(0).image_digest()));
  });
}

TEST_F(HostCommandOnPodman, ThatFailsIsRolledBackToldAndNotRunAgain) {
  DesiredState state = release(2, note("ran") + "; echo no such package; exit 7");
  state.mutable_services(0)->set_image(other);
  state.mutable_host_command()->set_rollback_command(note("back"));
  std::string before;
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    before = running();
    co_await fail(on, state);
    EXPECT_EQ(on.report().error_code(), "host_command_failed");
    EXPECT_EQ(on.report().error(),
              "the host command failed: exit code 7: no such package; its rollback command "
              "succeeded; this device runs 1.0 again");
    EXPECT_EQ(seen(on).step(), HostCommandState::FAILED);
    EXPECT_EQ(seen(on).exit_code(), 7);
  });
  with([&](Reconciler& on) -> Task<void> {
    state.set_version(3);
    co_await fail(on, state);
  });
  EXPECT_EQ(done(), "ran\nback\n");
  EXPECT_EQ(running(), before);
}

TEST_F(HostCommandOnPodman, ThatTakesTooLongOrFloodsIsBounded) {
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    DesiredState slow = release(2, "echo begun; sleep 100", "slow");
    slow.mutable_host_command()->set_timeout_ms(300);
    co_await fail(on, slow);
    EXPECT_EQ(on.report().error_code(), "host_command_timeout");
    EXPECT_EQ(on.report().error(),
              "the host command failed: it took longer than 300ms and was ended: begun; this "
              "device runs 1.0 again");
    DesiredState flood = release(3, "echo first; yes | head -c 5000000; echo last", "flood");
    flood.mutable_host_command()->set_output_limit_bytes(16 << 10);
    co_await confirm(on, flood);
    EXPECT_TRUE(seen(on).output().starts_with("first\n"));
    EXPECT_TRUE(seen(on).output().ends_with("last\n"));
    EXPECT_LT(seen(on).output().size(), 8u << 10);
    EXPECT_GT(seen(on).dropped_bytes(), 4'900'000);
  });
  std::int64_t lines = 0, dropped = 0;
  for (const auto& stream : logs.streams()) {
    if (stream.lines(0).text() != "[command] of deployment flood") continue;
    lines = stream.lines_size();
    dropped = stream.gaps(0).count();
  }
  EXPECT_NEAR(static_cast<double>(lines + dropped), 2'500'000 + 4, 2) << "cut within two lines";
}

TEST_F(HostCommandOnPodman, ThatWantsARebootIsVerifiedAfterIt) {
  DesiredState state = release(2, note("ran"));
  state.mutable_host_command()->set_reboot(HostCommand::AFTER_SUCCESS);
  state.mutable_host_command()->set_verify_command("test $(cat " + own_data.file("done") +
                                                   ") = ran && echo good");
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    on.want(state, [] {});
    co_await until("the machine goes down",
                   [&] { return read_file(own_data.file("reboots")).has_value(); });
    EXPECT_EQ(seen(on).step(), HostCommandState::REBOOTING);
    EXPECT_EQ(running(), "") << "containers are stopped in order";
  });
  boot_id = "second";
  with([&](Reconciler& on) -> Task<void> {
    co_await until("confirmed", phase(on, 2, ReportedState::CONFIRMED));
    EXPECT_EQ(seen(on).step(), HostCommandState::DONE);
    EXPECT_EQ(seen(on).output(), "[verify]\ngood\n");
  });
  EXPECT_EQ(done(), "ran\n");
  EXPECT_EQ(*read_file(own_data.file("reboots")), "rebooted\n");
}

TEST_F(HostCommandOnPodman, WhoseMachineDoesNotGoDownHasFailed) {
  host.goes_down = Duration(1'000);
  DesiredState state = release(2, note("ran"));
  state.mutable_host_command()->set_reboot(HostCommand::EXPECTED);
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    co_await fail(on, state);
    EXPECT_EQ(on.report().error(),
              "the machine did not start again after the host command: it still runs after 1s; "
              "this device runs 1.0 again");
  });
}

TEST_F(HostCommandOnPodman, WhoseVerifyingFailsIsRolledBack) {
  DesiredState state = release(2, "true");
  state.mutable_host_command()->set_verify_command(note("verify") + "; exit 1");
  state.mutable_host_command()->set_rollback_command("exit 4");
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    co_await fail(on, state);
    EXPECT_EQ(on.report().error_code(), "verify_failed");
    EXPECT_EQ(on.report().error(),
              "the verify command failed: exit code 1; its rollback command failed too: exit code "
              "4; this device runs 1.0 again");
  });
  EXPECT_EQ(done(), "verify\nverify\nverify\n");
}

// kill -9 in the middle of it, with the machine started again or not, and what decides then.
TEST_F(HostCommandOnPodman, ThatIsInterruptedIsNeverRunTwiceUnlessThatDoesNoHarm) {
  struct Case {
    std::string name, verify;
    bool idempotent, good;
    HostCommand::Reboot reboot = HostCommand::NEVER;
  };
  const std::string marker = own_data.file("marker");
  const Case cases[] = {
      {"nothing", "", false, false},
      {"verify-good", "test -e " + marker, false, true},
      {"verify-bad", "false", false, false},
      {"idempotent", "", true, true},
      {"expected", "", false, true, HostCommand::EXPECTED},
  };
  with([&](Reconciler& on) -> Task<void> { co_await confirm(on, release(1)); });
  std::int64_t version = 1;
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    std::filesystem::remove(marker);
    std::filesystem::remove(own_data.file("done"));
    // The second run, if there is one, ends.
    DesiredState state = release(
        ++version,
        note("ran") + "; test -e " + marker + " && exit 0; touch " + marker + "; exec sleep 100",
        one.name);
    state.mutable_host_command()->set_verify_command(one.verify);
    state.mutable_host_command()->set_idempotent(one.idempotent);
    state.mutable_host_command()->set_reboot(one.reboot);
    DesiredStore(data_dir + "/desired").save(state);
    {
      const Victim victim([&](Executor executor) { return runtime(std::move(executor), socket); },
                          with_host(), own_data.file("log"));
      ft::wait_until("it is in the middle", [&] { return std::filesystem::exists(marker); });
    }
    if (one.reboot == HostCommand::EXPECTED) boot_id = "second";
    with([&](Reconciler& on) -> Task<void> {
      co_await until("it ended", [&] {
        return on.report().desired_version() == version &&
               (on.report().phase() == ReportedState::CONFIRMED || on.report().has_rollback());
      });
      EXPECT_EQ(on.report().phase() == ReportedState::CONFIRMED, one.good) << on.report().error();
      if (one.name == "nothing")
        EXPECT_EQ(on.report().error_code(), "host_command_interrupted") << on.report().error();
    });
    EXPECT_EQ(done(), one.idempotent ? "ran\nran\n" : "ran\n");
  }
}

TEST_F(HostCommandOnPodman, IsRefusedUnlessTheDeviceAllowsIt) {
  const auto refused = [&](std::int64_t version, const std::string& command,
                           const std::string& said) {
    const std::string id = "d" + std::to_string(version);
    with([&](Reconciler& on) -> Task<void> {
      if (version == 2) co_await confirm(on, release(1));
      co_await fail(on, release(version, command, id));
      EXPECT_EQ(on.report().error_code(), "host_command_refused");
      EXPECT_EQ(on.report().error(),
                "the host command is refused: " + said + "; this device runs 1.0 again");
    });
  };
  host.enabled = false;
  refused(2, note("ran"), "this device's configuration switches host commands off");
  host.enabled = true;
  host.allowed = {note("one"), "sha256:" + to_hex(crypto::sha256(note("two")))};
  refused(3, note("ran"), "its command is not among those that this device's configuration allows");
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(4, note("one"), "d4"));
    co_await confirm(on, release(5, note("two"), "d5"));
  });
  host.allowed.clear();
  host.may_reboot = false;
  with([&](Reconciler& on) -> Task<void> {
    DesiredState state = release(6, note("ran"), "d6");
    state.mutable_host_command()->set_reboot(HostCommand::AFTER_SUCCESS);
    co_await fail(on, state);
    EXPECT_EQ(on.report().error_code(), "host_command_refused");
  });
  EXPECT_EQ(done(), "one\ntwo\n");
}

TEST_F(HostCommandOnPodman, IsUndoneOnTheServersWordWhereItWasDone) {
  DesiredState state = release(2, note("ran"));
  state.mutable_host_command()->set_rollback_command(note("back"));
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    co_await confirm(on, state);
    state.set_version(3);
    state.mutable_host_command()->set_undo(true);
    co_await confirm(on, state);
    EXPECT_EQ(seen(on).step(), HostCommandState::UNDONE);
    state.set_version(4);
    state.mutable_host_command()->set_id("never done here");
    co_await confirm(on, state);
    EXPECT_EQ(seen(on).step(), HostCommandState::UNDONE);
  });
  EXPECT_EQ(done(), "ran\nback\n");
  with([&](Reconciler& on) -> Task<void> {
    DesiredState bad = release(5, note("ran"), "e");
    bad.mutable_host_command()->set_rollback_command("exit 5");
    co_await confirm(on, bad);
    bad.set_version(6);
    bad.mutable_host_command()->set_undo(true);
    on.want(bad, [] {});
    co_await until("it failed", phase(on, 6, ReportedState::FAILED));
    EXPECT_EQ(on.report().error(), "the rollback command failed: exit code 5");
  });
}

TEST_F(HostCommandOnPodman, IsUndoneWhenTheDeviceGoesBackByItself) {
  limits.contact = Duration(1'500);
  DesiredState state = release(2, note("ran"));
  state.mutable_host_command()->set_rollback_command(note("back"));
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    on.note_contact(true);
    on.want(state, [] {});
    co_await until("it is done", phase(on, 2, ReportedState::SOAKING));
    on.note_contact(false);  // what it changed has cut the device off
    co_await until("it is undone", [&] { return seen(on).step() == HostCommandState::UNDONE; });
    EXPECT_EQ(on.report().error_code(), "lost_contact");
  });
  EXPECT_EQ(done(), "ran\nback\n");
}

TEST_F(HostCommandOnPodman, IsUndoneWhenTheReleaseAfterItCannotBeKept) {
  DesiredState state = release(2, note("ran"));
  state.set_soak_ms(1'000);
  state.mutable_host_command()->set_rollback_command(note("back"));
  state.mutable_services(0)->set_image(bad);
  state.mutable_services(0)->mutable_restart()->set_policy(device::v1::Restart::NO);
  with([&](Reconciler& on) -> Task<void> {
    co_await confirm(on, release(1));
    co_await fail(on, state);
    EXPECT_EQ(on.report().error(), "web exited with code 3; this device runs 1.0 again");
    co_await until("it is undone", [&] { return seen(on).step() == HostCommandState::UNDONE; });
  });
  EXPECT_EQ(done(), "ran\nback\n");
}

}  // namespace
}  // namespace flock::agent

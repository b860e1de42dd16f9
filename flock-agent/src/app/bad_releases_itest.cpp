// SPDX-License-Identifier: Apache-2.0
// The real flockd with a real Podman, broker and registry through what can go wrong with a
// deployment, and what it says of it. In a network namespace of its own, for one release cuts the
// network. Times are shortened by configuration; the machine's boot id is a file.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "app/device_itest.h"
#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/client.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;
using device::v1::DesiredState;
using device::v1::HostCommand;
using device::v1::HostCommandState;
using Report = device::v1::ReportedState;

// "app": runs until it is told to stop. "app exit SECONDS": ends with code 3. "app cut": takes the
// network down for as long as it runs.
constexpr const char* kApp = R"c(
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
static int cuts;
static void network(int up) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = up ? IFF_UP | IFF_RUNNING : 0;
  int any = socket(AF_INET, SOCK_DGRAM, 0);
  if (any < 0 || ioctl(any, SIOCSIFFLAGS, &request) != 0) _exit(9);
  close(any);
}
static void stop(int number) {
  (void)number;
  if (cuts) network(1);
  _exit(0);
}
int main(int count, char** words) {
  signal(SIGTERM, stop);
  if (count > 2 && !strcmp(words[1], "exit")) {
    sleep(atoi(words[2]));
    return 3;
  }
  if (count > 1 && !strcmp(words[1], "cut")) {
    cuts = 1;
    network(0);
  }
  for (;;) pause();
}
)c";

constexpr std::size_t kLogTail = 8 << 10;

// One device and what it is told and tells.
class Site {
 public:
  explicit Site(Executor executor)
      : backend_(executor), scope_(executor), ears_(executor, hearing()) {}

  Task<void> open() {
    backend_.brokers = {broker_.url()};
    mqtt::Subscription all;
    all.filter = "devices/+/+";  // flockd insists on being heard, whatever it says
    co_await ears_.subscribe(all, [this](mqtt::Delivery delivery) {
      Report report;
      if (delivery.message.topic.ends_with("/state") &&
          report.ParseFromString(delivery.message.payload))
        last = std::move(report);
      delivery.ack();
    });
    scope_.spawn("ears", ears_.run());
    podman_.start();
    good = podman_.build("good", kApp);
    better = podman_.build("better", kApp, "ENV BETTER=1");
    start_flockd("first");
  }
  Task<void> close() {
    flockd_.reset();
    scope_.cancel();
    co_await scope_.join();
    co_await backend_.server.stop();
  }
  // The machine, or flockd alone when its boot id is the same.
  void start_flockd(const std::string& boot) {
    flockd_.reset();
    const std::filesystem::path file = dir.file("root") + "/proc/sys/kernel/random/boot_id";
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << boot << "\n";
    AgentOptions options;
    options.server = backend_.url;
    options.data_dir = dir.file("data");
    options.provisioning_key_file = dir.write("key", "flp_x\n");
    options.podman_socket = podman_.socket();
    options.insecure_hosts = {registry_.host()};
    options.reconcile_interval = Duration(200);
    options.keep_alive = Duration(2'000);
    options.contact_timeout = Duration(4'000);
    options.root = dir.file("root");
    options.reboot_command = {"/bin/sh", "-c", "echo down >>" + dir.file("reboots")};
    flockd_.emplace(options, dir.file("flockd.log"));
  }

  // A release of one service; `what` is the app's arguments.
  DesiredState release(const std::string& name, const std::string& image,
                       const std::vector<std::string>& what = {}) const {
    DesiredState state;
    state.set_release_id(name);
    state.set_release_version(name);
    state.set_rollout_id(name);
    auto* service = state.add_services();
    service->set_name("web");
    service->set_image(image);
    service->set_network_mode("host");
    service->add_cap_add("NET_ADMIN");
    service->set_stop_grace_ms(3'000);
    service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    if (what.empty()) return state;
    service->set_has_command(true);
    for (const std::string& word : what) service->add_command(word);
    return state;
  }
  // What runs is kept, and the machine is asked for something.
  DesiredState command(const std::string& name, const std::string& text) const {
    DesiredState state = release("good", good);
    state.set_rollout_id(name);
    state.mutable_host_command()->set_id(name);
    state.mutable_host_command()->set_command(text);
    state.mutable_host_command()->set_timeout_ms(20'000);
    return state;
  }
  Task<void> deploy(DesiredState state) {
    state.set_version(++version);
    mqtt::Message message;
    message.topic = "devices/" + backend_.device + "/desired";
    message.payload = state.SerializeAsString();
    message.retain = true;
    co_await ears_.publish(std::move(message));
  }
  Task<void> until(std::string what, std::function<bool()> condition) const {
    for (int i = 0; i < 1200; ++i) {
      if (last.desired_version() == version && condition()) co_return;
      co_await sleep_for(Duration(50));
    }
    const std::string log = read_file(dir.file("flockd.log")).value_or("");
    throw Error(Code::kTimeout, "did not happen in time: " + what + "\n" + last.error() + "\n" +
                                    log.substr(log.size() - std::min(log.size(), kLogTail)));
  }
  Task<void> confirms(DesiredState state) {
    co_await deploy(std::move(state));
    co_await until("confirmed", [&] { return last.phase() == Report::CONFIRMED; });
    EXPECT_FALSE(last.has_rollback());
  }
  // It fails, and the device is back at the good release.
  Task<void> goes_back(DesiredState state, std::string code, std::string error) {
    SCOPED_TRACE(code);
    co_await deploy(std::move(state));
    co_await until("it goes back because of " + code,
                   [&] { return last.rollback().phase() == Report::CONFIRMED; });
    EXPECT_EQ(last.phase(), Report::FAILED);
    EXPECT_EQ(last.error_code(), code);
    EXPECT_EQ(last.error(), error + "; this device runs good again");
    runs_good();
  }
  // It cannot even be begun, and the good release has not been touched.
  Task<void> cannot_begin(DesiredState state, std::string code, std::string part) {
    SCOPED_TRACE(code);
    const std::string before = container();
    co_await deploy(std::move(state));
    co_await until("it fails with " + code, [&] { return last.phase() == Report::FAILED; });
    EXPECT_EQ(last.error_code(), code);
    EXPECT_NE(last.error().find(part), std::string::npos) << last.error();
    EXPECT_EQ(container(), before);
    runs_good();
  }
  void runs_good() const {
    EXPECT_EQ(last.services_size(), 1);
    if (last.services_size() != 1) return;
    EXPECT_EQ(last.services(0).state(), device::v1::ServiceState::RUNNING);
    EXPECT_TRUE(good.ends_with(last.services(0).image_digest()));
  }
  std::string container() const {
    return podman_.run({"ps", "--quiet", "--filter", "label=io.flock.managed=true"});
  }
  // An image that is in the registry only, larger than what will be free.
  std::string push_large() {
    const std::string ballast = dir.write("ballast", random_bytes(12 << 20));
    ft::Podman builder;
    builder.build("large", std::string("__asm__(\".section .rodata\\n.incbin \\\"") + ballast +
                               "\\\"\\n.text\");" + kApp);
    builder.run({"push", "--quiet", "--tls-verify=false", "--digestfile", dir.file("digest"),
                 "localhost/large", registry_.host() + "/acme/large:1"});
    return registry_.host() + "/acme/large@" + *read_file(dir.file("digest"));
  }
  std::string missing_image() const {
    return registry_.host() + "/acme/missing@sha256:" + std::string(64, '0');
  }

  ft::TempDir dir;
  SmallDisk disk{"48m"};
  Report last;
  std::string good, better;
  std::int64_t version = 0;

 private:
  mqtt::ClientOptions hearing() {
    broker_.start();
    registry_.start();
    mqtt::ClientOptions out;
    out.url = broker_.url();
    out.client_id = "ears";
    out.keep_alive = Duration(2'000);
    out.backoff_max = Duration(500);
    return out;
  }

  ft::Mosquitto broker_;
  ft::Registry registry_;
  ft::Podman podman_{disk.path() + "/store"};
  Backend backend_;
  TaskScope scope_;
  mqtt::Client ears_;
  std::optional<Flockd> flockd_;
};

Task<void> try_releases(Site& site) {
  co_await site.confirms(site.release("good", site.good));

  DesiredState at_once = site.release("at-once", site.better, {"exit", "0"});
  at_once.set_soak_ms(2'000);
  co_await site.goes_back(at_once, "exited", "web exited with code 3");

  DesiredState later = site.release("later", site.better, {"exit", "2"});  // 20 s, shortened
  later.set_soak_ms(30'000);
  co_await site.goes_back(later, "exited", "web exited with code 3");

  DesiredState never = site.release("never-healthy", site.better);
  never.set_start_timeout_ms(2'000);
  auto* check = never.mutable_services(0)->mutable_healthcheck();
  for (const char* word : {"CMD", "/nothing"}) check->add_test(word);
  check->set_start_period_ms(600'000);
  co_await site.goes_back(never, "not_healthy_in_time",
                          "web did not run and become healthy within 2s");

  co_await site.goes_back(site.release("cuts", site.better, {"cut"}), "lost_contact",
                          "the server could not be reached for 4s after the switch, although it "
                          "could be before");

  co_await site.cannot_begin(site.release("missing", site.missing_image()), "image_pull_failed",
                             "web: ");
}

Task<void> try_commands(Site& site) {
  const std::string done = site.dir.file("done"), before = site.container();
  DesiredState reboots = site.command("reboots", "echo ran >>" + done);
  reboots.mutable_host_command()->set_reboot(HostCommand::AFTER_SUCCESS);
  reboots.mutable_host_command()->set_verify_command("grep ran " + done);
  co_await site.deploy(reboots);
  co_await site.until("the machine goes down", [&] {
    return read_file(site.dir.file("reboots")) &&
           site.last.host_command().step() == HostCommandState::REBOOTING;
  });
  site.start_flockd("second");
  co_await site.until("it is verified after it",
                      [&] { return site.last.phase() == Report::CONFIRMED; });
  EXPECT_EQ(*read_file(done), "ran\n");
  EXPECT_EQ(site.last.host_command().output(), "[verify]\nran\n");
  EXPECT_EQ(site.container(), before) << "started again, not made anew";

  DesiredState slow = site.command("slow", "echo begun; sleep 1000");
  slow.mutable_host_command()->set_timeout_ms(1'000);
  slow.mutable_host_command()->set_rollback_command("echo back >>" + done);
  co_await site.goes_back(slow, "host_command_timeout",
                          "the host command failed: it took longer than 1s and was ended: begun; "
                          "its rollback command succeeded");
  EXPECT_EQ(*read_file(done), "ran\nback\n");

  co_await site.confirms(site.command("floods", "echo first; yes | head -c 9000000; echo last"));
  const HostCommandState& flood = site.last.host_command();
  EXPECT_EQ(flood.exit_code(), 0);
  EXPECT_TRUE(flood.output().starts_with("first\n") && flood.output().ends_with("last\n"));
  EXPECT_LT(flood.output().size(), 8u << 10);
  EXPECT_GT(flood.dropped_bytes(), 8'900'000);
  EXPECT_EQ(site.container(), before);
}

Task<void> try_a_small_disk(Site& site) {
  const std::string large = site.push_large();
  site.disk.fill(4 << 20);
  co_await site.cannot_begin(site.release("large", large), "no_space", "no space left on device");
  site.disk.free();
  co_await site.until("it comes when there is room",
                      [&] { return site.last.phase() == Report::CONFIRMED; });
}

TEST(Deployments, EndAsStatedWhateverIsWrongWithThem) {
  if (::geteuid() != 0 || !ft::require({"podman", "runc", "mosquitto", "docker-registry"}))
    GTEST_SKIP() << "needs root, podman, mosquitto and docker-registry";
  const auto all = []() -> Task<void> {
    Site site(co_await asio::this_coro::executor);
    co_await site.open();
    co_await try_releases(site);
    co_await try_commands(site);
    co_await try_a_small_disk(site);
    co_await site.close();
  };
  in_own_network([&] { ft::run_task(all, Duration(240'000)); });
}

}  // namespace
}  // namespace flock::agent

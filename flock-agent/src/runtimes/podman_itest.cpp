// SPDX-License-Identifier: Apache-2.0
// The Podman runtime against a real Podman with a store of its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "runtimes/podman.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::agent {
namespace {

using flock::testing::code_of_task;
using flock::testing::free_port;
using flock::testing::port_open;
using flock::testing::run_task;
using flock::testing::TempDir;
using flock::testing::wait_until;
namespace ft = flock::testing;

// Does what its first argument says: writes down what it finds inside the container, ends, answers
// a probe, hangs; else it listens on 8080 until SIGTERM.
constexpr const char* kApp = R"c(
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
extern char** environ;
static void stop(int n) { (void)n; _exit(0); }
static void copy(FILE* out, const char* path) {
  char line[4096];
  FILE* in = fopen(path, "r");
  while (in && fgets(line, sizeof line, in)) fputs(line, out);
  if (in) fclose(in);
}
static void report(void) {
  char text[256];
  FILE* out = fopen("/out/report", "w");
  if (!out) _exit(9);
  fprintf(out, "uid=%d gid=%d pid=%d\n", (int)getuid(), (int)getgid(), (int)getpid());
  fprintf(out, "cwd=%s\n", getcwd(text, sizeof text));
  gethostname(text, sizeof text);
  fprintf(out, "hostname=%s\n", text);
  for (char** e = environ; *e; ++e) fprintf(out, "env %s\n", *e);
  fprintf(out, "root=%s\n", fopen("/written", "w") ? "writable" : "read-only");
  fprintf(out, "volume=%s\n", fopen("/data/written", "w") ? "writable" : "read-only");
  copy(out, "/proc/self/status");
  copy(out, "/etc/hosts");
  copy(out, "/proc/mounts");
  fclose(out);
  rename("/out/report", "/out/done");
}
int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  signal(SIGTERM, strcmp(mode, "stubborn") ? stop : SIG_IGN);
  if (!strcmp(mode, "exit")) return atoi(argv[2]);
  if (!strcmp(mode, "probe")) return access("/out/healthy", F_OK) != 0;
  if (!strcmp(mode, "report")) report();
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8080)};
  bind(s, (struct sockaddr*)&a, sizeof a);
  listen(s, 16);
  for (;;) close(accept(s, 0, 0));
}
)c";

// One Podman for the whole program: its start and the image cost seconds.
class PodmanRuntime : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0 || !ft::require({"podman", "runc"})) return;
    podman = std::make_unique<ft::Podman>();
    podman->start();
    image = podman->build("app:1", kApp);
  }
  static void TearDownTestSuite() { podman.reset(); }
  void SetUp() override {
    if (!podman) GTEST_SKIP() << "needs root and podman";
    state.set_version(1);
  }
  void TearDown() override {
    if (podman) podman->run({"rm", "--all", "--force", "--time", "0"});
  }

  device::v1::Service& add(const std::string& name, const std::vector<std::string>& command = {}) {
    auto* service = state.add_services();
    service->set_name(name);
    service->set_image(image);
    service->set_network_mode("none");
    service->set_stop_grace_ms(2000);
    service->set_has_command(!command.empty());
    for (const std::string& word : command) service->add_command(word);
    return *service;
  }
  void bind_out(device::v1::Service& service) const {
    auto* mount = service.add_mounts();
    mount->set_kind(device::v1::Mount::BIND);
    mount->set_source(out.path());
    mount->set_target("/out");
  }
  static std::unique_ptr<Runtime> runtime(Executor executor) {
    return make_podman(std::move(executor), podman->socket(), {});
  }
  Task<std::string> bring_up(Runtime& on, const device::v1::Service& service) {
    const std::string id = co_await on.create(service, state, "hash-" + service.name());
    co_await on.start(id);
    co_return id;
  }
  static const Observed* find(const std::vector<Observed>& list, const std::string& id) {
    for (const Observed& item : list)
      if (item.id == id) return &item;
    return nullptr;
  }

  static std::unique_ptr<ft::Podman> podman;
  static std::string image;
  DesiredState state;
  TempDir out;
};
std::unique_ptr<ft::Podman> PodmanRuntime::podman;
std::string PodmanRuntime::image;

constexpr Duration kLimit{60'000};

TEST_F(PodmanRuntime, CreatesStartsTellsAndRemoves) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        auto& service = add("web");
        EXPECT_TRUE(co_await on->has_image(image));
        EXPECT_FALSE(co_await on->has_image("localhost/app@sha256:" + std::string(64, '0')));
        const std::string id = co_await on->create(service, state, "hash");
        auto list = co_await on->list();
        EXPECT_EQ(list.size(), 1u);
        EXPECT_EQ(list.at(0).run, Run::kCreated);
        co_await on->start(id);
        co_await on->start(id);  // every call may be repeated
        list = co_await on->list();
        EXPECT_EQ(list.at(0).id, id);
        EXPECT_EQ(list.at(0).run, Run::kRunning);
        EXPECT_EQ(list.at(0).service, "web");
        EXPECT_EQ(list.at(0).config_hash, "hash");
        EXPECT_TRUE(list.at(0).image_digests.contains(image.substr(image.find('@') + 1)));
        const auto age = system_clock().now() - list.at(0).started;
        EXPECT_LT(age, Duration(30'000));
        co_await on->remove(id);
        co_await on->remove(id);
        EXPECT_TRUE((co_await on->list()).empty());
      },
      kLimit);
}

TEST_F(PodmanRuntime, GivesAServiceAllThatComposeAskedFor) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        auto& service = add("everything", {"report"});
        bind_out(service);
        auto* volume = service.add_mounts();
        volume->set_kind(device::v1::Mount::VOLUME);
        volume->set_source("data");
        volume->set_target("/data");
        auto* tmpfs = service.add_mounts();
        tmpfs->set_kind(device::v1::Mount::TMPFS);
        tmpfs->set_target("/scratch");
        tmpfs->set_size_bytes(1 << 20);
        tmpfs->set_mode(01777);
        (*service.mutable_environment())["GREETING"] = "good day = \"you\"";
        (*service.mutable_labels())["com.example.team"] = "blue";
        (*service.mutable_labels())["io.flock.managed"] = "false";  // ours cannot be taken away
        service.set_user("0:7");
        service.set_working_dir("/data");
        service.set_hostname("gw-1");
        service.set_read_only(true);
        service.set_init(false);
        service.set_stop_signal("SIGTERM");
        service.set_network_mode("");
        service.add_extra_hosts("db.example:10.9.8.7");
        service.add_cap_drop("ALL");
        service.add_cap_add("NET_RAW");
        auto* device = service.add_devices();
        device->set_host_path("/dev/null");
        device->set_container_path("/dev/other");
        device->set_permissions("rwm");
        service.mutable_limits()->set_memory_bytes(32 << 20);
        service.mutable_limits()->set_pids(50);
        service.mutable_limits()->set_cpus(0.5);
        const std::string id = co_await bring_up(*on, service);
        for (int i = 0; i < 200 && !std::filesystem::exists(out.file("done")); ++i)
          co_await sleep_for(Duration(50));
        const std::string report = read_file(out.file("done")).value_or("");
        for (const char* line : {"uid=0 gid=7 pid=1\n", "cwd=/data\n", "hostname=gw-1\n",
                                 "env GREETING=good day = \"you\"\n", "root=read-only\n",
                                 "volume=writable\n", "CapEff:\t0000000000002000\n"})
          EXPECT_NE(report.find(line), std::string::npos) << line << report;
        EXPECT_NE(report.find("10.9.8.7"), std::string::npos) << report;
        const std::size_t scratch = report.find(" /scratch tmpfs ");
        EXPECT_NE(scratch, std::string::npos);
        EXPECT_NE(report.find("size=1024k", scratch), std::string::npos);
        const auto inspect = [&](const std::string& what) {
          return podman->run({"inspect", "--format", "{{" + what + "}}", id});
        };
        EXPECT_EQ(inspect("index .Config.Labels \"com.example.team\""), "blue");
        EXPECT_EQ(inspect("index .Config.Labels \"io.flock.managed\""), "true");
        EXPECT_EQ(inspect(".HostConfig.Memory"), std::to_string(32 << 20));
        EXPECT_EQ(inspect(".HostConfig.PidsLimit"), "50");
        EXPECT_EQ(inspect(".HostConfig.CpuQuota"), "50000");
        EXPECT_EQ(inspect(".Config.StopTimeout"), "2");
        EXPECT_EQ(inspect("len .HostConfig.Devices"), "1");
        co_await on->remove(id);
        EXPECT_NE(podman->run({"volume", "ls", "--quiet"}).find("flock-data"), std::string::npos);
      },
      kLimit);
}

TEST_F(PodmanRuntime, InitMakesTheServiceNoLongerProcessOne) {
  if (ft::find_program({"catatonit", "/usr/libexec/podman/catatonit"}).empty())
    GTEST_SKIP() << "catatonit is not installed";
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        auto& service = add("init", {"report"});
        bind_out(service);
        service.set_init(true);
        co_await bring_up(*on, service);
        for (int i = 0; i < 200 && !std::filesystem::exists(out.file("done")); ++i)
          co_await sleep_for(Duration(50));
        EXPECT_EQ(read_file(out.file("done")).value_or("").find("pid=1\n"), std::string::npos);
      },
      kLimit);
}

TEST_F(PodmanRuntime, PublishesPortsAndJoinsNetworksThatGoWhenUnwanted) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        podman->run({"network", "create", "foreign"});
        const int port = free_port();
        auto& web = add("web");
        web.set_network_mode("");
        web.add_networks("front");
        auto* published = web.add_ports();
        published->set_host_ip("127.0.0.1");
        published->set_host_port(static_cast<std::uint32_t>(port));
        published->set_container_port(8080);
        auto* network = state.add_networks();
        network->set_name("front");
        const std::string id = co_await bring_up(*on, web);
        for (int i = 0; i < 100 && !port_open(port); ++i) co_await sleep_for(Duration(50));
        EXPECT_TRUE(port_open(port));
        co_await on->clean_up(state);  // still wanted
        EXPECT_NE(podman->run({"network", "ls", "-q"}).find("flock-front"), std::string::npos);

        // The same network, but internal now: made anew once its container has gone.
        co_await on->remove(id);
        network->set_internal(true);
        web.clear_ports();
        const std::string second = co_await bring_up(*on, web);
        EXPECT_EQ(podman->run({"network", "inspect", "--format", "{{.Internal}}", "flock-front"}),
                  "true");
        co_await on->remove(second);
        DesiredState nothing;
        nothing.set_version(2);
        co_await on->clean_up(nothing);
        const std::string left = podman->run({"network", "ls", "-q"});
        EXPECT_EQ(left.find("flock-front"), std::string::npos) << left;
        EXPECT_NE(left.find("foreign"), std::string::npos) << left;
      },
      kLimit);
}

TEST_F(PodmanRuntime, ProbesTellTheTruthAndImagesBringTheirOwn) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        auto& service = add("checked");
        bind_out(service);
        auto* check = service.mutable_healthcheck();
        for (const char* word : {"CMD", "/app", "probe"}) check->add_test(word);
        check->set_interval_ms(10'000);
        check->set_timeout_ms(3'000);
        check->set_retries(2);
        const std::string id = co_await bring_up(*on, service);
        EXPECT_FALSE(co_await on->probe(id));
        out.write("healthy", "");
        EXPECT_TRUE(co_await on->probe(id));

        auto& none = add("none");
        none.mutable_healthcheck()->add_test("NONE");
        co_await bring_up(*on, none);
        auto& own = add("own");
        own.set_image(podman->build(
            "checked:1", kApp, "HEALTHCHECK --interval=7s --retries=4 CMD [\"/app\",\"probe\"]"));
        const std::string with = co_await bring_up(*on, own);
        const auto list = co_await on->list();
        EXPECT_EQ(list.size(), 3u);
        const Observed* seen = find(list, with);
        EXPECT_TRUE(seen != nullptr && seen->image_check.has_value());
        if (seen == nullptr || !seen->image_check) co_return;
        EXPECT_EQ(seen->image_check->interval_ms(), 7000);
        EXPECT_EQ(seen->image_check->retries(), 4u);
        EXPECT_FALSE(co_await on->probe(with));
      },
      kLimit);
}

TEST_F(PodmanRuntime, TellsHowAServiceEnded) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        auto& service = add("job", {"exit", "7"});
        const std::string id = co_await bring_up(*on, service);
        std::vector<Observed> list;
        for (int i = 0; i < 100 && (list.empty() || list[0].run != Run::kExited); ++i) {
          list = co_await on->list();
          co_await sleep_for(Duration(50));
        }
        EXPECT_EQ(list.at(0).run, Run::kExited);
        EXPECT_EQ(list.at(0).exit_code, 7);
        co_await on->start(id);  // again
      },
      kLimit);
}

TEST_F(PodmanRuntime, AStubbornServiceIsKilledAfterItsGracePeriod) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        const std::string id = co_await bring_up(*on, add("web", {"stubborn"}));
        const auto began = std::chrono::steady_clock::now();
        co_await on->remove(id);
        const auto took = std::chrono::steady_clock::now() - began;
        EXPECT_GE(took, Duration(1'900));
        EXPECT_LT(took, Duration(9'000));
        EXPECT_TRUE((co_await on->list()).empty());
      },
      kLimit);
}

TEST_F(PodmanRuntime, AnonymousVolumesGoWithTheirContainer) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        const std::string before = podman->run({"volume", "ls", "--quiet"});
        auto& service = add("web");
        auto* mount = service.add_mounts();
        mount->set_kind(device::v1::Mount::VOLUME);
        mount->set_target("/data");
        const std::string id = co_await bring_up(*on, service);
        EXPECT_NE(podman->run({"volume", "ls", "--quiet"}), before);
        co_await on->remove(id);
        EXPECT_EQ(podman->run({"volume", "ls", "--quiet"}), before);
      },
      kLimit);
}

TEST_F(PodmanRuntime, ForeignContainersAreNeitherSeenNorTouched) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        const std::string foreign =
            podman->run({"run", "--detach", "--network", "none", "--name", "flock-web", image});
        EXPECT_TRUE((co_await on->list()).empty());
        // The name that ours would have: told as a conflict, never taken.
        Task<void> attempt = [](Runtime& r, device::v1::Service s, DesiredState d) -> Task<void> {
          co_await r.create(s, d, "hash");
        }(*on, add("web"), state);
        EXPECT_NE(co_await code_of_task(std::move(attempt)), Code::kUnavailable);
        co_await on->clean_up(DesiredState());
        EXPECT_EQ(podman->run({"inspect", "--format", "{{.State.Status}}", foreign}), "running");
        EXPECT_TRUE(co_await on->has_image(image));
      },
      kLimit);
}

TEST_F(PodmanRuntime, CleansUpItsOwnImagesOnly) {
  run_task(
      [&]() -> Task<void> {
        const auto on = runtime(co_await asio::this_coro::executor);
        const std::string old = podman->build("old:1", kApp, "ENV V=1");
        const std::string foreign = podman->build("foreign:1", kApp, "ENV V=2");
        auto& service = add("web");
        service.set_image(old);
        const std::string id = co_await bring_up(*on, service);
        co_await on->list();
        co_await on->clean_up(state);
        EXPECT_TRUE(co_await on->has_image(old));
        co_await on->remove(id);
        DesiredState nothing;
        nothing.set_version(2);
        co_await on->clean_up(nothing);
        EXPECT_FALSE(co_await on->has_image(old));
        EXPECT_TRUE(co_await on->has_image(foreign));
      },
      kLimit);
}

TEST_F(PodmanRuntime, PullsByDigestAndTellsWhyItCannot) {
  if (!ft::require({"docker-registry"})) GTEST_SKIP() << "needs docker-registry";
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        ft::Registry registry;
        registry.start();
        const auto on = make_podman(executor, podman->socket(), {registry.host()});
        const std::string pushed = podman->build("pushed:1", kApp, "ENV V=3");
        podman->run({"push", "--quiet", "--tls-verify=false", "--digestfile", out.file("digest"),
                     "localhost/pushed:1", registry.host() + "/acme/app:1"});
        podman->run({"rmi", "--force", "localhost/pushed:1"});
        const std::string wanted = registry.host() + "/acme/app@" + *read_file(out.file("digest"));
        EXPECT_FALSE(co_await on->has_image(wanted));
        co_await on->pull(wanted, {"device", "token"}, [](int) {});
        EXPECT_TRUE(co_await on->has_image(wanted));
        auto& service = add("web");
        service.set_image(wanted);
        co_await bring_up(*on, service);
        EXPECT_TRUE((co_await on->list())
                        .at(0)
                        .image_digests.contains(wanted.substr(wanted.find('@') + 1)));

        const std::string unknown = registry.host() + "/acme/app@sha256:" + std::string(64, '1');
        EXPECT_EQ(co_await code_of_task(on->pull(unknown, {}, [](int) {})), Code::kNotFound);
        registry.stop();
        EXPECT_EQ(co_await code_of_task(on->pull(unknown, {}, [](int) {})), Code::kUnavailable);
      },
      kLimit);
}

TEST_F(PodmanRuntime, TellsHowFarADownloadIs) {
  if (!ft::require({"docker-registry"})) GTEST_SKIP() << "needs docker-registry";
  ft::Registry registry;
  registry.start();
  ft::Podman other;
  other.know_as_plain(registry.host());
  other.start();
  // Large and without repetitions, so that Podman has something to say in between.
  std::string noise;
  {
    std::ifstream random("/dev/urandom", std::ios::binary);
    noise.resize(60 << 20);
    random.read(noise.data(), static_cast<std::streamsize>(noise.size()));
  }
  const ft::TempDir context;
  context.write("noise", noise);
  context.write("Containerfile", "FROM scratch\nCOPY noise /noise\n");
  other.run(
      {"build", "--quiet", "--format", "docker", "--tag", "localhost/large:1", context.path()});
  other.run({"push", "--quiet", "--tls-verify=false", "--digestfile", out.file("large"),
             "localhost/large:1", registry.host() + "/acme/large:1"});
  other.run({"rmi", "--all", "--force"});
  const std::string wanted = registry.host() + "/acme/large@" + *read_file(out.file("large"));
  run_task(
      [&]() -> Task<void> {
        const auto on = make_podman(co_await asio::this_coro::executor, other.socket(), {});
        std::vector<int> told;
        const auto began = std::chrono::steady_clock::now();
        co_await on->pull(wanted, {}, [&](int percent) { told.push_back(percent); });
        const auto took = std::chrono::steady_clock::now() - began;
        EXPECT_TRUE(co_await on->has_image(wanted));
        EXPECT_TRUE(std::is_sorted(told.begin(), told.end()));
        EXPECT_TRUE(
            std::all_of(told.begin(), told.end(), [](int p) { return p >= 0 && p <= 100; }));
        // Podman speaks about once a second: a quick disk gives it no time to.
        if (took > std::chrono::seconds(4)) {
          EXPECT_TRUE(std::any_of(told.begin(), told.end(), [](int p) { return p > 0 && p < 99; }));
        }
        const std::string unknown = registry.host() + "/acme/large@sha256:" + std::string(64, '1');
        EXPECT_EQ(co_await code_of_task(on->pull(unknown, {}, [](int) {})), Code::kNotFound);
        registry.stop();
        EXPECT_EQ(co_await code_of_task(on->pull(unknown, {}, [](int) {})), Code::kUnavailable);
      },
      kLimit);
}

TEST_F(PodmanRuntime, AnAbsentSocketIsAnOutage) {
  run_task([&]() -> Task<void> {
    const auto on = make_podman(co_await asio::this_coro::executor, out.file("nothing"), {});
    Task<void> listing = [](Runtime& r) -> Task<void> { co_await r.list(); }(*on);
    EXPECT_EQ(co_await code_of_task(std::move(listing)), Code::kUnavailable);
  });
}

}  // namespace
}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
// bench_logs FLOCKD: ten containers write; what arrives is counted, and what it cost flockd.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "app/test_backend.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/client.h"
#include "testing/servers.h"

namespace {

using namespace flock;
namespace ft = flock::testing;

constexpr int kServices = 10;

// A figure of /proc/PID/FILE in the line that begins with `key`.
double figure(pid_t pid, const char* file, const std::string& key) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/" + file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return std::stod(line.substr(key.size()));
  return 0;
}

double cpu_seconds(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  text.erase(0, text.rfind(')') + 2);
  std::istringstream words(text);
  std::string word;
  double user = 0, system = 0;
  for (int i = 0; i < 13 && words >> word; ++i) {
    if (i == 11) user = std::stod(word);
    if (i == 12) system = std::stod(word);
  }
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Bench {
 public:
  Bench(Executor executor, std::string flockd)
      : flockd_(std::move(flockd)), backend_(executor), scope_(executor) {
    broker_.start();
    podman_.start();
    image_ = podman_.build("talk", agent::kTalkingApp);
    backend_.brokers = {broker_.url()};
    mqtt::ClientOptions hearing;
    hearing.url = broker_.url();
    hearing.client_id = "ears";
    ears_ = std::make_unique<mqtt::Client>(executor, hearing);
  }

  Task<void> run() {
    for (const char* filter :
         {"devices/+/logs", "devices/+/events", "devices/+/state", "devices/+/telemetry"}) {
      mqtt::Subscription all;
      all.filter = filter;
      co_await ears_->subscribe(all, [this](mqtt::Delivery delivery) {
        if (delivery.message.topic.ends_with("/logs")) count(delivery.message.payload);
        delivery.ack();
      });
    }
    scope_.spawn("ears", ears_->run());
    start_flockd();
    // The first lines of each container come before its log is found; they count as well.
    co_await measure("as fast as they can", 1, {"30000", "100", "1", "burst"}, 30'000);
    co_await measure("50 lines a second each", 2, {"1000", "5", "100", "steady"}, 1'000);
    co_await silence();
    scope_.cancel();
    co_await scope_.join();
    co_await backend_.server.stop();
  }

 private:
  void start_flockd() {
    process_.start({flockd_, "--server=" + backend_.url, "--data-dir=" + dir_.file("data"),
                    "--provisioning-key-file=" + dir_.write("key", "flp_x\n"),
                    "--podman.socket=" + podman_.socket(), "--logs.lines-per-second=0",
                    "--logs.bytes-per-second=0", "--log.level=warn"},
                   dir_.file("flockd.log"));
  }

  Task<void> want(std::int64_t version, std::vector<std::string> command) {
    device::v1::DesiredState state;
    state.set_version(version);
    for (int i = 0; i < kServices; ++i) {
      auto* service = state.add_services();
      service->set_name("service-" + std::to_string(i));
      service->set_image(image_);
      service->set_network_mode("none");
      service->set_stop_grace_ms(1000);
      service->mutable_restart()->set_policy(device::v1::Restart::NO);
      service->set_has_command(true);
      for (const std::string& word : command) service->add_command(word);
    }
    mqtt::Message message;
    message.topic = "devices/" + backend_.device + "/desired";
    message.retain = true;
    message.payload = state.SerializeAsString();
    co_await ears_->publish(message);
  }

  Task<void> measure(std::string name, std::int64_t version, std::vector<std::string> command,
                     std::int64_t lines_each) {
    const std::int64_t wanted = lines_ + gaps_ + kServices * lines_each;
    co_await want(version, command);
    const std::int64_t before = lines_ + gaps_;
    const double patience = now() + 120;
    while (lines_ + gaps_ == before && now() < patience) co_await sleep_for(Duration(20));
    const double began = now(), cpu = cpu_seconds(process_.pid());
    const std::int64_t first = lines_ + gaps_;
    while (lines_ + gaps_ < wanted && now() < patience) co_await sleep_for(Duration(20));
    if (lines_ + gaps_ < wanted) throw Error(Code::kTimeout, "the lines did not arrive");
    const auto lines = static_cast<double>(lines_ + gaps_ - first);
    const double took = now() - began, used = cpu_seconds(process_.pid()) - cpu;
    std::printf(
        "flockd, %d containers writing %s: %.0f lines a second, %.1f us CPU per line, %.1f %% of a "
        "core, RSS %.1f MB, at most %.1f MB (promise: under 15), %lld lines missing\n",
        kServices, name.c_str(), lines / took, used * 1e6 / lines, used / took * 100,
        figure(process_.pid(), "status", "VmRSS:") / 1024,
        figure(process_.pid(), "status", "VmHWM:") / 1024, static_cast<long long>(gaps_));
    std::fflush(stdout);
  }

  Task<void> silence() {
    co_await sleep_for(Duration(35'000));  // the last positions are saved
    const pid_t pid = process_.pid();
    const double switches = figure(pid, "status", "voluntary_ctxt_switches:"),
                 written = figure(pid, "io", "write_bytes:");
    constexpr int kSeconds = 30;
    co_await sleep_for(Duration(kSeconds * 1000));
    std::printf(
        "flockd beside %d silent containers: %.2f wake-ups a second (promise: at most 1), %.0f "
        "bytes written in %d s (promise: 0)\n",
        kServices, (figure(pid, "status", "voluntary_ctxt_switches:") - switches) / kSeconds,
        figure(pid, "io", "write_bytes:") - written, kSeconds);
  }

  void count(const std::string& payload) {
    device::v1::LogBatch batch;
    if (!batch.ParseFromString(payload)) throw Error(Code::kProtocol, "not a LogBatch");
    for (const auto& stream : batch.streams()) {
      std::int64_t& seen = numbers_[stream.service()];
      for (const auto& line : stream.lines()) {
        if (line.number() <= seen) continue;
        seen = line.number();
        ++lines_;
      }
      for (const auto& gap : stream.gaps()) gaps_ += gap.count();
    }
  }

  std::string flockd_;
  ft::TempDir dir_;
  ft::Mosquitto broker_;
  ft::Podman podman_;
  agent::Backend backend_;
  std::string image_;
  std::unique_ptr<mqtt::Client> ears_;
  ft::Process process_;
  TaskScope scope_;
  std::map<std::string, std::int64_t> numbers_;
  std::int64_t lines_ = 0, gaps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_logs FLOCKD\n");
    return 2;
  }
  try {
    log::set_level(log::Level::kError);
    Loop loop;
    Bench bench(loop.executor(), argv[1]);
    loop.run(bench.run());
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

// SPDX-License-Identifier: Apache-2.0
// What an idle device costs on its line. Everything that flockd sends by itself is made frequent by
// its configuration and counted between flockd and its peers; the sum of a day is the cost of each
// times how often it comes. Bytes are those of TCP's payload, TLS and both directions included;
// packets are the kernel's count of segments, so that headers can be added.
#include <arpa/inet.h>
#include <linux/tcp.h>  // the C library lacks the counts of segments
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <thread>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/id.h"
#include "base/random.h"
#include "crypto/jwt.h"
#include "crypto/keys.h"
#include "flock/device/v1/device.pb.h"
#include "mqtt/client.h"
#include "net/http_server.h"
#include "testing/servers.h"

namespace {

using namespace flock;
namespace ft = flock::testing;
namespace bj = boost::json;

constexpr double kHeaders = 52;  // IPv4 and TCP with time stamps, of each packet
constexpr double kDay = 86'400;  // seconds

struct Count {
  double bytes = 0, packets = 0;
  std::int64_t writes_up = 0;
  double with_headers() const { return bytes + packets * kHeaders; }
};
Count operator-(Count a, const Count& b) {
  return {a.bytes - b.bytes, a.packets - b.packets, a.writes_up - b.writes_up};
}
Count operator/(Count a, double n) { return {a.bytes / n, a.packets / n, 0}; }

// Stands between flockd and one peer, and counts.
class Counter {
 public:
  explicit Counter(int to) : to_(to), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    FLOCK_ASSERT(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
    FLOCK_ASSERT(::listen(listener_, 16) == 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_loop(); });
  }
  ~Counter() {
    ending_ = true;
    acceptor_.join();
    for (std::thread& relay : relays_) relay.join();
    ::close(listener_);
  }
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;
  int port() const { return port_; }
  Count count() {
    const std::lock_guard lock(mutex_);
    Count out = over_;
    for (const int fd : open_) out.packets += segments(fd);
    return out;
  }

 private:
  static sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static double segments(int fd) {
    tcp_info info{};
    socklen_t size = sizeof info;
    ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    return static_cast<double>(info.tcpi_segs_in) + info.tcpi_segs_out;
  }
  bool wait_for(int a, int b) const {
    pollfd fds[] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    while (!ending_) {
      if (::poll(fds, b < 0 ? 1 : 2, 100) > 0) return true;
    }
    return false;
  }
  void accept_loop() {
    while (wait_for(listener_, -1)) {
      const int device = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (device >= 0) relays_.emplace_back([this, device] { relay(device); });
    }
  }
  void relay(int device) {
    const int peer = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local(to_);
    {
      const std::lock_guard lock(mutex_);
      open_.push_back(device);
    }
    if (::connect(peer, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      while (wait_for(device, peer) && pass(device, peer, true) && pass(peer, device, false)) {
      }
    }
    const std::lock_guard lock(mutex_);
    std::erase(open_, device);
    over_.packets += segments(device);
    ::close(device);
    ::close(peer);
  }
  // False when the sender has ended.
  bool pass(int from, int to, bool up) {
    char block[16384];
    const ssize_t n = ::recv(from, block, sizeof block, MSG_DONTWAIT);
    if (n < 0) return true;
    if (n == 0) return false;
    {
      const std::lock_guard lock(mutex_);
      over_.bytes += static_cast<double>(n);
      over_.writes_up += up ? 1 : 0;
    }
    return ::send(to, block, static_cast<std::size_t>(n), MSG_NOSIGNAL) == n;
  }

  int to_, listener_, port_ = 0;
  std::mutex mutex_;
  Count over_;
  std::vector<int> open_;
  std::atomic<bool> ending_{false};
  std::vector<std::thread> relays_;
  std::thread acceptor_;
};

constexpr const char* kApp = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

class Bench {
 public:
  Bench(Executor executor, std::string flockd)
      : executor_(executor),
        flockd_(std::move(flockd)),
        ca_(crypto::make_ca("bench", 30)),
        certificate_(crypto::issue_certificate(ca_, {"localhost", "127.0.0.1"}, 30)),
        broker_(broker_options()),
        server_(
            executor, [this](net::Request) { return answer(); },
            [](const net::Request&, std::exception_ptr) { return net::Response{500, {}, ""}; }) {
    net::TlsOptions tls;
    tls.certificate_pem = certificate_.certificate_pem;
    tls.key_pem = certificate_.key_pem;
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0, net::make_tls_server(tls));
    api_ = std::make_unique<Counter>(listener->port());
    server_.listen(std::move(listener));
    broker_.start();
    mqtt_ = std::make_unique<Counter>(broker_.port());
    podman_.start();
    image_ = podman_.build("idle", kApp);
  }

  Task<void> run() {
    TaskScope scope(executor_);
    mqtt::ClientOptions watching;
    net::TlsOptions tls;
    tls.ca_pem = ca_.certificate_pem;
    watching.url = "mqtts://localhost:" + std::to_string(broker_.port());
    watching.tls = net::make_tls_client(tls);
    watching.client_id = "watcher";
    mqtt::Client watcher(executor_, watching);
    mqtt::Subscription all;
    all.filter = "devices/+/+";
    co_await watcher.subscribe(all, [this](mqtt::Delivery delivery) {
      ++seen_[delivery.message.topic.substr(delivery.message.topic.rfind('/') + 1)];
      device::v1::ReportedState state;
      if (delivery.message.topic.ends_with("/state") &&
          state.ParseFromString(delivery.message.payload))
        phase_ = state.phase();
      delivery.ack();
    });
    scope.spawn("watcher", watcher.run());
    co_await watcher.wait_connected();
    co_await want(watcher);
    co_await measure();
    scope.cancel();
    co_await scope.join();
    co_await server_.stop();
  }

 private:
  ft::Mosquitto::Options broker_options() const {
    return {certificate_.certificate_pem, certificate_.key_pem, "", false};
  }

  // A token as long as a real one.
  std::string token() const {
    bj::array rules;
    for (const char* leaf : {"state", "telemetry", "logs", "events", "desired", "commands"})
      rules.push_back(bj::object{{"permission", "allow"},
                                 {"action", "subscribe"},
                                 {"topic", "devices/" + device_ + "/" + leaf}});
    return crypto::sign_jwt(key_, {{"iss", "https://flock.example"},
                                   {"sub", device_},
                                   {"aud", "flock-device"},
                                   {"org", new_uuid()},
                                   {"fleet", new_uuid()},
                                   {"iat", 1'700'000'000},
                                   {"nbf", 1'700'000'000},
                                   {"exp", 1'800'000'000},
                                   {"jti", new_uuid()},
                                   {"acl", std::move(rules)}});
  }

  Task<net::Reply> answer() {
    ++calls_;
    const TimePoint now = system_clock().now();
    net::Reply reply;
    reply.response.headers.add("Content-Type", "application/json");
    reply.response.body =
        bj::serialize(bj::object{{"device_id", device_},
                                 {"name", "gate-4"},
                                 {"organization_id", new_uuid()},
                                 {"fleet_id", new_uuid()},
                                 {"token", token()},
                                 {"token_expires_at", to_rfc3339(now + life_)},
                                 {"mqtt",
                                  {{"urls", {"mqtts://localhost:" + std::to_string(mqtt_->port())}},
                                   {"ca_certificates", ca_.certificate_pem}}},
                                 {"registry", {{"hosts", {"registry.flock.example"}}}},
                                 {"server_time", to_rfc3339(now)}});
    co_return reply;
  }

  Task<void> want(mqtt::Client& client) const {
    device::v1::DesiredState wish;
    wish.set_version(1);
    wish.set_release_id(new_uuid());
    wish.set_rollout_id(new_uuid());
    for (const char* name : {"gateway", "collector"}) {
      auto* service = wish.add_services();
      service->set_name(name);
      service->set_image(image_);
      service->set_network_mode("none");
      service->set_stop_grace_ms(1000);
      service->mutable_restart()->set_policy(device::v1::Restart::ALWAYS);
    }
    mqtt::Message message;
    message.topic = "devices/" + device_ + "/desired";
    message.payload = wish.SerializeAsString();
    message.retain = true;
    co_await client.publish(std::move(message));
  }

  void start(std::vector<std::string> more) {
    std::vector<std::string> words{flockd_,
                                   "--server=https://localhost:" + std::to_string(api_->port()),
                                   "--ca_file=" + dir_.write("ca.pem", ca_.certificate_pem),
                                   "--provisioning_key_file=" + dir_.write("key", "flp_x\n"),
                                   "--data_dir=" + dir_.file("data"),
                                   "--podman.socket=" + podman_.socket()};
    words.insert(words.end(), more.begin(), more.end());
    phase_ = device::v1::ReportedState::IDLE;
    process_.start(words, dir_.file("flockd.log"));
  }

  Count total() { return sum(mqtt_->count(), api_->count()); }
  static Count sum(const Count& a, const Count& b) {
    return {a.bytes + b.bytes, a.packets + b.packets, a.writes_up + b.writes_up};
  }

  // Everything runs and is proven, and what that caused has gone out.
  Task<void> proven() {
    for (int i = 0; phase_ != device::v1::ReportedState::CONFIRMED; ++i) {
      if (i == 600) throw Error(Code::kTimeout, "the services did not run");
      co_await sleep_for(Duration(100));
    }
    co_await sleep_for(Duration(6'000));
  }

  // The cost of one of what is made frequent by `setting`. `number` counts them.
  Task<Count> cost_of(std::string setting, std::function<std::int64_t()> number) {
    start({"--profile=low", setting});
    co_await proven();
    const Count before = total();
    const std::int64_t first = number();
    co_await sleep_for(Duration(15'000));
    const Count spent = total() - before;
    const std::int64_t count = number() - first;
    process_.stop();
    if (count == 0) throw Error(Code::kInternal, "nothing was sent with " + setting);
    co_return spent / static_cast<double>(count);
  }

  Task<Count> cost_of_renewal() {
    life_ = Duration(30'000);
    start({"--profile=low"});
    co_await proven();
    const int calls = calls_;
    const Count before = total();
    while (calls_ == calls) co_await sleep_for(Duration(100));
    life_ = Duration(86'400'000);
    while (calls_ == calls + 1 && total().bytes == before.bytes) co_await sleep_for(Duration(100));
    co_await sleep_for(Duration(6'000));
    const Count spent = total() - before;
    process_.stop();
    co_return spent / static_cast<double>(calls_ - calls);
  }

  // The number behind `key` in a file of flockd's process.
  double own(const char* file, const std::string& key) const {
    std::ifstream in("/proc/" + std::to_string(process_.pid()) + "/" + file);
    for (std::string line; std::getline(in, line);)
      if (line.starts_with(key)) return std::atof(line.c_str() + key.size());
    return 0;
  }

  Task<void> measure() {
    const auto seen = [this](const char* leaf) { return [this, leaf] { return seen_[leaf]; }; };
    const Count ping =
        co_await cost_of("--mqtt.keep_alive=2s", [this] { return mqtt_->count().writes_up; });
    const Count state = co_await cost_of("--state_interval=2s", seen("state"));
    const Count telemetry = co_await cost_of("--telemetry.send_interval=2s", seen("telemetry"));
    const Count renewal = co_await cost_of_renewal();

    // Renewal at two thirds of the token's life, less a jitter of a twenty-fourth on average.
    constexpr double kRenewals = 1 / (2.0 / 3 - 1.0 / 24);
    double bytes = 0, with_headers = 0;
    const auto row = [&](const char* what, const Count& cost, double a_day) {
      std::printf(
          "  %-40s %6.0f bytes, %4.1f packets, x %7.2f a day = %6.2f kB (%6.2f with headers)\n",
          what, cost.bytes, cost.packets, a_day, cost.bytes * a_day / 1000,
          cost.with_headers() * a_day / 1000);
      bytes += cost.bytes * a_day;
      with_headers += cost.with_headers() * a_day;
    };
    std::puts("traffic of an idle device with two services, low profile:");
    row("keep-alive, every 20 min", ping, 72);
    row("telemetry, every hour", telemetry, 24);
    row("state, every 12 h", state, 2);
    row("token of 168 h and new session", renewal, kRenewals * 24 / 168);
    std::printf(
        "traffic, low profile: %.1f kB a day, %.1f with IP and TCP headers (promise: under 35)\n",
        bytes / 1000, with_headers / 1000);

    start({});
    co_await proven();
    constexpr double kWindow = 180;
    const Count before = total();
    const double switches = own("status", "voluntary_ctxt_switches:"),
                 written = own("io", "write_bytes:");
    co_await sleep_for(Duration(static_cast<std::int64_t>(kWindow) * 1000));
    const Count idle = total() - before;
    std::printf(
        "flockd meanwhile, default profile, two services: RSS %.1f MB (promise: at most 10), %.2f "
        "wake-ups a second (promise: at most 1), %.0f bytes written (promise: 0)\n",
        own("status", "VmRSS:") / 1024,
        (own("status", "voluntary_ctxt_switches:") - switches) / kWindow,
        own("io", "write_bytes:") - written);
    process_.stop();
    const double renewals = kRenewals * 24;
    std::printf(
        "traffic, default profile: %.0f kB a day, %.0f with IP and TCP headers (%.0f s measured; "
        "tokens of 1 h are %.0f kB of it)\n",
        (idle.bytes * kDay / kWindow + renewal.bytes * renewals) / 1000,
        (idle.with_headers() * kDay / kWindow + renewal.with_headers() * renewals) / 1000, kWindow,
        renewal.bytes * renewals / 1000);
  }

  Executor executor_;
  std::string flockd_;
  crypto::Certificate ca_, certificate_;
  crypto::Key key_ = crypto::Key::generate(crypto::Key::Kind::kP256);
  ft::TempDir dir_;
  ft::Mosquitto broker_;
  net::HttpServer server_;
  ft::Podman podman_;
  std::unique_ptr<Counter> api_, mqtt_;
  ft::Process process_;
  std::string image_, device_ = new_uuid();
  Duration life_{86'400'000};
  int calls_ = 0;
  std::map<std::string, std::int64_t> seen_;
  device::v1::ReportedState::Phase phase_ = device::v1::ReportedState::IDLE;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: bench_traffic FLOCKD\n", stderr);
    return 2;
  }
  try {
    Loop loop;
    Bench bench(loop.executor(), argv[1]);
    loop.run(bench.run());
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

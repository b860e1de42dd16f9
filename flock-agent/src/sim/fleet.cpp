// SPDX-License-Identifier: Apache-2.0
#include "sim/fleet.h"

#include <sys/resource.h>

#include <deque>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"

namespace flock::agent::sim {
namespace {

// Each device has a connection to the broker.
constexpr std::int64_t kJoinAtOnce = 32, kOtherFiles = 64 + kJoinAtOnce;
constexpr std::size_t kGoodbyesAtOnce = 256;

void allow_files(std::int64_t devices) {
  const auto wanted = static_cast<rlim_t>(devices + kOtherFiles);
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted)
    throw Error(Code::kInvalidArgument, "this process may not open that many connections")
        .with("devices", std::to_string(devices))
        .with("open_files", std::to_string(limit.rlim_max))
        .hint("fewer devices, or as root: ulimit -Hn " + std::to_string(wanted));
}

net::ClientOptions http_options(const std::shared_ptr<net::TlsContext>& tls) {
  net::ClientOptions options;
  options.user_agent = "flock-sim/0.1.0";
  options.body_bytes = 1 << 20;
  options.idle_connections = 0;
  options.tls = tls;
  return options;
}

}  // namespace

struct Fleet::Impl {
  Impl(Executor e, FleetOptions o) : executor(e), options(std::move(o)), stopping(e), scope(e) {
    allow_files(options.count);
    world.server = options.server;
    world.provisioning_key_file = options.provisioning_key_file;
    world.name_prefix = options.name_prefix;
    world.behaviour = options.behaviour;
    world.joining =
        std::make_unique<Gate>(executor, kJoinAtOnce, static_cast<std::size_t>(options.count));
    std::shared_ptr<net::TlsContext> tls;
    if (options.server.starts_with("https:")) {
      net::TlsOptions roots;
      if (!options.ca_file.empty()) roots.ca_pem = read_file(options.ca_file).value_or("");
      tls = net::make_tls_client(roots);
    }
    world.http = [tls] { return http_options(tls); };
  }

  Task<void> start_all() {
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < options.count; ++i) {
      const auto due =
          began + std::chrono::microseconds(1'000'000LL * i /
                                            std::max<std::int64_t>(1, options.start_per_second));
      const auto now = std::chrono::steady_clock::now();
      if (due > now) co_await sleep_for(std::chrono::duration_cast<Duration>(due - now));
      devices.emplace_back(executor, world, i);
      scope.spawn("device", devices.back().run());
    }
  }

  Task<void> end_all() {
    TaskScope goodbyes(executor);
    for (VirtualDevice& device : devices) {
      goodbyes.spawn("goodbye", device.end(true));
      if (goodbyes.size() >= kGoodbyesAtOnce) co_await goodbyes.join();
    }
    co_await goodbyes.join();
  }

  Executor executor;
  FleetOptions options;
  World world;
  std::deque<VirtualDevice> devices;
  Event stopping;
  TaskScope scope;
};

Fleet::Fleet(Executor executor, FleetOptions options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
Fleet::~Fleet() = default;

Task<void> Fleet::run() {
  impl_->scope.spawn("start", impl_->start_all());
  co_await impl_->stopping.wait();
  impl_->scope.cancel();
  co_await impl_->scope.join();
  co_await impl_->end_all();
}
void Fleet::stop() { impl_->stopping.set(); }
const Counts& Fleet::counts() const noexcept { return impl_->world.counts; }

}  // namespace flock::agent::sim

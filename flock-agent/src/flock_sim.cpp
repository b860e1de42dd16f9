// SPDX-License-Identifier: Apache-2.0
// flock-sim: many virtual devices in one process, speaking the real protocol.
#include <unistd.h>

#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>

#include "async/loop.h"
#include "async/scope.h"
#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "sim/fleet.h"

namespace {

using namespace flock;
using agent::sim::Counts;
using agent::sim::Fleet;
using agent::sim::FleetOptions;

void bind(config::Schema& schema, FleetOptions& options) {
  agent::sim::Behaviour& behaviour = options.behaviour;
  schema.add("server", options.server, "URL of flock-api");
  schema.add("provisioning_key_file", options.provisioning_key_file,
             "file with the provisioning key");
  schema.add("ca_file", options.ca_file, "PEM roots for the server; default: the system's");
  schema.add("count", options.count, "how many devices", 1, 200'000);
  schema.add("name_prefix", options.name_prefix, "names are PREFIX-00000 and so on");
  schema.add("start_per_second", options.start_per_second, "how fast devices come", 1, 100'000);
  schema.add("fail_update_percent", behaviour.fail_update_percent,
             "share of devices that fail a release, for each release anew", 0, 100);
  schema.add("fail_release", behaviour.fail_release,
             "version of a release that every device fails");
  schema.add("offline_percent", behaviour.offline_percent, "share of devices that come and go", 0,
             100);
  schema.add("online_for", behaviour.online_for, "how long those stay, +-50 %");
  schema.add("offline_for", behaviour.offline_for, "how long those are away, +-50 %");
  schema.add("update_time", behaviour.update_time, "how long an update takes, +-50 %");
  schema.add("state_every", behaviour.state_every, "slow report when nothing changes");
  schema.add("telemetry_every", behaviour.telemetry_every, "how often figures are sent");
  schema.add("log_every", behaviour.log_every, "a line of each service; 0s: none");
}

std::string line(const Counts& counts, std::int64_t count) {
  std::string text = std::to_string(count) + " devices: " + std::to_string(counts.registered) +
                     " registered, " + std::to_string(counts.connected) + " connected, " +
                     std::to_string(counts.messages) + " messages, " +
                     std::to_string(counts.confirmed) + " updates confirmed, " +
                     std::to_string(counts.failed) + " failed";
  if (counts.errors > 0)
    text += ", " + std::to_string(counts.errors) + " errors (last: " + counts.last_error + ")";
  return text;
}

bool on_terminal() { return ::isatty(STDERR_FILENO) == 1; }
// What takes the drawn line away.
const char* fresh_line() { return on_terminal() ? "\r\033[K" : ""; }

constexpr Duration kLook{250}, kRedraw{500}, kPrint{5000};

// One line that is drawn again on a terminal; elsewhere a line each time that something changed.
// Says once when all devices are there.
Task<void> show(const Fleet& fleet, std::int64_t count) {
  const bool terminal = on_terminal();
  const SteadyPoint began = std::chrono::steady_clock::now();
  SteadyPoint drawn = began;
  std::string last;
  bool complete = false;
  for (;;) {
    co_await sleep_for(kLook);
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (!complete && fleet.counts().connected >= count) {
      complete = true;
      std::fprintf(stderr, "%sall %lld devices are connected, after %.1f s\n", fresh_line(),
                   static_cast<long long>(count),
                   std::chrono::duration<double>(now - began).count());
    }
    if (now - drawn < (terminal ? kRedraw : kPrint)) continue;
    drawn = now;
    std::string text = line(fleet.counts(), count);
    if (text == last) continue;
    std::fprintf(stderr, terminal ? "\r\033[K%s" : "%s\n", text.c_str());
    last = std::move(text);
  }
}

int run(std::vector<std::string> arguments) {
  FleetOptions options;
  std::int64_t seed = 1;
  config::Schema schema("FLOCK_SIM_");
  bind(schema, options);
  schema.add("seed", seed, "the same seed makes the same devices do the same");
  for (const std::string& argument : arguments) {
    if (argument != "--help" && argument != "-h") continue;
    std::printf(
        "flock-sim: virtual devices for trying Flock out\n\nusage: flock-sim --server URL "
        "--provisioning-key-file FILE [--count 50] ...\n\n%s",
        schema.help().c_str());
    return 0;
  }
  config::Sources sources;
  sources.arguments = std::move(arguments);
  sources.environment = config::environment_with_prefix("FLOCK_SIM_");
  schema.load(sources);
  options.behaviour.seed = static_cast<std::uint64_t>(seed);
  while (options.server.ends_with('/')) options.server.pop_back();
  if (options.server.empty() || options.provisioning_key_file.empty())
    throw Error(Code::kInvalidArgument, "a server and a provisioning key are needed")
        .hint("flock devices simulate makes a key and starts this program");
  log::set_level(log::Level::kError);
  const std::int64_t count = options.count;

  Loop loop;
  Fleet fleet(loop.executor(), std::move(options));
  const auto live = [&]() -> Task<void> {
    asio::signal_set signals(loop.executor(), SIGTERM, SIGINT);
    signals.async_wait([&](const boost::system::error_code& error, int) {
      if (error) return;
      std::fprintf(stderr, "%sthe devices say goodbye\n", fresh_line());
      fleet.stop();
    });
    TaskScope display(loop.executor());
    display.spawn("display", show(fleet, count));
    co_await fleet.run();
    display.cancel();
    co_await display.join();
    std::fprintf(stderr, "%s%s\n", fresh_line(), line(fleet.counts(), count).c_str());
  };
  loop.run(live());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return run({argv + 1, argv + argc});
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    if (!error.hint().empty()) std::fprintf(stderr, "Try:   %s\n", error.hint().c_str());
    return error.code() == Code::kInvalidArgument ? 2 : 1;
  }
}

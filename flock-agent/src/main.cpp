// SPDX-License-Identifier: Apache-2.0
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdio>

#include "app/agent.h"
#include "app/status.h"
#include "async/loop.h"
#include "base/config.h"
#include "base/error.h"
#include "base/log.h"

namespace {

using namespace flock;

void add_keys(config::Schema& schema, agent::AgentOptions& options, std::string& level) {
  schema.add("server", options.server, "URL of flock-api");
  schema.add("provisioning_key_file", options.provisioning_key_file,
             "file with the provisioning key, for the first start");
  schema.add("data_dir", options.data_dir, "keys and the last desired state");
  schema.add("name", options.name, "this device's name; default: the host's");
  schema.add("ca_file", options.ca_file, "PEM roots for the server; default: the system's");
  schema.add("podman.socket", options.podman_socket, "Podman's REST socket");
  schema.add("registry.insecure_hosts", options.insecure_hosts, "registries that speak plain HTTP");
  schema.add(
      "profile", options.profile,
      "default, or low: for lines that are paid by the byte; the intervals that are 0s follow it");
  schema.add("state_interval", options.state_interval, "slow report when nothing changes");
  schema.add("telemetry.look_interval", options.look_interval, "how often to read the figures");
  schema.add("telemetry.send_interval", options.telemetry_interval, "how often to send them");
  schema.add("mqtt.keep_alive", options.keep_alive,
             "longest silence to the broker; it takes the device for lost after 1.5 of them");
  schema.add("token_lifetime", options.token_lifetime,
             "what to ask of the server; each renewal costs a connection");
  schema.add("commands.reboot", options.reboot, "whether the server may start this machine again");
  schema.add("commands.reboot_command", options.reboot_command,
             "program and arguments; default: systemctl reboot, or the kernel's call");
  schema.add("host_commands.enabled", options.host_commands,
             "whether deployments may run commands on this machine");
  schema.add("host_commands.allow", options.allowed_host_commands,
             "the only commands and scripts that may be run: their texts, or sha256:HEX of them; "
             "default: all");
  schema.add("rollback.enabled", options.goes_back,
             "whether this device goes back by itself from a release that it cannot keep");
  schema.add("rollback.start_timeout", options.start_timeout,
             "how long a new release may take until it is healthy, when the server does not say; "
             "0s: no limit");
  schema.add("rollback.contact_timeout", options.contact_timeout,
             "a new release after which the server cannot be reached for so long is taken back; "
             "0s: never");
  schema.add("spool.limit", options.spool_limit,
             "bytes on disk of what cannot be sent; beyond it telemetry goes first, events last",
             256 << 10);
  schema.add("spool.drain_bytes_per_second", options.spool_drain,
             "how fast that is sent after an outage, each of its three kinds", 1024);
  schema.add("logs.lines_per_second", options.log_lines_per_second,
             "of each service; more are counted and left out; 0: no limit");
  schema.add("logs.bytes_per_second", options.log_bytes_per_second, "of each service; 0: no limit");
  schema.add("logs.kernel", options.log_kernel, "send the kernel's messages, too");
  schema.add("logs.journal", options.log_journal,
             "not possible yet: the host's journal needs a library that is not on every device");
  schema.add("status_socket", options.status_socket,
             "where flockd status asks; default: status.sock in data_dir");
  schema.add("reconcile_interval", options.reconcile_interval,
             "how often to compare what is with what should be");
  schema.add("log.level", level, "debug, info, warn, error, off");
}

int show_status(const agent::AgentOptions& options, bool as_json) {
  Loop loop;
  std::string document;
  const auto ask = [&]() -> Task<void> {
    document = co_await agent::ask_status(options.status_socket);
  };
  loop.run(ask());
  std::fputs((as_json ? document + "\n" : agent::describe_status(document)).c_str(), stdout);
  return 0;
}

int run(std::vector<std::string> arguments) {
  agent::AgentOptions options;
  std::string level = "info";
  config::Schema schema("FLOCKD_");
  add_keys(schema, options, level);
  config::Sources sources;
  sources.environment = config::environment_with_prefix("FLOCKD_");
  bool print = false, as_json = false;
  const bool status = !arguments.empty() && arguments.front() == "status";
  for (std::size_t i = status ? 1 : 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--version") {
      std::puts("flockd 0.1.0");
      return 0;
    }
    if (arguments[i] == "--help" || arguments[i] == "-h") {
      std::printf(
          "flockd: Flock's agent on a device\n\nusage: flockd --config FILE [--KEY=VALUE ...] | "
          "--print-config | --version\n       flockd status [--json] [--config FILE]   what the "
          "flockd on this machine does\n\n%s",
          schema.help().c_str());
      return 0;
    }
    if (status && arguments[i] == "--json")
      as_json = true;
    else if (arguments[i] == "--print-config")
      print = true;
    else if (arguments[i] == "--config" && i + 1 < arguments.size())
      sources.file = arguments[++i];
    else if (arguments[i].starts_with("--config="))
      sources.file = arguments[i].substr(9);
    else
      sources.arguments.push_back(arguments[i]);
  }
  schema.load(sources);
  agent::complete(options);
  if (status) return show_status(options, as_json);
  if (print) {
    std::fputs(schema.print().c_str(), stdout);
    return 0;
  }
  if (options.server.empty())
    throw Error(Code::kInvalidArgument, "no server is configured")
        .hint("server: https://flock.example in the file of --config");
  while (options.server.ends_with('/')) options.server.pop_back();
  log::set_level(log::parse_level(level));
  log::set_format(log::default_format());

  Loop loop;
  agent::Agent agent(loop.executor(), options);
  const auto live = [&]() -> Task<void> {
    asio::signal_set signals(loop.executor(), SIGTERM, SIGINT);
    signals.async_wait([&](const boost::system::error_code& error, int) {
      if (!error) agent.stop();
    });
    co_await agent.run();
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

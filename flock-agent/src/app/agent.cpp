// SPDX-License-Identifier: Apache-2.0
#include "app/agent.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <optional>
#include <set>

#include "app/commands.h"
#include "app/hardware.h"
#include "app/reconciler.h"
#include "app/status.h"
#include "app/telemetry.h"
#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "host/machine.h"
#include "link/identity.h"
#include "link/uplink.h"
#include "logs/log_follower.h"
#include "mqtt/client.h"
#include "runtimes/podman.h"

namespace flock::agent {
namespace {

constexpr const char* kVersion = "0.1.0";
constexpr Duration kWillDelay{30'000};
constexpr Duration kSessionLife{7LL * 24 * 3600 * 1000};
// Between attempts of a device that the server does not want.
constexpr Duration kRefusedPause{30'000};
constexpr Duration kFarewell{5'000};
constexpr Duration kStartTime{60'000}, kLateStartTime{600'000};
constexpr Duration kFlush{2'000};
constexpr int kConnectionsPerAddress = 3;
constexpr std::int64_t kNumbersOfARun = 1'000'000;  // more than one start of flockd ever uses
constexpr Duration kReportPause{5000};              // after a report that did not arrive

net::ClientOptions http_options(const AgentOptions& options) {
  net::ClientOptions out;
  out.user_agent = std::string("flockd/") + kVersion;
  out.body_bytes = 1 << 20;
  out.idle_connections = 0;
  net::TlsOptions tls;  // without a file of its own: the system's roots
  if (!options.ca_file.empty()) tls.ca_pem = read_file(options.ca_file).value_or("");
  if (options.server.starts_with("https:")) out.tls = net::make_tls_client(tls);
  return out;
}

IdentityOptions identity_options(const AgentOptions& options) {
  IdentityOptions out;
  out.server = options.server;
  out.provisioning_key_file = options.provisioning_key_file;
  out.data_dir = options.data_dir;
  out.name = options.name;
  out.agent_version = kVersion;
  out.hardware = read_hardware();
  out.token_lifetime = options.token_lifetime;
  out.client = [options] { return http_options(options); };
  return out;
}

// What would make the reconciler run in circles, or "".
std::string fault_of(const DesiredState& state) {
  if (state.version() <= 0) return "its version is not positive";
  std::set<std::string> names;
  for (const auto& service : state.services()) {
    if (service.name().empty() || !names.insert(service.name()).second)
      return "service names are not unique";
    if (service.image().find("@sha256:") == std::string::npos)
      return "the image of " + service.name() + " is not named by digest";
  }
  return "";
}

}  // namespace

struct Agent::Impl {
  Impl(Executor e, AgentOptions o)
      : executor(e),
        options(std::move(o)),
        identity(identity_options(options)),
        reconciler(e, make_podman(e, options.podman_socket, options.insecure_hosts),
                   reconciler_options()),
        uplink(e, uplink_options()),
        logs(e, log_options()),
        telemetry(e, telemetry_options()),
        commands(e, reconciler, command_options()),
        status(e, options.status_socket, [this] { return status_document(); }),
        boot_id(read_boot_id(options.root)),
        report_changed(e),
        moved(e),
        stopping(e),
        session(std::make_unique<TaskScope>(e)),
        scope(e) {}

  Reconciler::Options reconciler_options() {
    Reconciler::Options out;
    out.data_dir = options.data_dir;
    out.interval = options.reconcile_interval;
    out.boot_id = read_boot_id(options.root);
    out.goes_back = options.goes_back;
    out.host.enabled = options.host_commands;
    out.host.allowed = options.allowed_host_commands;
    out.host.may_reboot = options.reboot;
    out.host.on_output = [this](device::v1::LogBatch batch) {
      batch.set_boot_id(boot_id);
      batch.set_seq(++seq);
      uplink.send(Upward::kLogs, batch.SerializeAsString());
    };
    out.reboot_command = options.reboot_command;
    out.farewell = [this](std::string why) -> Task<void> { co_await say_farewell(std::move(why)); };
    out.trial.start = options.start_timeout;
    out.trial.contact = options.contact_timeout;
    out.credentials = [this]() -> Task<PullCredentials> {
      const std::string token = co_await identity.token();
      co_return PullCredentials{identity.device_id(), token};
    };
    out.on_report = [this] { report_changed.set(); };
    out.on_containers = [this](const std::vector<Observed>& containers) { follow(containers); };
    out.on_exit = [this](const std::string& service, const device::v1::Exit& exit) {
      device::v1::DeviceEvent event = new_event(device::v1::DeviceEvent::SERVICE_EXITED);
      event.set_service(service);
      *event.mutable_exit() = exit;
      uplink.send(Upward::kEvents, event.SerializeAsString());
    };
    return out;
  }

  Telemetry::Options telemetry_options() {
    Telemetry::Options out;
    out.root = options.root;
    out.data_dir = options.data_dir;
    out.pace.look = options.look_interval;
    out.pace.send = options.telemetry_interval;
    const bool low = options.profile == "low";
    out.pace.quiet = options.telemetry_interval * (low ? 1 : 5);
    out.pace.hurry = low ? 1 : 3;
    out.containers = [this] { return reconciler.containers(); };
    out.updating = [this] {
      const ReportedState::Phase phase = reconciler.report().phase();
      return phase == ReportedState::DOWNLOADING || phase == ReportedState::STARTING ||
             phase == ReportedState::SOAKING;
    };
    out.send = [this](device::v1::TelemetryBatch batch) {
      batch.set_boot_id(boot_id);
      batch.set_seq(++seq);
      batch.set_dropped_points(uplink.lost().telemetry_points);
      uplink.send(Upward::kTelemetry, batch.SerializeAsString());
    };
    return out;
  }

  Commands::Options command_options() {
    Commands::Options out;
    out.data_dir = options.data_dir;
    out.boot_id = read_boot_id(options.root);
    out.root = options.root;
    out.reboot = options.reboot;
    out.reboot_command = options.reboot_command;
    out.agent_version = kVersion;
    out.server_time = [this] { return system_clock().now() + identity.clock_offset(); };
    out.tell = [this](device::v1::CommandResult result) -> Task<void> {
      device::v1::DeviceEvent event = new_event(device::v1::DeviceEvent::COMMAND);
      *event.mutable_command() = std::move(result);
      co_await uplink.deliver(Upward::kEvents, event.SerializeAsString());
    };
    out.farewell = [this](std::string why) -> Task<void> { co_await say_farewell(std::move(why)); };
    return out;
  }

  // Numbers begin at the time in ms and grow over the device's whole life, also on a machine that
  // does not know the time when it starts.
  std::int64_t first_number() const {
    const std::string path = options.data_dir + "/first-number";
    std::int64_t first = to_unix_ms(system_clock().now()), before = 0;
    try {
      const std::string text = read_file(path).value_or("");
      std::from_chars(text.data(), text.data() + text.size(), before);
      if (first <= before && before < INT64_MAX / 2) first = before + kNumbersOfARun;
      write_file_atomic(path, std::to_string(first));
    } catch (const Error& error) {
      log::warn("cannot remember how messages are numbered", error);
    }
    return first;
  }

  Task<void> run() {
    identity.load();
    reconciler.load();
    commands.load();
    seq = first_number();
    log::info("flockd starts", {{"version", kVersion},
                                {"device", identity.device_id()},
                                {"desired_version", reconciler.version()}});
    watch(scope);
    watch(*session);
    start_status();
    uplink.start();
    scope.spawn("logs", logs.run());
    scope.spawn("telemetry", telemetry.run());
    scope.spawn("commands", commands.run());
    scope.spawn("reconcile", reconciler.run());  // needs no network
    scope.spawn("link", link_loop());
    scope.spawn("footprint", shrink());
    co_await stopping.wait();
    co_await flush();
    if (bus && bus->connected()) {
      try {
        Task<void> goodbye = say_goodbye();
        co_await with_deadline(std::move(goodbye), Duration(3000), "saying goodbye");
      } catch (const Error& error) {
        log::warn("could not say goodbye", error);
      }
    }
    scope.cancel();
    co_await scope.join();
    session->cancel();
    co_await session->join();
    co_await commands.stop();
    co_await reconciler.stop();
    co_await status.stop();
    if (failure) std::rethrow_exception(failure);
    log::info("flockd stopped; the containers go on");
  }

  // Twice over: the first connection may be late.
  static Task<void> shrink() {
    for (const Duration pause : {kStartTime, kLateStartTime}) {
      co_await sleep_for(pause);
      forget_used_code();
    }
  }

  // A device whose status cannot be asked for does its work all the same.
  void start_status() {
    try {
      status.start();
    } catch (const Error& error) {
      log::warn("flockd status will not work", error);
    }
  }

  // What is not expected may not leave half an agent behind: whoever started flockd does it again.
  void watch(TaskScope& tasks) {
    tasks.on_failure([this](const std::string& name, std::exception_ptr error) {
      log::error("a part of flockd failed; it ends", {{"part", name}});
      failure = error;
      stopping.set();
    });
  }

  Task<void> say_goodbye() {
    co_await publish_event(device::v1::DeviceEvent::OFFLINE);
    co_await bus->disconnect(Duration(2000));
  }

  Task<void> say_farewell(std::string why) {
    device::v1::DeviceEvent event = new_event(device::v1::DeviceEvent::SHUTDOWN);
    event.set_detail(std::move(why));
    Task<void> sending = uplink.deliver(Upward::kEvents, event.SerializeAsString());
    try {
      co_await with_deadline(std::move(sending), kFarewell, "saying farewell");
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::warn("could not say farewell", error);
    }
  }

  // --- What goes up beside the state

  Uplink::Options uplink_options() {
    Uplink::Options out;
    out.directory = options.data_dir + "/spool";
    out.limit_bytes = options.spool_limit;
    out.drain_bytes_per_second = options.spool_drain;
    out.boot_id = read_boot_id(options.root);
    out.next_seq = [this] { return ++seq; };
    out.publish = [this](Upward kind, std::string payload) -> Task<void> {
      if (!bus) throw Error(Code::kUnavailable, "there is no session with the broker");
      const char* leaf = kind == Upward::kEvents ? "events"
                         : kind == Upward::kLogs ? "logs"
                                                 : "telemetry";
      co_await bus->publish(message_of(leaf, std::move(payload)));
    };
    return out;
  }

  LogFollower::Options log_options() {
    LogFollower::Options out;
    out.data_dir = options.data_dir;
    out.boot_id = read_boot_id(options.root);
    out.lines_per_second = options.log_lines_per_second;
    out.bytes_per_second = options.log_bytes_per_second;
    out.kernel = options.log_kernel;
    out.next_seq = [this] { return ++seq; };
    out.deliver = [this](std::string payload) -> Task<void> {
      co_await uplink.deliver(Upward::kLogs, std::move(payload));
    };
    return out;
  }

  void follow(const std::vector<Observed>& containers) {
    std::vector<Followed> followed;
    for (const Observed& container : containers)
      followed.push_back({container.service, container.id, container.log_path});
    logs.follow(std::move(followed));
  }

  // What was read or made and is not sent yet: with the broker, else on disk.
  Task<void> flush() {
    logs.finish();
    co_await logs.wait_finished(kFlush);
    co_await uplink.stop(kFlush);
    co_await logs.wait_finished(kFlush);
  }

  // --- Link
  // ---------------------------------------------------------------------------------------

  // One session with the broker after another: at its next address when one is out of reach (8883
  // is closed in many networks, 443 is not), or where it has moved to.
  Task<void> link_loop() {
    co_await get_token();
    for (;;) {
      moved.reset();
      const auto& urls = identity.broker_urls();
      start_bus(urls[address % urls.size()]);
      mqtt::Subscription wanted, asked;
      wanted.filter = "devices/" + identity.device_id() + "/desired";
      asked.filter = "devices/" + identity.device_id() + "/commands";
      co_await bus->subscribe(
          wanted, [this](mqtt::Delivery delivery) { take_desired(std::move(delivery)); });
      co_await bus->subscribe(asked, [this](mqtt::Delivery delivery) {
        const auto held = std::make_shared<mqtt::Delivery>(std::move(delivery));
        commands.take(held->message.payload, [held] { held->ack(); });
      });
      session->spawn("bus", bus->run());
      session->spawn("renewal", renew_loop());
      session->spawn("report", report_loop());
      co_await moved.wait();
      uplink.set_connected(false);
      reconciler.note_contact(false);
      session->cancel();
      co_await session->join();
      session = std::make_unique<TaskScope>(executor);
      watch(*session);
    }
  }

  // Without a first token there may be no device id, and the broker's address may be an old one.
  Task<void> get_token() {
    Backoff backoff(Duration(500), Duration(60'000));
    std::string last_error;
    for (;;) {
      Duration pause{0};
      try {
        co_await identity.token();
        co_return;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        pause = pause_after(error, backoff);
        if (error.describe() != last_error)
          log::error("cannot register this device", error, {{"hint", error.hint()}});
        last_error = error.describe();
      }
      co_await sleep_for(pause);
    }
  }

  static Duration pause_after(const Error& error, Backoff& backoff) {
    const bool away = error.code() == Code::kUnavailable || error.code() == Code::kTimeout;
    return backoff.next() + (away ? Duration(0) : kRefusedPause);
  }

  void start_bus(const std::string& url) {
    mqtt::ClientOptions out;
    out.url = url;
    if (!identity.broker_ca().empty()) {
      net::TlsOptions tls;
      tls.ca_pem = identity.broker_ca();
      out.tls = net::make_tls_client(tls);
    }
    out.client_id = identity.device_id();
    out.session_expiry = kSessionLife;
    out.packet_bytes = 1 << 20;
    out.queue_bytes = 1 << 20;
    out.receive_maximum = 16;
    out.unheard_retry = Duration(1000);  // e.g. the broker is back before the ingester
    out.will = last_will();
    out.will_delay = kWillDelay;
    out.keep_alive = options.keep_alive;
    out.credentials = [this]() -> Task<mqtt::Credentials> {
      const std::string token = co_await identity.token();
      co_return mqtt::Credentials{identity.device_id(), Secret(token)};
    };
    bus_urls = identity.broker_urls();
    bus_ca = identity.broker_ca();
    failed_connections = 0;
    bus = std::make_unique<mqtt::Client>(executor, std::move(out));
    bus_url = url;
    bus->on_connection([this](bool up, const std::string& reason) {
      if (up != is_up || since == TimePoint()) since = system_clock().now();
      is_up = up;
      uplink.set_connected(up);
      if (!up) reconciler.note_contact(false);
      if (up) {
        failed_connections = 0;
        log::info("connected to the broker");
        announce = true;
        report_changed.set();
        telemetry.on_connected();
        commands.on_connected();
      } else {
        bus_error = reason;
        // Numbered behind all of the connection that ended, so that nobody takes its late will for
        // one of the connection that follows.
        bus->set_will(last_will());
        if (++failed_connections == kConnectionsPerAddress && bus_urls.size() > 1) {
          ++address;
          moved.set();
        }
        if (reason != lost_reason) log::warn("the broker is away", {{"reason", reason}});
        // The broker may refuse a token that we still think good, for instance after its keys
        // changed.
        for (const char* refusal : {"not authorized", "bad user name or password"})
          if (reason.find(refusal) != std::string::npos) identity.forget_token();
      }
      lost_reason = up ? "" : reason;
    });
  }

  Task<void> renew_loop() {
    Backoff backoff(Duration(5'000), Duration(300'000));
    for (;;) {
      const SteadyPoint at = identity.renew_at();
      const SteadyPoint now = std::chrono::steady_clock::now();
      if (at > now) {
        co_await sleep_for(std::min(Duration(3'600'000),
                                    std::chrono::duration_cast<Duration>(at - now) + Duration(1)));
        continue;
      }
      std::optional<Duration> pause;
      try {
        co_await identity.renew();
        backoff.reset();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot renew the token; trying again", error);
        pause = pause_after(error, backoff);
      }
      if (pause) {
        co_await sleep_for(*pause);
        continue;
      }
      if (bus_urls != identity.broker_urls() || bus_ca != identity.broker_ca()) {
        log::info("the broker has moved", {{"broker", identity.broker_urls().front()}});
        address = 0;
        moved.set();
        continue;
      }
      bus->reconnect();  // the broker knows a session by the token it began with
    }
  }

  void take_desired(mqtt::Delivery delivery) {
    DesiredState fresh;
    const std::string fault = fresh.ParseFromString(delivery.message.payload)
                                  ? fault_of(fresh)
                                  : std::string("it is no DesiredState");
    if (!fault.empty()) {
      log::error("a desired state cannot be used; it is ignored",
                 {{"bytes", delivery.message.payload.size()}, {"reason", fault}});
      return delivery.ack();
    }
    const auto held = std::make_shared<mqtt::Delivery>(std::move(delivery));
    reconciler.want(std::move(fresh), [held] { held->ack(); });
  }

  mqtt::Message message_of(const std::string& leaf, std::string payload) const {
    mqtt::Message message;
    message.topic = "devices/" + identity.device_id() + "/" + leaf;
    message.payload = std::move(payload);
    return message;
  }

  mqtt::Message last_will() {
    return message_of("events", new_event(device::v1::DeviceEvent::LOST).SerializeAsString());
  }
  device::v1::DeviceEvent new_event(device::v1::DeviceEvent::Kind kind) {
    device::v1::DeviceEvent event;
    event.set_boot_id(boot_id);
    event.set_seq(++seq);
    event.set_at_ms(to_unix_ms(system_clock().now()));
    event.set_kind(kind);
    return event;
  }
  Task<void> publish_event(device::v1::DeviceEvent::Kind kind) {
    co_await bus->publish(message_of("events", new_event(kind).SerializeAsString()));
  }

  // Tells changes at once (collected for a moment) and everything again as a slow sign of life.
  Task<void> report_loop() {
    for (;;) {
      const bool changed = co_await report_changed.wait_for(options.state_interval);
      report_changed.reset();
      if (!bus->connected()) continue;
      Duration pause(changed ? 50 : 0);
      try {
        if (std::exchange(announce, false)) co_await publish_event(device::v1::DeviceEvent::ONLINE);
        ReportedState state = reconciler.report();
        state.set_boot_id(boot_id);
        state.set_seq(++seq);
        state.set_at_ms(to_unix_ms(system_clock().now()));
        state.set_agent_version(kVersion);
        state.set_keep_alive_ms(options.state_interval.count());
        *state.mutable_hardware() = hardware;
        co_await bus->publish(message_of("state", state.SerializeAsString()));
        reconciler.note_contact(true);
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot report; trying again", error);
        announce = true;
        report_changed.set();
        pause = kReportPause;
      }
      co_await sleep_for(pause);
    }
  }

  // --- flockd status

  std::string status_document() {
    StatusFacts facts;
    facts.version = kVersion;
    facts.options = &options;
    facts.identity = &identity;
    facts.desired_version = reconciler.version();
    facts.report = &reconciler.report();
    facts.started = started;
    facts.connected = bus && bus->connected();
    facts.since = since;
    facts.broker = bus_url;
    facts.last_error = bus_error;
    facts.waiting_messages = static_cast<std::size_t>(uplink.waiting_records());
    facts.waiting_bytes = static_cast<std::size_t>(uplink.waiting_bytes());
    facts.disk_error = uplink.disk_trouble();
    facts.lost = uplink.lost();
    return write_status(facts);
  }

  Executor executor;
  AgentOptions options;
  Identity identity;
  Reconciler reconciler;
  Uplink uplink;
  LogFollower logs;
  Telemetry telemetry;
  Commands commands;
  StatusServer status;
  std::unique_ptr<mqtt::Client> bus;
  std::vector<std::string> bus_urls;
  std::string bus_ca;
  std::size_t address = 0;  // which of the broker's is in use
  int failed_connections = 0;
  std::int64_t seq = 0;
  const std::string boot_id;
  const device::v1::Hardware hardware = read_hardware();
  bool announce = false;
  std::exception_ptr failure;
  std::string lost_reason;
  const TimePoint started = system_clock().now();
  TimePoint since{};  // of the connection as it is
  bool is_up = false;
  std::string bus_url, bus_error;
  Event report_changed, moved, stopping;
  std::unique_ptr<TaskScope> session;  // what belongs to one broker address
  TaskScope scope;
};

Agent::Agent(Executor executor, AgentOptions options) {
  complete(options);
  impl_ = std::make_unique<Impl>(std::move(executor), std::move(options));
}
Agent::~Agent() = default;
Task<void> Agent::run() { co_await impl_->run(); }
void Agent::stop() { impl_->stopping.set(); }

}  // namespace flock::agent

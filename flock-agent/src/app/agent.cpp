// SPDX-License-Identifier: Apache-2.0
#include "app/agent.h"

#include <algorithm>

#include "app/hardware.h"
#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "crypto/keys.h"
#include "link/desired_store.h"
#include "link/identity.h"
#include "mqtt/client.h"
#include "runtimes/podman.h"

namespace flock::agent {
namespace {

constexpr const char* kVersion = "0.1.0";
constexpr Duration kWillDelay{30'000};
constexpr Duration kSessionLife{7LL * 24 * 3600 * 1000};
// Between attempts of a device that the server does not want.
constexpr Duration kRefusedPause{30'000};
constexpr Duration kReportPause{5000};  // after a report that did not arrive

net::ClientOptions http_options(const AgentOptions& options) {
  net::ClientOptions out;
  out.user_agent = std::string("flockd/") + kVersion;
  out.body_bytes = 1 << 20;
  out.idle_connections = 0;  // calls are hours apart
  if (!options.ca_file.empty()) {
    net::TlsOptions tls;
    tls.ca_pem = read_file(options.ca_file).value_or("");
    out.tls = net::make_tls_client(tls);
  }
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
  return out;
}

const device::v1::Service& service_of(const DesiredState& desired, const std::string& name) {
  const auto found = std::find_if(desired.services().begin(), desired.services().end(),
                                  [&](const auto& s) { return s.name() == name; });
  FLOCK_ASSERT(found != desired.services().end());
  return *found;
}

// Maps have no order in protobuf's lite form, so the hash walks a sorted copy of them.
std::string config_hash(const device::v1::Service& service) {
  device::v1::Service plain = service;
  plain.clear_environment();
  plain.clear_labels();
  std::string text = plain.SerializeAsString();
  for (const auto* map : {&service.environment(), &service.labels()}) {
    const std::map<std::string, std::string> sorted(map->begin(), map->end());
    for (const auto& [key, value] : sorted) text += key + '\0' + value + '\0';
    text += '\1';
  }
  return to_hex(crypto::sha256(text)).substr(0, 24);
}

}  // namespace

struct Agent::Impl {
  Impl(Executor e, AgentOptions o)
      : executor(e),
        options(std::move(o)),
        http(e, http_options(options)),
        identity(http, identity_options(options)),
        store(options.data_dir + "/desired"),
        runtime(make_podman(e, options.podman_socket, options.insecure_hosts)),
        wake(e),
        report_changed(e),
        stopping(e),
        scope(e) {}

  Task<void> run() {
    identity.load();
    desired = store.load();
    seq = to_unix_ms(system_clock().now());
    log::info("flockd starts", {{"version", kVersion},
                                {"device", identity.device_id()},
                                {"desired_version", desired.version()}});
    scope.spawn("reconcile", reconcile_loop());  // needs no network
    scope.spawn("link", link_loop());
    co_await stopping.wait();
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
    log::info("flockd stopped; the containers go on");
  }

  Task<void> say_goodbye() {
    co_await publish_event(device::v1::DeviceEvent::OFFLINE);
    co_await bus->disconnect(Duration(2000));
  }

  // --- Link
  // ---------------------------------------------------------------------------------------

  Task<void> link_loop() {
    Backoff backoff(Duration(500), Duration(60'000));
    std::string last_error;
    // Until the first token there is no device id, so no session.
    while (!identity.registered()) {
      Duration pause{0};
      try {
        co_await identity.token();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        pause = backoff.next();
        if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout)
          pause += kRefusedPause;
        if (error.describe() != last_error)
          log::error("cannot register this device", error, {{"hint", error.hint()}});
        last_error = error.describe();
      }
      if (pause.count() > 0) co_await sleep_for(pause);
    }
    start_bus();
    mqtt::Subscription wanted;
    wanted.filter = "devices/" + identity.device_id() + "/desired";
    co_await bus->subscribe(wanted,
                            [this](mqtt::Delivery delivery) { take_desired(std::move(delivery)); });
    scope.spawn("bus", bus->run());
    scope.spawn("renewal", renew_loop());
    scope.spawn("report", report_loop());
  }

  void start_bus() {
    mqtt::ClientOptions out;
    out.url = identity.broker_url();
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
    out.will = event_message(device::v1::DeviceEvent::LOST);
    out.will_delay = kWillDelay;
    out.credentials = [this]() -> Task<mqtt::Credentials> {
      const std::string token = co_await identity.token();
      co_return mqtt::Credentials{identity.device_id(), Secret(token)};
    };
    bus = std::make_unique<mqtt::Client>(executor, std::move(out));
    bus->on_connection([this](bool up, const std::string& reason) {
      if (up) {
        log::info("connected to the broker");
        announce = true;
        report_changed.set();
      } else {
        if (reason != lost_reason) log::warn("the broker is away", {{"reason", reason}});
        // The broker may refuse a token that we still think good, for instance after its keys
        // changed.
        if (reason.find("not authorized") != std::string::npos) identity.forget_token();
      }
      lost_reason = up ? "" : reason;
    });
  }

  Task<void> renew_loop() {
    for (;;) {
      const SteadyPoint at = identity.renew_at();
      const SteadyPoint now = std::chrono::steady_clock::now();
      if (at > now) {
        co_await sleep_for(std::min(Duration(3'600'000),
                                    std::chrono::duration_cast<Duration>(at - now) + Duration(1)));
        continue;
      }
      bool renewed = false;
      try {
        identity.forget_token();
        co_await identity.token();
        renewed = true;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("cannot renew the token; trying again", error);
      }
      if (renewed)
        bus->reconnect();  // the broker knows a session by the token it began with
      else
        co_await sleep_for(Duration(5000));
    }
  }

  void take_desired(mqtt::Delivery delivery) {
    DesiredState fresh;
    if (!fresh.ParseFromString(delivery.message.payload) || fresh.version() <= 0) {
      log::error("a desired state cannot be read; it is ignored",
                 {{"bytes", delivery.message.payload.size()}});
      return delivery.ack();
    }
    if (fresh.version() > desired.version()) {
      try {
        store.save(fresh);
      } catch (const Error& error) {
        // Without an acknowledgement the broker sends it again with the next connection; it is
        // applied all the same.
        log::error("cannot store the desired state", error);
      }
      log::info("a new desired state",
                {{"version", fresh.version()}, {"release", fresh.release_version()}});
      desired = std::move(fresh);
      memory.clear();
      settled_since = {};
      wake.set();
    }
    delivery.ack();
  }

  mqtt::Message event_message(device::v1::DeviceEvent::Kind kind) {
    device::v1::DeviceEvent event;
    event.set_boot_id(boot_id);
    event.set_seq(++seq);
    event.set_at_ms(to_unix_ms(system_clock().now()));
    event.set_kind(kind);
    mqtt::Message message;
    message.topic = "devices/" + identity.device_id() + "/events";
    message.payload = event.SerializeAsString();
    return message;
  }
  Task<void> publish_event(device::v1::DeviceEvent::Kind kind) {
    co_await bus->publish(event_message(kind));
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
        ReportedState state = report;
        state.set_boot_id(boot_id);
        state.set_seq(++seq);
        state.set_at_ms(to_unix_ms(system_clock().now()));
        state.set_agent_version(kVersion);
        *state.mutable_hardware() = hardware;
        mqtt::Message message;
        message.topic = "devices/" + identity.device_id() + "/state";
        message.payload = state.SerializeAsString();
        co_await bus->publish(std::move(message));
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

  // --- Reconciler
  // ---------------------------------------------------------------------------------

  Task<void> reconcile_loop() {
    std::string last_error;
    for (;;) {
      wake.reset();
      Duration pause = options.reconcile_interval;
      try {
        pause = co_await reconcile();
        last_error.clear();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        if (error.describe() != last_error) log::warn("cannot reconcile; trying again", error);
        last_error = error.describe();
        pause = Duration(1000);
      }
      co_await wake.wait_for(pause);
    }
  }

  Task<World> observe() {
    World world{desired, {}, {}, {}, {}};
    world.containers = co_await runtime->list();
    for (const auto& service : desired.services()) {
      world.config_hashes[service.name()] = config_hash(service);
      // An image that a wanted container runs is there; only others are asked for.
      const std::string digest = service.image().substr(service.image().find('@') + 1);
      const bool runs = std::any_of(world.containers.begin(), world.containers.end(),
                                    [&](const Observed& c) { return c.image_digest == digest; });
      bool there = runs;
      if (!there) there = co_await runtime->has_image(service.image());
      if (there) world.images.insert(service.image());
    }
    world.now = std::chrono::steady_clock::now();
    co_return world;
  }

  // One round; returns how long to wait for the next.
  Task<Duration> reconcile() {
    const DesiredState round = desired;  // a newer one may arrive while we wait for the runtime
    const World world = co_await observe();
    if (round.version() != desired.version()) co_return Duration(0);
    const Plan plan = make_plan(world, memory, settled_since);
    if (!plan.settled)
      settled_since = {};
    else if (settled_since == SteadyPoint())
      settled_since = world.now;
    set_report(make_report(world, plan, memory));

    bool changed = false;
    for (const Action& action : plan.actions) {
      co_await execute(action, round);
      changed = changed || action.kind != ActionKind::kProbe;
      if (round.version() != desired.version()) co_return Duration(0);
    }
    if (!plan.actions.empty() && (changed || !plan.settled)) co_return Duration(0);
    if (plan.phase == ReportedState::CONFIRMED && cleaned != round.version()) {
      cleaned = round.version();
      std::vector<std::string> keep;
      for (const auto& service : round.services()) keep.push_back(service.image());
      co_await runtime->remove_images_except(std::move(keep));
    }
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (plan.wake_at <= now) co_return Duration(1);
    co_return std::min(options.reconcile_interval,
                       std::chrono::duration_cast<Duration>(plan.wake_at - now) + Duration(1));
  }

  void set_report(ReportedState fresh) {
    if (fresh.SerializeAsString() == report.SerializeAsString()) return;
    if (fresh.phase() != report.phase()) {
      log::info("phase", {{"phase", static_cast<int>(fresh.phase())},
                          {"version", fresh.desired_version()},
                          {"error", fresh.error()}});
    }
    report = std::move(fresh);
    report_changed.set();
  }

  Task<void> execute(Action action, const DesiredState& round) {
    const char* failure_code = "runtime_failed";
    try {
      switch (action.kind) {
        case ActionKind::kPull: {
          failure_code = "image_pull_failed";
          const std::string token = co_await identity.token();
          PullCredentials credentials{identity.device_id(), token};
          log::info("pulling", {{"service", action.service},
                                {"image", service_of(round, action.service).image()}});
          co_await runtime->pull(service_of(round, action.service).image(), std::move(credentials));
          break;
        }
        case ActionKind::kRemove:
          log::info("removing a container",
                    {{"service", action.service}, {"container", action.container}});
          co_await runtime->remove(action.container);
          co_return;
        case ActionKind::kCreate: {
          failure_code = "create_failed";
          const auto& service = service_of(round, action.service);
          const std::string id = co_await runtime->create(service, round, config_hash(service));
          failure_code = "start_failed";
          co_await runtime->start(id);
          log::info("started", {{"service", action.service}, {"container", id}});
          break;
        }
        case ActionKind::kStart: {
          failure_code = "start_failed";
          Memory& known = memory[action.service];
          ++known.restarts;
          ++known.failures;  // forgiven once it runs and is healthy
          known.retry_at = std::chrono::steady_clock::now() + retry_pause(known.failures);
          known.running_since = {};
          co_await runtime->start(action.container);
          co_return;
        }
        case ActionKind::kProbe: {
          const bool good = co_await runtime->probe(action.container);
          note_probe(service_of(round, action.service), good);
          co_return;
        }
      }
      Memory& known = memory[action.service];
      known.failures = 0;
      known.error.clear();
      known.error_code.clear();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      if (action.kind == ActionKind::kRemove) throw;
      Memory& known = memory[action.service];
      if (action.kind == ActionKind::kProbe) {
        known.probe_at = std::chrono::steady_clock::now() + Duration(1000);
        co_return;
      }
      ++known.failures;
      known.error_code = error.message().starts_with("no_space") ? "no_space" : failure_code;
      known.error = action.service + ": " + error.message();
      known.retry_at = std::chrono::steady_clock::now() + retry_pause(known.failures);
      log::warn("a step failed; it is tried again", error,
                {{"service", action.service}, {"step", failure_code}, {"attempt", known.failures}});
    }
  }

  void note_probe(const device::v1::Service& service, bool good) {
    Memory& known = memory[service.name()];
    const SteadyPoint now = std::chrono::steady_clock::now();
    const Duration interval(std::max<std::int64_t>(1000, service.healthcheck().interval_ms()));
    // Until the first success probes come every second, so that a quick service is confirmed
    // quickly.
    known.probe_at =
        now + (good || known.health == Health::kUnhealthy ? interval
                                                          : std::min(interval, Duration(1000)));
    if (good) {
      known.health = Health::kHealthy;
      known.bad_probes = 0;
      return;
    }
    if (now - known.running_since < Duration(service.healthcheck().start_period_ms())) return;
    const int allowed = std::max(1, static_cast<int>(service.healthcheck().retries()));
    if (++known.bad_probes >= allowed) known.health = Health::kUnhealthy;
  }

  Executor executor;
  AgentOptions options;
  net::HttpClient http;
  Identity identity;
  DesiredStore store;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<mqtt::Client> bus;
  DesiredState desired;
  ReportedState report;
  std::map<std::string, Memory> memory;
  SteadyPoint settled_since{};
  std::int64_t seq = 0, cleaned = 0;
  const std::string boot_id = read_boot_id();
  const device::v1::Hardware hardware = read_hardware();
  bool announce = false;
  std::string lost_reason;
  Event wake, report_changed, stopping;
  TaskScope scope;
};

Agent::Agent(Executor executor, AgentOptions options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
Agent::~Agent() = default;
Task<void> Agent::run() { co_await impl_->run(); }
void Agent::stop() { impl_->stopping.set(); }

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "runtime/process.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "metrics/metrics.h"
#include "net/http_server.h"

namespace flock::runtime {
namespace {

namespace bj = boost::json;
using targets::Settings;

#ifndef FLOCK_VERSION
#define FLOCK_VERSION "0.1.0"
#endif

constexpr Duration kWeek{std::int64_t{7} * 86'400'000};
constexpr Duration kSchedulerAway{10'000};
constexpr Duration kForever{0xFFFF'FFFFLL * 1000};  // MQTT 5, 3.1.2.11.2

std::string secret_from(const std::string& file) {
  return file.empty() ? "" : read_secret_file(file);
}

// The password of `username` among lines of username:password.
Secret password_of(const std::string& file, const std::string& username) {
  if (file.empty()) return Secret();
  const std::string text = read_secret_file(file);
  for (std::size_t at = 0; at < text.size();) {
    const std::string line = text.substr(at, text.find('\n', at) - at);
    if (line.starts_with(username + ":")) return Secret(line.substr(username.size() + 1));
    at += line.size() + 1;
  }
  throw Error(Code::kInvalidArgument, "the MQTT password file has no line for a target")
      .with("file", file)
      .with("username", username);
}

std::string replica() {
  if (const char* name = std::getenv("FLOCK_REPLICA")) return name;
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return host;
}

// What one target's thread shows to the others: flags only.
struct Health {
  std::atomic<bool> started = false, database = false, broker = false, live_state = false,
                    time_series = false;
  // Without time series devices still get what they should run, and their state is still shown.
  bool ready() const { return started && database && broker && live_state; }
};

// One target on its own thread and loop, with its own connections.
class TargetThread {
 public:
  // `ended` is called on the target's thread, with what it failed of or "".
  // `memory`: the time series of the process; null: in ClickHouse.
  TargetThread(const TargetEntry& entry, const Settings& settings, stores::TimeSeries* memory,
               std::function<void(std::string)> ended)
      : entry_(entry),
        settings_(settings),
        memory_(memory),
        ended_(std::move(ended)),
        stop_(loop_.executor()) {}
  ~TargetThread() {
    if (thread_.joinable()) thread_.join();
  }

  void start() {
    thread_ = std::thread([this] { run(); });
  }
  // From any thread.
  void ask_to_stop() {
    asio::post(loop_.executor(), [this] { stop_.set(); });
  }
  void join() { thread_.join(); }
  std::string_view name() const { return entry_.name; }
  const Health& health() const { return health_; }
  bool has_time_series() const { return entry_.time_series; }

 private:
  void run() {
    log::set_thread_target(entry_.name);
    std::string failure;
    try {
      loop_.run(live());
    } catch (const Error& error) {
      log::error("the target ended", error);
      failure = std::string(entry_.name) + ": " + error.describe();
    } catch (const std::exception& error) {
      log::error("the target ended", {{"error", error.what()}});
      failure = std::string(entry_.name) + ": " + error.what();
    }
    health_.started = false;
    ended_(std::move(failure));
  }

  mqtt::ClientOptions bus_options() const {
    const std::string username = "flock-" + std::string(entry_.name);
    mqtt::ClientOptions options;
    options.url = settings_.mqtt_url;
    options.client_id = username + "-" + replica();
    if (!settings_.mqtt_ca_file.empty()) {
      net::TlsOptions tls;
      tls.ca_pem = read_file(settings_.mqtt_ca_file).value_or("");
      options.tls = net::make_tls_client(tls);
    }
    options.credentials = [file = settings_.mqtt_password_file,
                           username]() -> Task<mqtt::Credentials> {
      co_return mqtt::Credentials{username, password_of(file, username)};
    };
    options.backoff_first = Duration(200);
    options.backoff_max = Duration(5000);
    options.queue_bytes = 32 << 20;
    options.receive_maximum = 1024;
    options.unacknowledged_most = mqtt::kAnyNumber;
    if (entry_.name == "audit") {
      // No replica's name: a second writer takes the session over instead of splitting the chains.
      // The session never ends by itself: what it holds was promised to be written.
      options.client_id = username;
      options.session_expiry = kForever;
    }
    // What happens while it is away waits in its session, and nobody tells it twice.
    if (entry_.name == "events-gateway") options.session_expiry = kWeek;
    // What one that does not come back was sent, the others look for themselves: its session must
    // not go on taking its share of the reports.
    if (entry_.name == "scheduler") options.session_expiry = kSchedulerAway;
    return options;
  }

  stores::ClickHouseOptions clickhouse_options() const {
    stores::ClickHouseOptions options;
    options.url = settings_.clickhouse_url;
    options.database = settings_.clickhouse_database;
    options.username = settings_.clickhouse_username;
    options.password = secret_from(settings_.clickhouse_password_file);
    options.query_username = settings_.clickhouse_query_username;
    options.query_password = secret_from(settings_.clickhouse_query_password_file);
    options.ca_pem = secret_from(settings_.clickhouse_ca_file);
    return options;
  }

  std::shared_ptr<const crypto::SealingKeys> load_sealing_keys() const {
    const std::string folder = settings_.keys_directory + "/" + kSealingFolder;
    if (!std::filesystem::exists(folder))
      throw Error(Code::kInvalidArgument, "there are no keys to seal secrets with")
          .with("directory", folder)
          .hint("make what is missing: flock-api generate-keys " + settings_.keys_directory);
    return std::make_shared<const crypto::SealingKeys>(crypto::SealingKeys::load(folder));
  }

  Task<void> live() {
    const Executor executor = loop_.executor();
    const crypto::Key key = crypto::Key::from_private_pem(
        read_secret_file(settings_.keys_directory + "/device-signing.pem"));
    const auto sealing = entry_.seals ? load_sealing_keys() : nullptr;
    postgres::Options db_options;
    db_options.url = settings_.postgres_url;
    db_options.password = Secret(secret_from(settings_.postgres_password_file));
    db_options.pool_size = settings_.postgres_pool_size;
    postgres::Database db(executor, db_options);
    const auto live_state =
        settings_.live_state_kind == "memory"
            ? stores::make_memory_live_state()
            : stores::make_valkey_live_state(executor, settings_.live_state_address,
                                             secret_from(settings_.live_state_password_file));
    const auto clickhouse =
        memory_ == nullptr ? stores::make_clickhouse_time_series(executor, clickhouse_options())
                           : nullptr;
    stores::TimeSeries& time_series = memory_ == nullptr ? *clickhouse : *memory_;
    mqtt::ClientOptions options = bus_options();
    if (entry_.name == "ingester") options.will = targets::ingester_will(replica());
    mqtt::Client bus(executor, std::move(options));
    bus.on_connection([this](bool up, const std::string& reason) {
      health_.broker = up;
      if (up) ++connections_;
      log::info(up ? "the broker is connected" : "the broker is away", {{"reason", reason}});
    });
    // A second connection with a window of its own, so that reports do not wait behind telemetry
    // and logs, nor these behind reports.
    std::optional<mqtt::Client> series_bus;
    if (entry_.name == "ingester") {
      mqtt::ClientOptions second = bus_options();
      second.client_id += "-series";
      series_bus.emplace(executor, std::move(second));
    }
    std::unique_ptr<targets::Target> target;
    std::exception_ptr failure;
    TaskScope scope(executor), starting(executor);
    scope.spawn("bus", bus.run());
    if (series_bus) scope.spawn("series bus", series_bus->run());
    scope.spawn("health", watch(db, *live_state));
    if (entry_.time_series) scope.spawn("time series", watch_time_series(time_series));
    const auto failed = [&](std::exception_ptr error) {
      if (stop_.is_set()) return;  // what breaks while all is taken down is no failure
      failure = error;
      stop_.set();
    };
    starting.on_failure([&](const std::string&, std::exception_ptr error) { failed(error); });
    targets::Parts parts{executor, settings_, db, *live_state, time_series, bus, key};
    parts.connections = [this] { return connections_; };
    parts.failed = failed;
    parts.sealing = sealing;
    parts.replica = replica();
    parts.series_bus = series_bus ? &*series_bus : nullptr;
    starting.spawn("start", start_target(std::move(parts), target));
    co_await stop_.wait();

    starting.cancel();  // the request to stop may come at any point of the start
    co_await starting.join();
    health_.started = false;
    if (target) co_await end(*target, bus, series_bus ? &*series_bus : nullptr);
    scope.cancel();
    co_await scope.join();
    if (failure) std::rethrow_exception(failure);
  }

  Task<void> start_target(targets::Parts parts, std::unique_ptr<targets::Target>& target) {
    co_await when_up("the database", [&] { return parts.db.migrate(); });
    target = entry_.make(std::move(parts));
    co_await target->start();
    health_.started = true;
  }

  // The limit is one for both, but a drain that never ends must leave time for an orderly stop.
  Task<void> end(targets::Target& target, mqtt::Client& bus, mqtt::Client* series_bus) {
    const Duration for_stop = std::min(Duration(2000), settings_.shutdown_timeout / 2);
    co_await within("drain", settings_.shutdown_timeout - for_stop, target.drain());
    co_await within("stop", for_stop, stop_all(target, bus, series_bus, for_stop / 3));
  }

  static Task<void> stop_all(targets::Target& target, mqtt::Client& bus, mqtt::Client* series_bus,
                             Duration for_bus) {
    co_await target.stop();
    if (series_bus != nullptr) co_await series_bus->disconnect(for_bus);
    co_await bus.disconnect(for_bus);
  }

  static Task<void> within(const char* what, Duration limit, Task<void> task) {
    try {
      co_await with_deadline(std::move(task), limit, what);
    } catch (const Error& error) {
      log::warn("the target did not stop in order", error, {{"step", what}});
    }
  }

  // A store that is away at the start is waited for: the order in which things start must not
  // matter.
  Task<void> when_up(const char* what, std::function<Task<void>()> attempt) {
    for (;;) {
      try {
        co_await attempt();
        co_return;
      } catch (const Error& error) {
        if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
        log::warn("waiting for a store", error, {{"store", what}});
      }
      co_await sleep_for(Duration(1000));
    }
  }

  Task<void> watch(postgres::Database& db, stores::LiveState& live_state) {
    for (;;) {
      health_.database = co_await answers(
          [&]() -> Task<void> { co_await db.query(postgres::Scope::system(), "SELECT 1"); });
      health_.live_state = co_await answers([&] { return live_state.ping(); });
      co_await sleep_for(Duration(health_.ready() ? 2000 : 200));
    }
  }
  // By itself: a server that hangs must not make the others look older than they are.
  Task<void> watch_time_series(stores::TimeSeries& time_series) {
    for (bool told = false;;) {
      try {
        co_await with_deadline(time_series.ping(), Duration(2000), "ClickHouse");
        health_.time_series = true;
        told = false;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        health_.time_series = false;
        if (!told) log::warn("no time series for now", error);
        told = true;
      }
      co_await sleep_for(Duration(health_.time_series ? 2000 : 500));
    }
  }
  static Task<bool> answers(std::function<Task<void>()> question) {
    try {
      co_await question();
      co_return true;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      co_return false;
    }
  }

  const TargetEntry& entry_;
  const Settings& settings_;
  stores::TimeSeries* const memory_;
  std::function<void(std::string)> ended_;
  Loop loop_;
  Event stop_;
  Health health_;
  std::uint64_t connections_ = 0;  // to the broker, so far
  std::thread thread_;
};

class Admin {
 public:
  Admin(Executor executor, const std::vector<std::unique_ptr<TargetThread>>& threads,
        std::function<std::string()> print_config)
      : threads_(threads),
        print_config_(std::move(print_config)),
        server_(
            executor, [this](net::Request request) { return answer(std::move(request)); }, refuse) {
  }

  void listen(Executor executor, const std::string& address) {
    const net::HostPort target = net::parse_host_port(address);
    server_.listen(net::Listener::tcp(executor, target.host, target.port));
  }
  Task<void> stop() { co_await server_.stop(); }
  bool stopping = false;

 private:
  static net::Response refuse(const net::Request&, std::exception_ptr) {
    return {404, {}, "not found: /livez /readyz /metrics /version /config\n"};
  }

  Task<net::Reply> answer(net::Request request) {
    net::Reply reply;
    // The version is that of Prometheus' text format; for the other paths it means nothing.
    reply.response.headers.add("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
    const std::string path = request.path();
    if (path == "/livez" || path == "/healthz") {
      reply.response.body = "ok\n";
    } else if (path == "/readyz") {
      readiness(request, reply.response);
    } else if (path == "/metrics") {
      reply.response.body = all_metrics();
    } else if (path == "/version") {
      reply.response.body = FLOCK_VERSION "\n";
    } else if (path == "/config") {
      reply.response.body = print_config_();
    } else {
      throw Error(Code::kNotFound, "no such path");
    }
    co_return reply;
  }

  void readiness(const net::Request& request, net::Response& response) const {
    bool ready = !stopping;
    std::string text;
    for (const auto& thread : threads_) {
      const Health& health = thread->health();
      ready = ready && health.ready();
      const auto line = [&](const char* what, bool good) {
        text +=
            std::string(good ? "[+] " : "[-] ") + std::string(thread->name()) + " " + what + "\n";
      };
      line("started", health.started);
      line("database", health.database);
      line("broker", health.broker);
      line("live state", health.live_state);
      if (thread->has_time_series()) line("time series", health.time_series);
    }
    response.status = ready ? 200 : 503;
    response.body = (request.query("verbose") ? text : "") + (ready ? "ready\n" : "not ready\n");
  }

  std::string all_metrics() const {
    const auto gauge = [&](const char* name, const char* help, auto value) {
      for (const auto& thread : threads_)
        metrics::Gauge(name, help, {{"target", std::string(thread->name())}})
            .set(value(thread->health()) ? 1 : 0);
    };
    metrics::Gauge("flock_build_info", "The version that runs.", {{"version", FLOCK_VERSION}})
        .set(1);
    gauge("flock_target_ready", "1 when the target started and reaches all it needs.",
          [](const Health& h) { return h.ready(); });
    gauge("flock_database_up", "1 when the target's last question to PostgreSQL was answered.",
          [](const Health& h) { return h.database.load(); });
    gauge("flock_mqtt_connected", "1 while the target is connected to the broker.",
          [](const Health& h) { return h.broker.load(); });
    gauge("flock_live_state_up",
          "1 when the target's last question to the live state was answered.",
          [](const Health& h) { return h.live_state.load(); });
    gauge("flock_time_series_up", "1 when the target's last question to ClickHouse was answered.",
          [](const Health& h) { return h.time_series.load(); });
    return metrics::text();
  }

  const std::vector<std::unique_ptr<TargetThread>>& threads_;
  std::function<std::string()> print_config_;
  net::HttpServer server_;
};

}  // namespace

int run_process(const Settings& settings, const std::function<std::string()>& print_config) {
  Loop loop;
  const Executor executor = loop.executor();
  Event ended(executor), all_ended(executor);
  std::string failure;
  std::size_t running = 0;
  const auto target_ended = [&](std::string what) {
    asio::post(executor, [&, what] {
      if (!what.empty()) failure = what;
      ended.set();  // one that fails ends the process
      if (--running == 0) all_ended.set();
    });
  };
  std::unique_ptr<stores::TimeSeries> memory;
  if (settings.clickhouse_kind == "memory") memory = stores::make_memory_time_series();
  std::vector<std::unique_ptr<TargetThread>> threads;
  for (const TargetEntry* entry : plan(settings.target))
    threads.push_back(std::make_unique<TargetThread>(*entry, settings, memory.get(), target_ended));
  Admin admin(executor, threads, print_config);

  const auto run = [&]() -> Task<void> {
    // Before anything can be seen of the process: a stop that comes early is still an orderly one.
    asio::signal_set signals(executor, SIGTERM, SIGINT);
    signals.async_wait([&](const boost::system::error_code& error, int) {
      if (!error) ended.set();
    });
    admin.listen(executor, settings.admin_listen);
    // In the table's order; each migrates under the database's own lock, so none needs another.
    running = threads.size();
    for (const auto& thread : threads) thread->start();
    co_await ended.wait();
    log::info("stopping");
    admin.stopping = true;
    signals.cancel();
    asio::signal_set again(executor, SIGTERM, SIGINT);
    again.async_wait([](const boost::system::error_code& error, int number) {
      if (!error) ::_exit(128 + number);  // asked twice: at once
    });
    if (failure.empty() && settings.shutdown_delay.count() > 0)
      co_await sleep_for(settings.shutdown_delay);
    for (auto at = threads.rbegin(); at != threads.rend(); ++at) (*at)->ask_to_stop();
    // Not by joining: this loop still answers for the health of the process and hears signals.
    co_await all_ended.wait();
    for (const auto& thread : threads) thread->join();
    co_await admin.stop();
  };
  loop.run(run());
  return failure.empty() ? 0 : 1;
}

}  // namespace flock::runtime

// SPDX-License-Identifier: Apache-2.0
#include "app/status.h"

#include <sys/stat.h>

#include <boost/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "net/http_client.h"
#include "net/http_server.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

net::ServerLimits limits() {
  net::ServerLimits out;
  out.header_bytes = 4096;
  out.body_bytes = 0;
  out.connections = 8;
  out.idle_time = Duration(5'000);
  return out;
}

net::Response plain(int status, std::string text) {
  net::Response out{status, {}, std::move(text)};
  out.headers.add("Content-Type", "text/plain; charset=utf-8");
  return out;
}

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  if (value == nullptr || value->is_null()) return "";
  return value->is_string() ? std::string(value->get_string()) : bj::serialize(*value);
}

const bj::object& part_of(const bj::object& object, std::string_view key) {
  static const bj::object kNone;
  const bj::value* value = object.if_contains(key);
  return value && value->is_object() ? value->get_object() : kNone;
}

void add_line(std::string& out, std::string name, const std::string& value) {
  if (value.empty()) return;
  name.resize(std::max<std::size_t>(name.size(), 16), ' ');
  out += name + value + "\n";
}

std::string describe_connection(const bj::object& connection) {
  const bool up = text_of(connection, "connected") == "true";
  std::string out = up ? "connected" : "not connected";
  if (const std::string since = text_of(connection, "since"); !since.empty())
    out += " since " + since;
  if (const std::string broker = text_of(connection, "broker"); !broker.empty())
    out += (up ? " to " : ", last tried ") + broker;
  return out;
}

std::string describe_exit(const bj::object& exit) {
  std::string out = text_of(exit, "signal") == "0" ? "code " + text_of(exit, "code")
                                                   : "signal " + text_of(exit, "signal");
  if (text_of(exit, "out_of_memory") == "true") out += ", out of memory";
  return out + ", by " + text_of(exit, "by") + " at " + text_of(exit, "at");
}

void add_service(std::string& out, const bj::object& service) {
  std::string line = text_of(service, "state") + ", " + text_of(service, "health");
  if (const std::string count = text_of(service, "restart_count"); count != "0")
    line += ", restarted " + count + " times";
  add_line(out, "  " + text_of(service, "name"), line);
  add_line(out, "", text_of(service, "image_digest"));
  add_line(out, "", text_of(service, "message"));
  if (const bj::object& exit = part_of(service, "last_exit"); !exit.empty())
    add_line(out, "", "last end: " + describe_exit(exit));
}

}  // namespace

namespace {

bj::value time_or_null(TimePoint time) {
  return time == TimePoint() ? bj::value(nullptr) : bj::value(to_rfc3339(time));
}

bj::object exit_json(const device::v1::Exit& exit) {
  return {{"code", exit.code()},
          {"signal", exit.signal()},
          {"out_of_memory", exit.out_of_memory()},
          {"by", device::v1::Exit_By_Name(exit.by())},
          {"at", to_rfc3339(from_unix_ms(exit.at_ms()))}};
}

bj::object service_json(const ServiceState& service) {
  bj::object out{{"name", service.name()},
                 {"state", device::v1::ServiceState_State_Name(service.state())},
                 {"health", device::v1::ServiceState_Health_Name(service.health())},
                 {"image_digest", service.image_digest()},
                 {"container_id", service.container_id()},
                 {"restart_count", service.restart_count()}};
  if (!service.message().empty()) out["message"] = service.message();
  if (service.state() == ServiceState::PULLING) out["pull_percent"] = service.pull_percent();
  if (service.has_last_exit()) out["last_exit"] = exit_json(service.last_exit());
  return out;
}

// The identity counts by the clock that is never set.
bj::value renewal(const Identity& identity) {
  const SteadyPoint at = identity.renew_at();
  if (at == SteadyPoint::max()) return nullptr;
  const auto left = std::chrono::duration_cast<Duration>(at - std::chrono::steady_clock::now());
  return bj::value(to_rfc3339(system_clock().now() + left));
}

}  // namespace

std::string write_status(const StatusFacts& facts) {
  bj::array services;
  for (const ServiceState& service : facts.report->services())
    services.push_back(service_json(service));
  bj::object reported{{"phase", device::v1::ReportedState_Phase_Name(facts.report->phase())},
                      {"version", facts.report->desired_version()},
                      {"release_id", facts.report->release_id()}};
  if (!facts.report->error().empty()) {
    reported["error"] = facts.report->error();
    reported["error_code"] = facts.report->error_code();
  }
  const bj::object document{{"version", facts.version},
                            {"profile", facts.options->profile},
                            {"started_at", to_rfc3339(facts.started)},
                            {"device_id", facts.identity->device_id()},
                            {"server", facts.options->server},
                            {"connection",
                             {{"connected", facts.connected},
                              {"since", time_or_null(facts.since)},
                              {"broker", facts.broker},
                              {"last_error", facts.last_error}}},
                            {"next_renewal", renewal(*facts.identity)},
                            {"clock_offset_ms", facts.identity->clock_offset().count()},
                            {"desired", {{"version", facts.desired_version}}},
                            {"reported", std::move(reported)},
                            {"services", std::move(services)},
                            {"waiting",
                             {{"messages", facts.waiting_messages},
                              {"bytes", facts.waiting_bytes},
                              {"disk_error", facts.disk_error}}},
                            {"lost",
                             {{"telemetry_points", facts.lost.telemetry_points},
                              {"log_lines", facts.lost.log_lines},
                              {"events", facts.lost.events}}}};
  return bj::serialize(document);
}

struct StatusServer::Impl {
  Impl(Executor e, std::string s, std::function<std::string()> d)
      : executor(e),
        socket(std::move(s)),
        describe(std::move(d)),
        server(
            e, [this](net::Request request) { return answer(std::move(request)); },
            [](const net::Request&, std::exception_ptr) {
              return plain(500, "flockd has failed\n");
            },
            limits()) {}

  Task<net::Reply> answer(net::Request request) {
    net::Reply reply;
    if (request.raw_path() != "/") {
      reply.response = plain(404, "there is only /\n");
    } else if (request.method != "GET") {
      reply.response = plain(405, "it can only be read\n");
      reply.response.headers.add("Allow", "GET");
    } else {
      reply.response.headers.add("Content-Type", "application/json");
      reply.response.body = describe();
    }
    co_return reply;
  }

  Executor executor;
  std::string socket;
  std::function<std::string()> describe;
  net::HttpServer server;
};

StatusServer::StatusServer(Executor executor, std::string socket,
                           std::function<std::string()> describe)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(socket), std::move(describe))) {}
StatusServer::~StatusServer() = default;

void StatusServer::start() {
  // At no moment may others connect.
  const mode_t before = ::umask(0177);
  std::unique_ptr<net::Listener> listener;
  try {
    listener = net::Listener::unix_socket(impl_->executor, impl_->socket);
  } catch (...) {
    ::umask(before);
    throw;
  }
  ::umask(before);
  impl_->server.listen(std::move(listener));
}
Task<void> StatusServer::stop() { co_await impl_->server.stop(); }

Task<std::string> ask_status(std::string socket) {
  net::ClientOptions options;
  options.unix_path = socket;
  options.request_time = Duration(5'000);
  options.idle_connections = 0;
  net::HttpClient client(co_await asio::this_coro::executor, options);
  std::string why;
  try {
    const net::Response response = co_await client.get("http://flockd/");
    if (response.status == 200) co_return response.body;
    why = "it answered " + std::to_string(response.status);
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    why = error.message();
  }
  throw Error(Code::kUnavailable, "flockd does not answer on this machine: " + why)
      .with("socket", socket)
      .hint("start flockd, or name its configuration: flockd status --config FILE");
}

std::string describe_status(const std::string& document) {
  const bj::value value = json::parse(document);
  if (!value.is_object()) throw Error(Code::kProtocol, "flockd's answer is no object");
  const bj::object& status = value.get_object();
  const bj::object &connection = part_of(status, "connection"),
                   &desired = part_of(status, "desired"), &reported = part_of(status, "reported"),
                   &waiting = part_of(status, "waiting"), &lost = part_of(status, "lost");
  std::string out;
  add_line(out, "flockd",
           text_of(status, "version") + ", profile " + text_of(status, "profile") + ", started " +
               text_of(status, "started_at"));
  const std::string id = text_of(status, "device_id");
  add_line(out, "Device", id.empty() ? "not registered yet" : id);
  add_line(out, "Server", text_of(status, "server"));
  add_line(out, "Connection", describe_connection(connection));
  add_line(out, "Last error", text_of(connection, "last_error"));
  add_line(out, "Token renewal", text_of(status, "next_renewal"));
  add_line(out, "Clock", text_of(status, "clock_offset_ms") + " ms behind the server");
  add_line(out, "Wanted", "version " + text_of(desired, "version"));
  std::string phase = text_of(reported, "phase");
  if (const std::string error = text_of(reported, "error"); !error.empty()) phase += ": " + error;
  add_line(out, "Phase", phase);
  add_line(out, "Waiting",
           text_of(waiting, "messages") + " messages, " + text_of(waiting, "bytes") +
               " bytes for the broker");
  add_line(out, "Disk", text_of(waiting, "disk_error"));
  add_line(out, "Lost",
           text_of(lost, "telemetry_points") + " points, " + text_of(lost, "log_lines") +
               " log lines, " + text_of(lost, "events") + " events, for want of room");
  const bj::value* services = status.if_contains("services");
  if (services && services->is_array() && !services->get_array().empty()) {
    out += "Services\n";
    for (const bj::value& service : services->get_array())
      if (service.is_object()) add_service(out, service.get_object());
  }
  return out;
}

}  // namespace flock::agent

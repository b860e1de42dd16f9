// SPDX-License-Identifier: Apache-2.0
// What this room's integration tests share: the real servers, the targets over them, a client that
// holds every answer against the OpenAPI document, and a device that speaks the real protocol.
#pragma once

#include <boost/json.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/scope.h"
#include "flock/device/v1/device.pb.h"
#include "flock/internal/v1/internal.pb.h"
#include "net/http_client.h"
#include "targets/target.h"

namespace flock::targets::itest {

namespace bj = boost::json;

// One set of servers for the program, started when first asked for.
class Stack {
 public:
  // Null when they are not installed: GTEST_SKIP().
  static Stack* get();
  ~Stack();

  std::string url(const std::string& path) const;
  postgres::Options database() const;
  mqtt::ClientOptions bus(const std::string& id) const;
  std::string live_address() const;
  std::string registry_host() const;  // as the backend reaches it
  // Its options; the server is started when first asked for. Nothing when it is not installed:
  // GTEST_SKIP().
  std::optional<stores::ClickHouseOptions> clickhouse();
  void stop_clickhouse();
  void start_clickhouse();
  void stop_postgres();
  void start_postgres();
  void stop_valkey();
  void start_valkey();
  void stop_broker();
  void start_broker();
  void stop_registry();
  void start_registry();

  Settings settings;

 private:
  Stack();
  void heal();
  struct Servers;
  std::unique_ptr<Servers> servers_;
};

// Two keys, "a" and "b"; `current` seals. Without the other when `alone`.
std::shared_ptr<const crypto::SealingKeys> sealing_keys(const std::string& current,
                                                        bool alone = false);

// The three targets on the caller's loop, with connections of their own.
class Backend {
 public:
  Backend(Executor executor, Stack& from);
  Task<void> start();
  Task<void> stop();
  Parts parts();
  // A fresh organization; returns its API key.
  Task<std::string> make_tenant(std::string name);
  // Another API key of the same organization.
  Task<std::string> make_key(std::string api_key, std::string role,
                             std::optional<std::vector<std::string>> scopes = {},
                             std::optional<std::vector<std::string>> fleet_ids = {});
  // A release of one service `web` without asking a registry. Returns its id.
  Task<std::string> put_release(std::string api_key, std::string version,
                                std::map<std::string, std::string> digests);

  Stack& stack;
  Executor executor;
  postgres::Database db;
  std::unique_ptr<stores::LiveState> live;
  std::unique_ptr<stores::TimeSeries> time_series;  // in memory; another may be put here before
                                                    // start(): stack.clickhouse()
  mqtt::Client bus, recorder;
  crypto::Key signing;
  std::shared_ptr<const crypto::SealingKeys> sealing;  // another may be put here before start()
  TaskScope scope;
  std::vector<std::unique_ptr<Target>> targets;
  // What the audit log was told; whole once heard() returned.
  Task<void> heard();
  std::vector<internal::v1::AuditEvent> audited;
};

// Every answer is checked against the document: the status, the media type, the properties.
class Api {
 public:
  Api(Executor executor, const Stack& stack, std::string api_key = "");
  Task<bj::value> call(std::string method, std::string path, std::string body = "");
  Task<bj::value> call(std::string method, std::string path, bj::object body);
  std::string token;  // sent as Bearer
  std::optional<std::string> basic;
  std::vector<std::pair<std::string, std::string>> more_headers;
  net::Response last;
  static std::set<std::string>& answered();  // operationIds that succeeded

 private:
  net::HttpClient http_;
  const Stack& stack_;
};

std::string text(const bj::value& value, const char* key);

// Claims of an assertion that is valid now; tests change what they want to see refused.
bj::object assertion_claims(const std::string& subject);
bj::object registration(const std::string& provisioning_key, const crypto::Key& device,
                        const std::string& assertion, const std::string& architecture = "amd64");
bj::object registration(const std::string& provisioning_key, const crypto::Key& device);

class FakeDevice {
 public:
  FakeDevice(Backend& backend, std::string architecture = "amd64");
  // Registers and connects to the broker.
  Task<void> join(Api& api, std::string provisioning_key);
  Task<void> report(device::v1::ReportedState state);
  Task<void> tell(device::v1::DeviceEvent::Kind kind);
  // A report of `phase` at the present desired version, proof included when CONFIRMED.
  device::v1::ReportedState state(device::v1::ReportedState::Phase phase);

  crypto::Key key = crypto::Key::generate(crypto::Key::Kind::kP256);
  std::string id, device_token;
  device::v1::DesiredState desired;
  int desired_messages = 0;
  std::vector<device::v1::Command> commands;  // as they came, those that came again too
  std::int64_t seq;

 private:
  Backend& backend_;
  std::string architecture_;
  std::unique_ptr<mqtt::Client> link_;
  // Its connection is the backend's, and may hear something when the device is gone.
  const std::shared_ptr<bool> here_ = std::make_shared<bool>(true);
};

// Asks every 20 ms until `condition`; throws Error{kTimeout} naming `what`.
Task<void> eventually(std::string what, std::function<Task<bool>()> condition,
                      Duration limit = Duration(10'000));

// Pushes an image without layers, one manifest for each architecture, as `tag`.
Task<void> push_image(Executor executor, std::string registry, std::string repository,
                      std::string tag, std::vector<std::string> architectures);

}  // namespace flock::targets::itest

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "mqtt/client.h"
#include "net/http_client.h"
#include "processes.h"
#include "stores/live_state/live_state.h"
#include "stores/postgres/database.h"

namespace flock::bench {

// How bench/scale.sh names the stack that it has started.
struct ScaleOptions {
  std::int64_t devices = 100'000, connections = 19'800, seconds = 10;
  std::string api_url, token_file, ingester_metrics_url;
  std::string mqtt_url, mqtt_ca_file, mqtt_password_file;
  std::string postgres_url, postgres_password_file;
  std::string live_address, live_password_file;
  std::string clickhouse_url, clickhouse_password_file;
  std::string sim_program, provisioning_key_file, directory;
  std::vector<std::string> processes;  // NAME:PID
  void bind(config::Schema& schema);
};

// Messages of devices that the ingester has stored; those of them that are telemetry.
struct Stored {
  double all = 0, telemetry = 0;
};

// What the phases of the bench share: the stack's stores, and what its processes use.
class World {
 public:
  World(Executor executor, ScaleOptions options);
  mqtt::ClientOptions link(const std::string& client_id) const;
  Task<std::int64_t> online();
  // Devices without connections, in the stack's one fleet; returns their ids.
  Task<std::vector<std::string>> insert_devices(std::int64_t count);
  // So many that flock-sim, run with this prefix, finds registered already.
  Task<void> insert_simulated(const std::string& prefix, std::int64_t count);
  Task<Stored> stored();
  // Whether the live state of a device is this report or a later one.
  Task<bool> shows(const std::string& device, std::int64_t seq);
  // One value of ClickHouse, or of PostgreSQL, as text.
  Task<std::string> ask_clickhouse(std::string sql);
  Task<std::string> ask_postgres(const char* sql);

  const ScaleOptions options;
  Processes processes;

 private:
  Task<void> insert(const std::vector<std::string>& ids, const std::vector<std::string>& names,
                    const std::vector<std::string>& keys, std::int64_t version);
  Executor executor_;
  postgres::Database db_;
  net::HttpClient http_;
  std::unique_ptr<stores::LiveState> live_;
};

// Between its making and table(): what each process spent, and on how many messages.
class Meter {
 public:
  explicit Meter(World& world);
  Task<void> begin();
  // Messages a second; prints the share of a core, and the time a message, of each process.
  Task<double> end(const char* what);

 private:
  World& world_;
  std::vector<Usage> before_;
  Stored stored_;
  SteadyPoint began_;
};

// Resident memory of each process in MB; with `before`, what came on top of it for each of so many
// devices in kB, too.
void print_memory(const World& world, const std::vector<Usage>* before = nullptr,
                  std::int64_t devices = 0);

// Processor time of each process since `before`, for each of so many devices.
void print_time(const World& world, const std::vector<Usage>& before, std::int64_t devices);

}  // namespace flock::bench

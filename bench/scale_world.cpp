// SPDX-License-Identifier: Apache-2.0
#include "scale_world.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "keep_alive.h"
#include "sim/virtual_device.h"

namespace flock::bench {
namespace {

using postgres::Params;
using postgres::Scope;

postgres::Options database(const ScaleOptions& options) {
  postgres::Options out;
  out.url = options.postgres_url;
  out.password = Secret(read_secret_file(options.postgres_password_file));
  out.pool_size = 2;
  out.statement_time = Duration(120'000);
  return out;
}

}  // namespace

void ScaleOptions::bind(config::Schema& schema) {
  schema.add("devices", devices, "how many devices in all", 100);
  schema.add("connections", connections, "how many of them with a connection of their own", 1);
  schema.add("seconds", seconds, "how long each phase lasts", 1);
  for (auto& [name, value] : std::initializer_list<std::pair<const char*, std::string*>>{
           {"api_url", &api_url},
           {"token_file", &token_file},
           {"ingester_metrics_url", &ingester_metrics_url},
           {"mqtt_url", &mqtt_url},
           {"mqtt_ca_file", &mqtt_ca_file},
           {"mqtt_password_file", &mqtt_password_file},
           {"postgres_url", &postgres_url},
           {"postgres_password_file", &postgres_password_file},
           {"live_address", &live_address},
           {"live_password_file", &live_password_file},
           {"clickhouse_url", &clickhouse_url},
           {"clickhouse_password_file", &clickhouse_password_file},
           {"sim_program", &sim_program},
           {"provisioning_key_file", &provisioning_key_file},
           {"directory", &directory}})
    schema.add(name, *value, "see bench/scale.sh");
  schema.add("processes", processes, "NAME:PID of what is watched");
}

World::World(Executor executor, ScaleOptions given)
    : options(std::move(given)),
      executor_(executor),
      db_(executor, database(options)),
      http_(executor, {}),
      live_(stores::make_valkey_live_state(executor, options.live_address,
                                           read_secret_file(options.live_password_file))) {
  for (const std::string& process : options.processes) {
    const std::size_t colon = process.find(':');
    processes.add(process.substr(0, colon),
                  static_cast<pid_t>(std::stol(process.substr(colon + 1))));
  }
}

mqtt::ClientOptions World::link(const std::string& client_id) const {
  mqtt::ClientOptions out;
  out.url = options.mqtt_url;
  net::TlsOptions tls;
  tls.ca_pem = read_file(options.mqtt_ca_file).value_or("");
  out.tls = net::make_tls_client(tls);
  out.client_id = client_id;
  out.session_expiry = Duration(0);
  const Secret password(read_secret_file(options.mqtt_password_file));
  out.credentials = [password]() -> Task<mqtt::Credentials> {
    co_return mqtt::Credentials{"flock-bench", password};
  };
  return out;
}

Task<std::int64_t> World::online() {
  co_return std::stoll(
      co_await ask_postgres("SELECT count(*)::text AS value FROM devices WHERE online"));
}

Task<void> World::insert(const std::vector<std::string>& ids, const std::vector<std::string>& names,
                         const std::vector<std::string>& keys, std::int64_t version) {
  co_await db_.query(
      Scope::system(),
      "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, desired_version, "
      "published_version) SELECT n.id, f.org_id, f.id, n.name, n.key, 'arm64', $4::bigint, "
      "$4::bigint FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n(id, name, key), (SELECT id, "
      "org_id FROM fleets LIMIT 1) AS f",
      Params().texts(ids).texts(names).texts(keys).integer(version));
}

Task<std::vector<std::string>> World::insert_devices(std::int64_t count) {
  std::vector<std::string> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(new_uuid());
  co_await insert(ids, ids, ids, keep_alive("").desired_version());
  co_return ids;
}

Task<void> World::insert_simulated(const std::string& prefix, std::int64_t count) {
  std::vector<std::string> ids, names, keys;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(new_uuid());
    names.push_back(agent::sim::name_of(prefix, i));
    keys.push_back(agent::sim::key_of(agent::sim::Behaviour().seed, names.back()).public_pem());
  }
  co_await insert(ids, names, keys, 0);
}

// What the ingester itself adds to the time series counts as logs.
Task<Stored> World::stored() {
  const net::Response response = co_await http_.get(options.ingester_metrics_url);
  Stored out;
  std::istringstream lines(response.body);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("flock_device_messages_total{") ||
        line.find("\"stored\"") == std::string::npos || line.find("\"logs\"") != std::string::npos)
      continue;
    const double value = std::stod(line.substr(line.rfind(' ')));
    out.all += value;
    if (line.find("\"telemetry\"") != std::string::npos) out.telemetry += value;
  }
  co_return out;
}

Task<bool> World::shows(const std::string& device, std::int64_t seq) {
  const std::vector<DeviceId> ids{DeviceId::trusted(device)};
  const auto values = co_await live_->get_reported(ids);
  device::v1::ReportedState report;
  co_return report.ParseFromString(values.at(0).value_or("")) && report.seq() >= seq;
}

Task<std::string> World::ask_clickhouse(std::string sql) {
  net::Headers headers;
  headers.add("X-ClickHouse-User", "flock");
  headers.add("X-ClickHouse-Key", read_secret_file(options.clickhouse_password_file));
  const net::Response response =
      co_await http_.send("POST", options.clickhouse_url, headers, std::move(sql));
  co_return response.body.substr(0, response.body.find('\n'));
}

Task<std::string> World::ask_postgres(const char* sql) {
  const auto rows = co_await db_.query(Scope::system(), sql);
  co_return rows.rows.at(0).text("value");
}

Meter::Meter(World& world) : world_(world) {}

Task<void> Meter::begin() {
  stored_ = co_await world_.stored();
  before_ = world_.processes.now();
  began_ = std::chrono::steady_clock::now();
}

Task<double> Meter::end(const char* what) {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  const std::vector<Usage> after = world_.processes.now();
  const double messages = (co_await world_.stored()).all - stored_.all;
  std::printf("%s: %.0f messages a second\n  processor:", what, messages / seconds);
  double most = 0, all = 0;
  std::size_t busiest = 0;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const double cpu = after[i].cpu_us - before_[i].cpu_us, share = cpu / seconds / 1e4;
    std::printf("%s %s %.0f %% (%.1f us)", i == 0 ? "" : ",", world_.processes.name(i).c_str(),
                share, messages > 0 ? cpu / messages : 0);
    all += share;
    if (share > most) most = share, busiest = i;
  }
  std::printf("\n  busiest: %s, %.0f %% of a core; all together %.0f %%\n",
              world_.processes.name(busiest).c_str(), most, all);
  co_return messages / seconds;
}

void print_time(const World& world, const std::vector<Usage>& before, std::int64_t devices) {
  const std::vector<Usage> now = world.processes.now();
  std::printf("  processor time a device:");
  for (std::size_t i = 0; i < now.size(); ++i) {
    const double began = i < before.size() ? before[i].cpu_us : 0;
    std::printf("%s %s %.2f ms", i == 0 ? "" : ",", world.processes.name(i).c_str(),
                (now[i].cpu_us - began) / 1000 / static_cast<double>(devices));
  }
  std::printf("\n");
}

void print_memory(const World& world, const std::vector<Usage>* before, std::int64_t devices) {
  const std::vector<Usage> now = world.processes.now();
  std::printf("  memory:");
  for (std::size_t i = 0; i < now.size(); ++i) {
    std::printf("%s %s %.0f MB", i == 0 ? "" : ",", world.processes.name(i).c_str(),
                now[i].bytes / (1 << 20));
    const double began = before != nullptr && i < before->size() ? (*before)[i].bytes : 0;
    if (before != nullptr)
      std::printf(" (%.2f kB a device)",
                  (now[i].bytes - began) / 1024 / static_cast<double>(devices));
  }
  std::printf("\n");
}

}  // namespace flock::bench

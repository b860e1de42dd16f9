// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/time.h"

namespace flock::targets {

// Every key of flock-api's configuration (docs/foundation.md).
struct Settings {
  std::vector<std::string> target{"all"};
  std::string public_url = "http://127.0.0.1:8080";
  std::string setup_key_file;
  std::string log_level = "info", log_format = "auto";
  std::string admin_listen = "127.0.0.1:9464";
  std::string api_listen = "127.0.0.1:8080", api_tls_certificate_file, api_tls_key_file;
  std::vector<std::string> api_trusted_proxies;
  bool webhooks_allow_loopback = false;
  std::vector<std::string> webhooks_allowed_networks;
  std::int64_t api_rate_limit = 6000;  // requests a minute for each caller; 0: no limit
  Duration shutdown_delay{0}, shutdown_timeout{15'000};
  std::string postgres_url = "postgresql:///flock", postgres_password_file;
  std::int64_t postgres_pool_size = 8;
  std::string live_state_kind = "valkey", live_state_address = "127.0.0.1:6379",
              live_state_password_file;
  std::string clickhouse_kind = "clickhouse", clickhouse_url = "http://127.0.0.1:8123",
              clickhouse_database = "flock", clickhouse_username = "default",
              clickhouse_password_file, clickhouse_ca_file, clickhouse_query_username,
              clickhouse_query_password_file;
  std::int64_t retention_telemetry_days = 30, retention_logs_days = 14;
  std::string mqtt_url = "mqtts://127.0.0.1:8883", mqtt_ca_file, mqtt_password_file;
  std::vector<std::string> mqtt_device_urls;
  std::string registry_url = "http://127.0.0.1:5000", registry_service = "flock-registry";
  std::vector<std::string> registry_hosts;
  std::string oidc_issuer, oidc_client_id = "flock-cli";
  std::vector<std::string> oidc_audience;
  std::string keys_directory = "/etc/flock/keys";
  Duration device_token_lifetime{3'600'000};
  Duration device_token_lifetime_max{std::int64_t{168} * 3'600'000};  // what a device may ask for
  Duration longest_device_token() const {
    return std::max(device_token_lifetime, device_token_lifetime_max);
  }
  std::string audit_kind = "file", audit_directory = "/var/lib/flock/audit", audit_loki_url,
              audit_loki_tenant, audit_loki_token_file,
              audit_spool_directory = "/var/lib/flock/audit-spool";
  std::int64_t audit_spool_bytes = 1LL << 30;
  std::string ingester_spool_directory = "/var/lib/flock/ingester";
  std::int64_t ingester_spool_bytes = 1LL << 30;
  std::string events_gateway_quarantine_directory = "/var/lib/flock/events-gateway";
  // No keys: tests do not want to wait for the ingester's sweep, nor for devices to come back.
  Duration presence_every{20'000}, presence_return{75'000};

  void bind(config::Schema& schema);
  // Throws Error{kInvalidArgument} with every value that cannot be.
  void validate() const;
};

}  // namespace flock::targets

// SPDX-License-Identifier: Apache-2.0
#include "targets/settings.h"

#include <algorithm>

#include "base/error.h"
#include "domain/networks.h"
#include "net/http.h"
#include "net/stream.h"
#include "stores/identity/oidc.h"
#include "stores/time_series/time_series.h"

namespace flock::targets {
namespace {

// Addresses are printed, logged and given to devices. A secret is a file.
bool holds_password(const std::string& address) {
  if (address.find("password=") != std::string::npos) return true;
  const std::size_t scheme = address.find("://");
  if (scheme == std::string::npos) return false;
  const std::string authority =
      address.substr(scheme + 3, address.find_first_of("/?", scheme + 3) - scheme - 3);
  const std::size_t at = authority.rfind('@');
  return at != std::string::npos && authority.find(':') < at;
}

}  // namespace

void Settings::bind(config::Schema& schema) {
  schema.add("target", target, "targets to run, or all");
  schema.add("public_url", public_url,
             "how the outside reaches the api target; issuer of device tokens");
  schema.add("setup_key_file", setup_key_file, "the one-time setup key is written here too");
  schema.add("log.level", log_level, "debug, info, warn, error, off");
  schema.add("log.format", log_format, "json, pretty, auto");
  schema.add("admin.listen", admin_listen, "health and metrics");
  schema.add("api.listen", api_listen, "REST");
  schema.add("api.tls_certificate_file", api_tls_certificate_file, "PEM; with the key: HTTPS");
  schema.add("api.tls_key_file", api_tls_key_file, "PEM");
  schema.add("api.rate_limit", api_rate_limit, "requests a minute for each caller; 0: no limit", 0,
             1'000'000'000);
  schema.add("api.trusted_proxies", api_trusted_proxies,
             "networks of reverse proxies whose X-Forwarded-For is believed");
  schema.add("webhooks.allow_loopback", webhooks_allow_loopback,
             "for development: event subscriptions and gates may name http:// on loopback");
  schema.add("webhooks.allowed_networks", webhooks_allowed_networks,
             "private networks that webhooks may reach, beside all public addresses");
  schema.add("shutdown_delay", shutdown_delay, "time between not ready and drain");
  schema.add("shutdown_timeout", shutdown_timeout, "limit for drain and stop");
  schema.add("postgres.url", postgres_url, "libpq connection string without password");
  schema.add("postgres.password_file", postgres_password_file, "file with the password");
  schema.add("postgres.pool_size", postgres_pool_size, "connections for each target", 1, 100);
  schema.add("live_state.kind", live_state_kind, "valkey, or memory for one process");
  schema.add("live_state.address", live_state_address, "host:port");
  schema.add("live_state.password_file", live_state_password_file, "file with the password");
  schema.add("clickhouse.kind", clickhouse_kind, "clickhouse, or memory for one process");
  schema.add("clickhouse.url", clickhouse_url, "its HTTP interface");
  schema.add("clickhouse.database", clickhouse_database, "made when it is not there");
  schema.add("clickhouse.username", clickhouse_username, "may create, alter, insert and select");
  schema.add("clickhouse.password_file", clickhouse_password_file, "file with the password");
  schema.add("clickhouse.query_username", clickhouse_query_username,
             "who runs operators' own queries; may select and no more. Default: username");
  schema.add("clickhouse.query_password_file", clickhouse_query_password_file,
             "file with its password");
  schema.add("clickhouse.ca_file", clickhouse_ca_file, "PEM; https: instead of the system's roots");
  schema.add("retention.telemetry_days", retention_telemetry_days,
             "how long metrics, connectivity and updates are kept", 1, stores::kMaxRetentionDays);
  schema.add("retention.logs_days", retention_logs_days, "how long container logs are kept", 1,
             stores::kMaxRetentionDays);
  schema.add("mqtt.url", mqtt_url, "the broker as the targets reach it");
  schema.add("mqtt.device_urls", mqtt_device_urls,
             "the broker as devices reach it; default: mqtt.url");
  schema.add("mqtt.ca_file", mqtt_ca_file, "PEM; devices get it too");
  schema.add("mqtt.password_file", mqtt_password_file,
             "lines username:password, one of flock-TARGET for each target");
  schema.add("registry.url", registry_url, "the registry as the backend reaches it");
  schema.add("registry.hosts", registry_hosts,
             "names of it in compose files; default: host and port of registry.url");
  schema.add("registry.service", registry_service, "audience of registry tokens");
  schema.add("oidc.issuer", oidc_issuer,
             "OpenID provider that people sign in with; empty: API keys only");
  schema.add("oidc.audience", oidc_audience, "`aud` of its access tokens, one of these");
  schema.add("oidc.client_id", oidc_client_id, "the client that flock login uses");
  schema.add("keys.directory", keys_directory, "made by flock-api generate-keys");
  schema.add("device_token_lifetime", device_token_lifetime, "life of a device token");
  schema.add("device_token_lifetime_max", device_token_lifetime_max,
             "the longest life that a device may ask for its token");
  schema.add("audit.kind", audit_kind, "file, or loki");
  schema.add("audit.directory", audit_directory,
             "file: the audit log; the api and audit targets must both reach it");
  schema.add("audit.loki_url", audit_loki_url, "loki: as the targets reach it");
  schema.add("audit.loki_tenant", audit_loki_tenant, "loki: X-Scope-OrgID");
  schema.add("audit.loki_token_file", audit_loki_token_file, "loki: file with a bearer token");
  schema.add("audit.spool_directory", audit_spool_directory,
             "what waits for Loki, and what could not be read; on a disk that lasts");
  schema.add("audit.spool_bytes", audit_spool_bytes,
             "limit of what waits for Loki; when it is full nothing can be changed", 1 << 20);
  schema.add("ingester.spool_directory", ingester_spool_directory,
             "what waits for the time series, and what could not be read; each ingester its own");
  schema.add("ingester.spool_bytes", ingester_spool_bytes,
             "limit of telemetry there, of logs and of history, each; the oldest goes first",
             1 << 20);
  schema.add("events_gateway.quarantine_directory", events_gateway_quarantine_directory,
             "internal messages of which no customer event can be made");
}

void Settings::validate() const {
  std::vector<Problem> problems;
  const auto check = [&](const char* key, const auto& test) {
    try {
      test();
    } catch (const Error& error) {
      problems.push_back({key, "invalid", error.message()});
    }
  };
  const auto check_url = [&](const char* key, const std::string& url) {
    check(key, [&] { net::parse_url(url); });
    if (holds_password(url)) problems.push_back({key, "secret", "must not hold a password"});
  };
  check_url("public_url", public_url);
  check_url("mqtt.url", mqtt_url);
  for (const std::string& url : mqtt_device_urls) check_url("mqtt.device_urls", url);
  check_url("registry.url", registry_url);
  if (holds_password(postgres_url))
    problems.push_back({"postgres.url", "secret",
                        "must not hold a password; name a file in postgres.password_file"});
  if (!oidc_issuer.empty()) {
    check("oidc.issuer", [&] { identity::check_issuer(oidc_issuer); });
    if (oidc_audience.empty() || std::ranges::find(oidc_audience, "") != oidc_audience.end())
      problems.push_back(
          {"oidc.audience", "required", "without it a token for any other program would be taken"});
    if (oidc_client_id.empty())
      problems.push_back({"oidc.client_id", "required", "flock login needs it"});
  }
  check("admin.listen", [&] { net::parse_host_port(admin_listen); });
  check("api.listen", [&] { net::parse_host_port(api_listen); });
  for (const auto& [key, networks] :
       {std::pair{"api.trusted_proxies", &api_trusted_proxies},
        std::pair{"webhooks.allowed_networks", &webhooks_allowed_networks}}) {
    for (const std::string& network : *networks)
      if (!domain::parse_network(network))
        problems.push_back({key, "invalid", network + " is no network like 10.0.0.0/8"});
  }
  if (live_state_kind != "valkey" && live_state_kind != "memory")
    problems.push_back({"live_state.kind", "invalid", "must be valkey or memory"});
  if (clickhouse_kind != "clickhouse" && clickhouse_kind != "memory")
    problems.push_back({"clickhouse.kind", "invalid", "must be clickhouse or memory"});
  if (holds_password(clickhouse_url))
    problems.push_back({"clickhouse.url", "secret", "must not hold a password"});
  check("clickhouse.url", [&] { stores::check({.url = clickhouse_url}); });
  check("clickhouse.database", [&] { stores::check({.database = clickhouse_database}); });
  if (audit_kind != "file" && audit_kind != "loki")
    problems.push_back({"audit.kind", "invalid", "must be file or loki"});
  if (audit_kind == "loki" && audit_loki_url.empty())
    problems.push_back({"audit.loki_url", "required", "audit.kind loki needs it"});
  if (!audit_loki_url.empty()) {
    check_url("audit.loki_url", audit_loki_url);
    if (!audit_loki_url.starts_with("http://") && !audit_loki_url.starts_with("https://"))
      problems.push_back({"audit.loki_url", "invalid", "must begin with http:// or https://"});
  }
  for (const auto& [key, folder] :
       {std::pair("audit.directory", &audit_directory),
        std::pair("audit.spool_directory", &audit_spool_directory),
        std::pair("ingester.spool_directory", &ingester_spool_directory)}) {
    if (!folder->starts_with('/')) problems.push_back({key, "invalid", "must be an absolute path"});
  }
  if (device_token_lifetime < Duration(30'000))
    problems.push_back({"device_token_lifetime", "invalid", "must be at least 30s"});
  if (api_tls_certificate_file.empty() != api_tls_key_file.empty())
    problems.push_back({"api.tls_key_file", "required", "certificate and key go together"});
  if (!problems.empty())
    throw Error(Code::kInvalidArgument, "the configuration is not valid")
        .problems(std::move(problems));
}

}  // namespace flock::targets

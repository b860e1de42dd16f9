// SPDX-License-Identifier: Apache-2.0
// Lets devices into Mosquitto by their Flock token (docs/foundation.md, Broker): the user name is a
// device id, the password a JWT whose `acl` claim says what the session may do. Every other user
// name is left to Mosquitto's password_file and acl_file.
#include <sys/stat.h>

// Mosquitto's headers want these before them.
#include <cstdint>
#include <cstdio>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#include <boost/json.hpp>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "base/time.h"
#include "crypto/jwt.h"

namespace {

using namespace flock;

struct Rule {
  bool allow, publish, subscribe;
  std::string topic;
};
struct Session {
  TimePoint expires;
  std::vector<Rule> rules;
};

struct Revocation {
  TimePoint at;     // tokens issued up to then are refused
  TimePoint until;  // when the last of them has expired by itself
};

struct Plugin {
  mosquitto_plugin_id_t* id = nullptr;
  std::string jwks_file, issuer;
  timespec jwks_time{};
  crypto::JwkSet keys;
  std::map<std::string, Session> sessions;    // by device id
  std::map<std::string, Revocation> revoked;  // by device id
  TimePoint next_sweep{};
};
Plugin plugin;

constexpr Duration kRevocationMemory{24 * 3600 * 1000};  // for who does not say until when
constexpr std::size_t kRevocationLimit = 100'000;

void log_error(const std::string& text) {
  mosquitto_log_printf(MOSQ_LOG_ERR, "flock_auth: %s", text.c_str());
}

// Reads the keys again when the file has changed; a broken file leaves the old keys in force.
void refresh_keys() {
  struct stat info{};
  if (::stat(plugin.jwks_file.c_str(), &info) != 0) return;
  if (info.st_mtim.tv_sec == plugin.jwks_time.tv_sec &&
      info.st_mtim.tv_nsec == plugin.jwks_time.tv_nsec)
    return;
  try {
    plugin.keys = crypto::JwkSet::parse(read_file(plugin.jwks_file).value_or(""));
    plugin.jwks_time = info.st_mtim;
  } catch (const Error& error) {
    log_error("cannot read the keys: " + error.describe());
  }
}

std::vector<Rule> parse_acl(const boost::json::object& claims) {
  std::vector<Rule> rules;
  const auto* list = claims.if_contains("acl");
  if (list == nullptr || !list->is_array()) return rules;
  for (const auto& item : list->get_array()) {
    const auto text = [&](const char* key) -> std::string {
      const auto* value = item.is_object() ? item.get_object().if_contains(key) : nullptr;
      return value && value->is_string() ? std::string(value->get_string()) : "";
    };
    const std::string action = text("action");
    rules.push_back({text("permission") == "allow", action == "publish" || action == "all",
                     action == "subscribe" || action == "all", text("topic")});
  }
  return rules;
}

// `name` within `pattern`; for a subscription `name` is a filter and must be no wider than the
// pattern.
bool covers(std::string_view pattern, std::string_view name) {
  for (;;) {
    const std::string_view wanted = pattern.substr(0, pattern.find('/')),
                           level = name.substr(0, name.find('/'));
    if (wanted == "#") return true;
    if (level == "#" || (wanted != "+" && wanted != level)) return false;
    const bool pattern_ends = wanted.size() == pattern.size(),
               name_ends = level.size() == name.size();
    if (pattern_ends || name_ends) return pattern_ends && name_ends;
    pattern.remove_prefix(wanted.size() + 1);
    name.remove_prefix(level.size() + 1);
  }
}

bool is_device(const char* user) { return user != nullptr && is_uuid(user); }

int on_auth(int, void* data, void*) {
  auto* event = static_cast<mosquitto_evt_basic_auth*>(data);
  if (!is_device(event->username)) return MOSQ_ERR_PLUGIN_DEFER;
  if (event->password == nullptr) return MOSQ_ERR_AUTH;
  const std::string device = event->username;
  const char* client_id = mosquitto_client_id(event->client);
  if (client_id == nullptr || device != client_id) return MOSQ_ERR_AUTH;
  refresh_keys();
  try {
    const TimePoint now = system_clock().now();
    crypto::Expected expected;
    expected.issuer = plugin.issuer;
    expected.audience = "flock-device";
    const auto claims = crypto::verify_jwt(event->password, plugin.keys, expected, now);
    if (claims.at("sub").as_string() != device) return MOSQ_ERR_AUTH;
    const TimePoint issued = from_unix_ms(claims.at("iat").to_number<std::int64_t>() * 1000);
    if (const auto found = plugin.revoked.find(device);
        found != plugin.revoked.end() && issued <= found->second.at)
      return MOSQ_ERR_AUTH;
    Session session;
    session.expires = from_unix_ms(claims.at("exp").to_number<std::int64_t>() * 1000);
    session.rules = parse_acl(claims);
    plugin.sessions[device] = std::move(session);
    return MOSQ_ERR_SUCCESS;
  } catch (const Error& error) {
    mosquitto_log_printf(MOSQ_LOG_NOTICE, "flock_auth: device %s refused: %s", device.c_str(),
                         error.what());
  } catch (const std::exception&) {
    mosquitto_log_printf(MOSQ_LOG_NOTICE, "flock_auth: device %s refused: claims are missing",
                         device.c_str());
  }
  return MOSQ_ERR_AUTH;
}

int on_acl(int, void* data, void*) {
  auto* event = static_cast<mosquitto_evt_acl_check*>(data);
  const char* user = mosquitto_client_username(event->client);
  if (!is_device(user)) return MOSQ_ERR_PLUGIN_DEFER;
  const auto session = plugin.sessions.find(user);
  if (session == plugin.sessions.end()) return MOSQ_ERR_ACL_DENIED;
  if (event->access == MOSQ_ACL_UNSUBSCRIBE) return MOSQ_ERR_SUCCESS;
  const bool publish = event->access == MOSQ_ACL_WRITE;
  for (const Rule& rule : session->second.rules) {
    if ((publish ? rule.publish : rule.subscribe) && covers(rule.topic, event->topic)) {
      return rule.allow ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
    }
  }
  return MOSQ_ERR_ACL_DENIED;
}

int on_tick(int, void*, void*) {
  const TimePoint now = system_clock().now();
  if (now < plugin.next_sweep) return MOSQ_ERR_SUCCESS;
  plugin.next_sweep = now + Duration(1000);
  for (auto at = plugin.sessions.begin(); at != plugin.sessions.end();) {
    const auto current = at++;
    if (current->second.expires > now) continue;
    const std::string device = current->first;
    plugin.sessions.erase(current);
    mosquitto_kick_client_by_clientid(device.c_str(), true);
  }
  std::erase_if(plugin.revoked, [&](const auto& item) { return item.second.until < now; });
  return MOSQ_ERR_SUCCESS;
}

// $CONTROL/flock/v1/revoke: {"device": id, "revoked_at_ms": n, "keep_until_ms": n}. Only backend
// users get here: acl_file lets nobody else write.
int on_revoke(int, void* data, void*) {
  auto* event = static_cast<mosquitto_evt_control*>(data);
  const char* user = mosquitto_client_username(event->client);
  if (user == nullptr || std::string_view(user).substr(0, 6) != "flock-")
    return MOSQ_ERR_ACL_DENIED;
  try {
    const auto value = json::parse({static_cast<const char*>(event->payload), event->payloadlen});
    json::Reader in(value);
    const std::string device = in.string("device");
    const std::int64_t at = in.integer("revoked_at_ms", {});
    const auto until = in.optional_integer("keep_until_ms", {});
    in.finish();
    const Revocation revocation{
        from_unix_ms(at), until ? from_unix_ms(*until) : from_unix_ms(at) + kRevocationMemory};
    if (plugin.revoked.size() < kRevocationLimit) plugin.revoked[device] = revocation;
    const auto session = plugin.sessions.find(device);
    if (session != plugin.sessions.end()) {
      plugin.sessions.erase(session);
      mosquitto_kick_client_by_clientid(device.c_str(), true);
    }
  } catch (const Error& error) {
    log_error("bad revocation: " + error.describe());
  }
  return MOSQ_ERR_SUCCESS;
}

int on_reload(int, void*, void*) {
  refresh_keys();
  return MOSQ_ERR_SUCCESS;
}

}  // namespace

#define FLOCK_EXPORT extern "C" __attribute__((visibility("default")))

FLOCK_EXPORT int mosquitto_plugin_version(int count, const int* versions) {
  for (int i = 0; i < count; ++i) {
    if (versions[i] == 5) return 5;
  }
  return -1;
}

FLOCK_EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t* id, void**, mosquitto_opt* options,
                                       int count) {
  plugin.id = id;
  for (int i = 0; i < count; ++i) {
    const std::string_view key = options[i].key;
    if (key == "jwks_file") plugin.jwks_file = options[i].value;
    if (key == "issuer") plugin.issuer = options[i].value;
  }
  if (plugin.jwks_file.empty() || plugin.issuer.empty()) {
    log_error("plugin_opt_jwks_file and plugin_opt_issuer must be set");
    return MOSQ_ERR_INVAL;
  }
  refresh_keys();
  int result = mosquitto_callback_register(id, MOSQ_EVT_BASIC_AUTH, on_auth, nullptr, nullptr);
  if (result == 0)
    result = mosquitto_callback_register(id, MOSQ_EVT_ACL_CHECK, on_acl, nullptr, nullptr);
  if (result == 0)
    result = mosquitto_callback_register(id, MOSQ_EVT_TICK, on_tick, nullptr, nullptr);
  if (result == 0)
    result = mosquitto_callback_register(id, MOSQ_EVT_RELOAD, on_reload, nullptr, nullptr);
  if (result == 0)
    result = mosquitto_callback_register(id, MOSQ_EVT_CONTROL, on_revoke,
                                         "$CONTROL/flock/v1/revoke", nullptr);
  return result;
}

FLOCK_EXPORT int mosquitto_plugin_cleanup(void*, mosquitto_opt*, int) { return MOSQ_ERR_SUCCESS; }

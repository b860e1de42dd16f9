// SPDX-License-Identifier: Apache-2.0
#include "link/identity.h"

#include <sys/stat.h>

#include <boost/json.hpp>
#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "base/random.h"
#include "crypto/jwt.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

// The file is kept for whoever wants to know what happened.
void move_aside(const std::string& path, const std::string& reason) {
  log::error("a stored file is damaged; it is moved aside", {{"file", path}, {"reason", reason}});
  std::rename(path.c_str(), (path + ".corrupt").c_str());
}

}  // namespace

Identity::Identity(net::HttpClient& http, IdentityOptions options)
    : http_(http), options_(std::move(options)) {}

void Identity::load() {
  ::mkdir(options_.data_dir.c_str(), 0700);
  const std::string key_file = options_.data_dir + "/device.key",
                    wireguard_file = options_.data_dir + "/wireguard.key",
                    identity_file = options_.data_dir + "/identity.json";
  try {
    if (const auto stored = read_file(key_file))
      key_ = std::make_shared<crypto::Key>(crypto::Key::from_private_pem(*stored));
  } catch (const Error& error) {
    move_aside(key_file, error.message());
  }
  if (!key_) {
    key_ = std::make_shared<crypto::Key>(crypto::Key::generate(crypto::Key::Kind::kP256));
    write_file_atomic(key_file, key_->private_pem());
  }
  const auto wireguard = read_file(wireguard_file);
  const std::size_t line = wireguard ? wireguard->find('\n') : std::string::npos;
  if (line == std::string::npos) {
    const crypto::WireguardKey fresh = crypto::generate_wireguard_key();
    write_file_atomic(wireguard_file, fresh.private_key + "\n" + fresh.public_key);
    wireguard_public_ = fresh.public_key;
  } else {
    wireguard_public_ = wireguard->substr(line + 1);
  }
  try {
    if (const auto stored = read_file(identity_file)) {
      const bj::value value = json::parse(*stored);
      const bj::object& object =
          value.is_object() ? value.get_object() : throw Error(Code::kCorrupt, "not an object");
      if (!is_uuid(text_of(object, "device_id"))) throw Error(Code::kCorrupt, "no device id");
      device_id_ = text_of(object, "device_id");
      broker_url_ = text_of(object, "broker_url");
      broker_ca_ = text_of(object, "broker_ca");
    }
  } catch (const Error& error) {
    move_aside(identity_file, error.message());
  }
}

std::string Identity::assertion(const std::string& subject) const {
  const std::int64_t now = to_unix_ms(system_clock().now() + clock_offset_) / 1000;
  return crypto::sign_jwt(*key_, {{"iss", subject},
                                  {"sub", subject},
                                  {"aud", "flock-api"},
                                  {"iat", now},
                                  {"exp", now + 240},
                                  {"jti", new_uuid()}});
}

std::string Identity::registration_body() const {
  const auto& hw = options_.hardware;
  bj::object body{{"provisioning_key", read_secret_file(options_.provisioning_key_file)},
                  {"device_public_key", key_->public_pem()},
                  {"wireguard_public_key", wireguard_public_},
                  {"assertion", assertion(key_->thumbprint())},
                  {"agent_version", options_.agent_version},
                  {"hardware",
                   {{"architecture", hw.architecture()},
                    {"variant", hw.variant()},
                    {"os", hw.os()},
                    {"kernel", hw.kernel()},
                    {"hostname", hw.hostname()},
                    {"memory_bytes", hw.memory_bytes()},
                    {"cpus", hw.cpus()},
                    {"machine_id", hw.machine_id()}}}};
  if (!options_.name.empty()) body["name"] = options_.name;
  return bj::serialize(body);
}

Task<std::string> Identity::token() {
  if (!token_.empty() && std::chrono::steady_clock::now() < good_until_) co_return token_;
  if (registered()) {
    bool unknown = false;
    try {
      const std::string body = bj::serialize(
          bj::object{{"device_id", device_id_}, {"assertion", assertion(device_id_)}});
      co_await ask("/v1/devices/token", body);
    } catch (const Error& error) {
      // The server does not know this id any more (restored backup): registration finds the device
      // by its key.
      unknown = error.code() == Code::kUnauthenticated;
      if (!unknown) throw;
    }
    if (!unknown) co_return token_;
  }
  const std::string body = registration_body();
  co_await ask("/v1/devices/register", body);
  co_return token_;
}

Task<void> Identity::ask(std::string path, std::string body) {
  net::Headers headers;
  headers.add("Content-Type", "application/json");
  const net::Response response = co_await http_.send("POST", options_.server + path, headers, body);
  if (response.status == 200 || response.status == 201) {
    take(response.body);
    co_return;
  }
  std::string detail = "status " + std::to_string(response.status), hint;
  try {
    const bj::value value = json::parse(response.body);
    if (value.is_object()) {
      detail = text_of(value.get_object(), "detail");
      hint = text_of(value.get_object(), "hint");
    }
  } catch (const Error&) {
  }
  const Code code = response.status == 401   ? Code::kUnauthenticated
                    : response.status == 403 ? Code::kForbidden
                    : response.status >= 500 ? Code::kUnavailable
                                             : Code::kInvalidArgument;
  throw Error(code, "the server refused this device: " + detail)
      .hint(hint)
      .with("server", options_.server);
}

void Identity::take(const std::string& answer) {
  const bj::value value = json::parse(answer);
  const bj::object& object = value.is_object()
                                 ? value.get_object()
                                 : throw Error(Code::kProtocol, "the server's answer is no object");
  const std::string id = text_of(object, "device_id"), token = text_of(object, "token");
  if (!is_uuid(id) || token.empty())
    throw Error(Code::kProtocol, "the server's answer has no device id or token");
  const TimePoint server_time = parse_rfc3339(text_of(object, "server_time")),
                  expires = parse_rfc3339(text_of(object, "token_expires_at"));
  // A device without a battery wakes in 1970: its own clock is not trusted for tokens.
  clock_offset_ = server_time - system_clock().now();
  const Duration life = expires - server_time;
  const SteadyPoint now = std::chrono::steady_clock::now();
  good_until_ = now + life - std::min(Duration(30'000), life / 5);
  renew_at_ = now + life * 2 / 3 -
              Duration(static_cast<Duration::rep>(
                  random_below(static_cast<std::uint64_t>(life.count()) / 12 + 1)));
  token_ = token;

  std::string url, ca;
  if (const bj::value* mqtt = object.if_contains("mqtt"); mqtt && mqtt->is_object()) {
    ca = text_of(mqtt->get_object(), "ca_certificates");
    if (const bj::value* urls = mqtt->get_object().if_contains("urls");
        urls && urls->is_array() && !urls->get_array().empty() && urls->get_array()[0].is_string())
      url = std::string(urls->get_array()[0].get_string());
  }
  if (url.empty()) throw Error(Code::kProtocol, "the server's answer names no broker");
  if (id == device_id_ && url == broker_url_ && ca == broker_ca_) return;  // nothing new: no write
  device_id_ = id;
  broker_url_ = url;
  broker_ca_ = ca;
  write_file_atomic(
      options_.data_dir + "/identity.json",
      bj::serialize(bj::object{{"device_id", id}, {"broker_url", url}, {"broker_ca", ca}}));
  log::info("this device is registered", {{"device", id}, {"broker", url}});
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "link/identity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <optional>

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

std::vector<std::string> texts_of(const bj::object& object, std::string_view key) {
  std::vector<std::string> out;
  const bj::value* list = object.if_contains(key);
  if (list == nullptr || !list->is_array()) return out;
  for (const bj::value& item : list->get_array())
    if (item.is_string()) out.emplace_back(item.get_string());
  return out;
}

constexpr Duration kClockSlack{30'000};

// IMF-fixdate, the one form that servers send (RFC 9110, 5.6.7).
std::optional<TimePoint> parse_http_date(const std::string& text) {
  std::tm parts{};
  const char* end = ::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return from_unix_ms(std::int64_t{::timegm(&parts)} * 1000);
}

// The folder's own entry must survive a power loss too, for it holds the key.
void make_folder(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (::mkdir(path.c_str(), 0700) != 0) {
    if (errno == EEXIST) return;
    throw Error(Code::kUnavailable,
                std::string("cannot make the data folder: ") + std::strerror(errno))
        .with("folder", path);
  }
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int folder = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return;
  ::fsync(folder);
  ::close(folder);
}

// The provisioning key asks for an administrator's word. Time can heal that, so it is no refusal:
// the device asks again, at most a minute later.
Error waiting_for_approval(const std::string& answer) {
  std::string request;
  try {
    const bj::value value = json::parse(answer);
    if (value.is_object()) request = text_of(value.get_object(), "device_request_id");
  } catch (const Error&) {
  }
  return Error(Code::kUnavailable, "this device waits for an administrator to approve it")
      .with("device_request", request)
      .hint("flock device-requests approve " + request);
}

void add_lifetime(bj::object& body, Duration lifetime) {
  if (lifetime > Duration(0)) body["lifetime"] = to_string(lifetime);
}

// The file is kept for whoever wants to know what happened.
void move_aside(const std::string& path, const std::string& reason) {
  log::error("a stored file is damaged; it is moved aside", {{"file", path}, {"reason", reason}});
  std::rename(path.c_str(), (path + ".corrupt").c_str());
}

}  // namespace

Identity::Identity(IdentityOptions options) : options_(std::move(options)) {}

void Identity::load() {
  if (options_.key) {
    key_ = std::make_shared<crypto::Key>(*options_.key);
    wireguard_public_ = crypto::generate_wireguard_key().public_key;
    return;
  }
  make_folder(options_.data_dir);
  load_key();
  load_wireguard_key();
  load_identity();
}

// Only a file whose content is no key is replaced. One that cannot be read for another reason (a
// failing disk, wrong permissions) may still hold the identity, so flockd ends instead.
void Identity::load_key() {
  const std::string file = options_.data_dir + "/device.key";
  const auto stored = read_file(file);
  try {
    if (stored) key_ = std::make_shared<crypto::Key>(crypto::Key::from_private_pem(*stored));
  } catch (const Error& error) {
    move_aside(file, error.message());
  }
  if (key_) return;
  key_ = std::make_shared<crypto::Key>(crypto::Key::generate(crypto::Key::Kind::kP256));
  write_file_atomic(file, key_->private_pem());
}

void Identity::load_wireguard_key() {
  constexpr std::size_t kLength = 44;  // 32 bytes in base64
  const std::string file = options_.data_dir + "/wireguard.key";
  const auto stored = read_file(file);
  if (stored && stored->size() >= 2 * kLength + 1 && (*stored)[kLength] == '\n') {
    wireguard_public_ = stored->substr(kLength + 1, kLength);
    return;
  }
  if (stored) move_aside(file, "it holds no key pair");
  const crypto::WireguardKey fresh = crypto::generate_wireguard_key();
  write_file_atomic(file, fresh.private_key + "\n" + fresh.public_key);
  wireguard_public_ = fresh.public_key;
}

void Identity::load_identity() {
  const std::string file = options_.data_dir + "/identity.json";
  try {
    const auto stored = read_file(file);
    if (!stored) return;
    const bj::value value = json::parse(*stored);
    const bj::object& object =
        value.is_object() ? value.get_object() : throw Error(Code::kCorrupt, "not an object");
    if (!is_uuid(text_of(object, "device_id"))) throw Error(Code::kCorrupt, "no device id");
    device_id_ = text_of(object, "device_id");
    stored_ = true;
  } catch (const Error& error) {
    move_aside(file, error.message());
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
                    {"machine_id", hw.machine_id()},
                    {"time_zone", hw.time_zone()}}}};
  if (!options_.name.empty()) body["name"] = options_.name;
  add_lifetime(body, options_.token_lifetime);
  return bj::serialize(body);
}

Task<std::string> Identity::token() {
  if (token_.empty() || std::chrono::steady_clock::now() >= good_until_) co_await renew();
  co_return token_;
}

Task<void> Identity::renew() {
  if (!registered()) co_return co_await register_device();
  std::exception_ptr unknown;
  try {
    const auto body = [this] {
      bj::object body{{"device_id", device_id_}, {"assertion", assertion(device_id_)}};
      add_lifetime(body, options_.token_lifetime);
      return bj::serialize(body);
    };
    co_await ask("/v1/devices/token", body);
  } catch (const Error& error) {
    // The server does not know this id any more (restored backup): registration finds the device
    // by its key.
    if (error.code() != Code::kUnauthenticated) throw;
    unknown = std::current_exception();
  }
  if (!unknown) co_return;
  // A device that lives for years may have lost its provisioning key; then the refusal is what to
  // tell.
  if (!read_file(options_.provisioning_key_file)) std::rethrow_exception(unknown);
  co_await register_device();
}

Task<void> Identity::register_device() {
  co_await ask("/v1/devices/register", [this] { return registration_body(); });
}

Task<net::Response> Identity::post(std::string path, std::string body) {
  net::Headers headers;
  headers.add("Content-Type", "application/json");
  net::HttpClient http(co_await asio::this_coro::executor, options_.client());
  co_return co_await http.send("POST", options_.server + path, std::move(headers), std::move(body));
}

// True when this device's clock turned out to be wrong enough to be refused for it.
bool Identity::learn_time(const net::Response& response) {
  const auto header = response.headers.get("Date");
  const auto server = header ? parse_http_date(std::string(*header)) : std::nullopt;
  if (!server) return false;
  const Duration offset = *server - system_clock().now();
  if (std::chrono::abs(offset - clock_offset_) < kClockSlack) return false;
  log::warn("this device's clock is wrong; the server's is used for its tokens",
            {{"seconds_behind", offset.count() / 1000}});
  clock_offset_ = offset;
  return true;
}

// `body` is asked for again when the first one was dated by a wrong clock.
Task<void> Identity::ask(std::string path, std::function<std::string()> body) {
  net::Response response = co_await post(path, body());
  if (response.status >= 400 && response.status < 500 && learn_time(response))
    response = co_await post(path, body());
  if (response.status == 200 || response.status == 201) {
    take(response.body);
    co_return;
  }
  if (response.status == 202) throw waiting_for_approval(response.body);
  std::string detail, hint;
  try {
    const bj::value value = json::parse(response.body);
    if (value.is_object()) {
      detail = text_of(value.get_object(), "detail");
      hint = text_of(value.get_object(), "hint");
    }
  } catch (const Error&) {
  }
  if (detail.empty()) detail = "status " + std::to_string(response.status);
  const Code code = response.status == 401   ? Code::kUnauthenticated
                    : response.status == 403 ? Code::kForbidden
                    : response.status == 429 ? Code::kRateLimited
                    : response.status >= 500 ? Code::kUnavailable
                                             : Code::kInvalidArgument;
  const char* what =
      response.status >= 500 ? "the server has a problem: " : "the server refused this device: ";
  throw Error(code, what + detail).hint(hint).with("server", options_.server);
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
  if (life <= Duration(0)) throw Error(Code::kProtocol, "the server's token has expired already");
  const bj::value* mqtt = object.if_contains("mqtt");
  if (mqtt == nullptr || !mqtt->is_object() || texts_of(mqtt->get_object(), "urls").empty())
    throw Error(Code::kProtocol, "the server's answer names no broker");
  broker_urls_ = texts_of(mqtt->get_object(), "urls");
  broker_ca_ = text_of(mqtt->get_object(), "ca_certificates");
  const SteadyPoint now = std::chrono::steady_clock::now();
  good_until_ = now + life - std::min(Duration(30'000), life / 5);
  renew_at_ = now + life * 2 / 3 -
              Duration(static_cast<Duration::rep>(
                  random_below(static_cast<std::uint64_t>(life.count()) / 12 + 1)));
  token_ = token;
  if (stored_ && id == device_id_) return;  // nothing new: no write
  stored_ = false;
  device_id_ = id;
  if (!options_.key) store();
}

// What is not on disk costs another registration at the next start, so it is no reason to stop.
void Identity::store() {
  try {
    write_file_atomic(options_.data_dir + "/identity.json",
                      bj::serialize(bj::object{{"device_id", device_id_}}));
    stored_ = true;
    log::info("this device is registered", {{"device", device_id_}});
  } catch (const Error& error) {
    log::error("cannot store this device's registration; tried again with the next token", error);
  }
}

}  // namespace flock::agent

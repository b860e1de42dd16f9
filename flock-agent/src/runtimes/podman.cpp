// SPDX-License-Identifier: Apache-2.0
#include "runtimes/podman.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "runtimes/podman_spec.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

constexpr const char* kBase = "http://podman/v4.0.0/libpod";
constexpr std::size_t kAnswerLimit = 16 << 20;

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}
std::int64_t number_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_number() ? value->to_number<std::int64_t>() : 0;
}

Error runtime_error(const std::string& text, int status) {
  const auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (has("no space left on device"))
    return Error(Code::kUnavailable, "no_space: the disk is full: " + text);
  Code code = status == 404 ? Code::kNotFound : status == 409 ? Code::kConflict : Code::kInternal;
  if (has("manifest unknown") || has("name unknown")) code = Code::kNotFound;
  if (has("unauthorized") || has("denied")) code = Code::kForbidden;
  if (has("connection refused") || has("no such host") || has("i/o timeout"))
    code = Code::kUnavailable;
  return Error(code, text);
}

class Podman final : public Runtime {
 public:
  Podman(Executor executor, std::string socket, std::vector<std::string> insecure)
      : http_(executor, options(std::move(socket))), insecure_(std::move(insecure)) {}

  Task<std::vector<Observed>> list() override {
    const std::string filters =
        url_encode(R"({"label":[")" + std::string(kManagedLabel) + R"(=true"]})");
    const bj::value answer = co_await call("GET", "/containers/json?all=true&filters=" + filters);
    std::vector<Observed> out;
    if (!answer.is_array()) co_return out;
    for (const bj::value& item : answer.get_array()) {
      const bj::object& container = item.as_object();
      Observed observed;
      observed.id = text_of(container, "Id");
      const bj::value* labels = container.if_contains("Labels");
      if (labels == nullptr || !labels->is_object()) continue;
      observed.service = text_of(labels->get_object(), kServiceLabel);
      observed.config_hash = text_of(labels->get_object(), kConfigLabel);
      observed.image_digest = co_await digest_of(text_of(container, "ImageID"));
      const std::string state = text_of(container, "State");
      observed.run = state == "running" || state == "paused" || state == "stopping" ? Run::kRunning
                     : state == "created" || state == "configured" || state == "initialized"
                         ? Run::kCreated
                         : Run::kExited;
      observed.exit_code = static_cast<int>(number_of(container, "ExitCode"));
      observed.started = from_unix_ms(number_of(container, "StartedAt") * 1000);
      out.push_back(std::move(observed));
    }
    co_return out;
  }

  Task<bool> has_image(std::string image) override {
    const net::Response response =
        co_await http_.get(kBase + ("/images/" + url_encode(image) + "/exists"));
    co_return response.status == 204;
  }

  // The answer is a stream of JSON lines; success and failure are in the lines, not in the status.
  Task<void> pull(std::string image, PullCredentials credentials) override {
    const std::string host = image.substr(0, image.find('/'));
    const bool plain = std::find(insecure_.begin(), insecure_.end(), host) != insecure_.end();
    net::Headers headers;
    headers.add("X-Registry-Auth",
                to_base64(bj::serialize(bj::object{{"username", credentials.username},
                                                   {"password", credentials.password}})));
    std::string lines;
    const auto collect = [&](std::string_view chunk) -> Task<void> {
      lines += chunk;
      if (lines.size() > kAnswerLimit)
        throw Error(Code::kTooLarge, "podman says too much while pulling");
      co_return;
    };
    const std::string path = "/images/pull?policy=missing&quiet=true&tlsVerify=" +
                             std::string(plain ? "false" : "true") +
                             "&reference=" + url_encode(image);
    const net::Response response =
        co_await http_.stream("POST", kBase + path, headers, "", collect);
    std::string failure;
    bool done = false;
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = std::min(lines.find('\n', at), lines.size());
      const std::string line = lines.substr(at, end - at);
      at = end + 1;
      if (line.empty()) continue;
      const bj::value value = json::parse(line);
      const bj::object& object = value.as_object();
      for (const char* key : {"error", "cause", "message"}) {
        if (failure.empty()) failure = text_of(object, key);
      }
      done = done || object.contains("id") || object.contains("images");
    }
    if (!failure.empty() || !done)
      throw runtime_error(failure.empty() ? "podman did not say that it pulled the image" : failure,
                          response.status);
  }

  Task<std::string> create(device::v1::Service service, DesiredState desired,
                           std::string config_hash) override {
    for (const std::string& network : networks_of(service, desired))
      co_await ensure_network(network, desired);
    const std::string body = container_spec(service, desired, config_hash);
    // A container of this name can only be a left-over of ours that was never finished.
    const bj::value answer = co_await call("POST", "/containers/create", body);
    co_return text_of(answer.as_object(), "Id");
  }

  Task<void> start(std::string container) override {
    co_await call("POST", "/containers/" + container + "/start");
  }

  Task<void> remove(std::string container) override {
    try {
      co_await call("POST", "/containers/" + container + "/stop");
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound)
        log::debug("cannot stop a container; it is removed anyway", error);
    }
    try {
      co_await call("DELETE", "/containers/" + container + "?force=true&v=false");
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
  }

  Task<bool> probe(std::string container) override {
    const bj::value answer = co_await call("GET", "/containers/" + container + "/healthcheck");
    const bj::object* result = answer.if_object();
    if (result == nullptr) co_return false;
    // The last log entry is the probe that was just made; `Status` lags behind by the retries.
    const bj::value* log = result->if_contains("Log");
    if (log && log->is_array() && !log->get_array().empty())
      co_return number_of(log->get_array().back().as_object(), "ExitCode") == 0;
    co_return text_of(*result, "Status") == "healthy";
  }

  Task<void> remove_images_except(std::vector<std::string> keep) override {
    const bj::value answer = co_await call("GET", "/images/json");
    if (!answer.is_array()) co_return;
    for (const bj::value& item : answer.get_array()) {
      const bj::object& image = item.as_object();
      if (number_of(image, "Containers") > 0) continue;
      const std::string digest = text_of(image, "Digest");
      const bool wanted = std::any_of(keep.begin(), keep.end(), [&](const std::string& name) {
        return name.ends_with("@" + digest);
      });
      if (wanted || !pulled_.contains(digest)) continue;
      co_await call("DELETE", "/images/" + text_of(image, "Id"));
    }
  }

 private:
  static net::ClientOptions options(std::string socket) {
    net::ClientOptions out;
    out.unix_path = std::move(socket);
    out.request_time = Duration(120'000);  // a stop waits for the container's grace period
    out.idle_connections = 2;
    return out;
  }

  Task<bj::value> call(std::string method, std::string path, std::string body = "") {
    net::Headers headers;
    if (!body.empty()) headers.add("Content-Type", "application/json");
    const net::Response response = co_await http_.send(method, kBase + path, headers, body);
    bj::value value;
    if (!response.body.empty() && response.body.front() != '<')
      value = json::parse(response.body, {.bytes = kAnswerLimit, .depth = 64});
    if (response.status < 400) co_return value;
    std::string text = value.is_object() ? text_of(value.get_object(), "message") : "";
    if (text.empty() && value.is_object()) text = text_of(value.get_object(), "cause");
    throw runtime_error(
        text.empty() ? "podman answered with status " + std::to_string(response.status) : text,
        response.status);
  }

  Task<std::string> digest_of(std::string image_id) {
    if (const auto known = digests_.find(image_id); known != digests_.end())
      co_return known->second;
    std::string digest;
    try {
      const bj::value image = co_await call("GET", "/images/" + image_id + "/json");
      digest = text_of(image.as_object(), "Digest");
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
    if (digests_.size() > 200) digests_.clear();
    if (!digest.empty()) {
      digests_[image_id] = digest;
      pulled_[digest] = true;
    }
    co_return digest;
  }

  Task<void> ensure_network(std::string name, const DesiredState& desired) {
    const net::Response response = co_await http_.get(kBase + ("/networks/" + name + "/exists"));
    if (response.status == 204) co_return;
    bool internal = false;
    for (const auto& network : desired.networks())
      internal = internal || ("flock-" + network.name() == name && network.internal());
    const bj::object body{{"name", name},
                          {"driver", "bridge"},
                          {"internal", internal},
                          {"dns_enabled", true},
                          {"labels", {{kManagedLabel, "true"}}}};
    co_await call("POST", "/networks/create", bj::serialize(body));
  }

  net::HttpClient http_;
  std::vector<std::string> insecure_;
  std::map<std::string, std::string> digests_;  // by image id
  std::map<std::string, bool> pulled_;          // digests that a container of ours used
};

}  // namespace

std::unique_ptr<Runtime> make_podman(Executor executor, std::string socket,
                                     std::vector<std::string> insecure_hosts) {
  return std::make_unique<Podman>(std::move(executor), std::move(socket),
                                  std::move(insecure_hosts));
}

}  // namespace flock::agent

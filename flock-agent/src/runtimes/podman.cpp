// SPDX-License-Identifier: Apache-2.0
#include "runtimes/podman.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdlib>
#include <map>
#include <set>

#include "async/deadline.h"
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

const bj::object& object_of(const bj::value& value) {
  if (!value.is_object()) throw Error(Code::kProtocol, "podman's answer is not what was expected");
  return value.get_object();
}
std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}
std::int64_t number_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_number() ? value->to_number<std::int64_t>() : 0;
}

// The registry or the way to it is away, in the words of Go's net and containers/image.
bool tells_of_an_outage(const std::string& text) {
  static constexpr const char* kWords[] = {"connection refused",
                                           "no such host",
                                           "i/o timeout",
                                           "network is unreachable",
                                           "no route to host",
                                           "connection reset",
                                           "TLS handshake",
                                           "server misbehaving",
                                           "unexpected EOF",
                                           "502 (Bad Gateway)",
                                           "received unexpected HTTP status: 5",
                                           "deadline exceeded",
                                           "service unavailable",
                                           "Service Unavailable"};
  return std::any_of(std::begin(kWords), std::end(kWords),
                     [&](const char* words) { return text.find(words) != std::string::npos; });
}

Error runtime_error(const std::string& text, int status) {
  const auto has = [&](const char* part) { return text.find(part) != std::string::npos; };
  if (has("no space left on device") || has("disk quota exceeded"))
    return Error(Code::kUnavailable, "no_space: the disk is full: " + text);
  Code code = status == 404 ? Code::kNotFound : status == 409 ? Code::kConflict : Code::kInternal;
  if (has("manifest unknown") || has("name unknown")) code = Code::kNotFound;
  if (has("unauthorized") || has("denied")) code = Code::kForbidden;
  if (tells_of_an_outage(text)) code = Code::kUnavailable;
  return Error(code, text);
}

net::ClientOptions client_options(std::string socket, Duration request_time, std::size_t idle) {
  net::ClientOptions out;
  out.unix_path = std::move(socket);
  out.request_time = request_time;
  out.idle_connections = idle;
  return out;
}

device::v1::HealthCheck read_check(const bj::object& config) {
  device::v1::HealthCheck check;
  if (const bj::value* test = config.if_contains("Test"); test && test->is_array()) {
    for (const bj::value& word : test->get_array())
      if (word.is_string()) check.add_test(std::string(word.get_string()));
  }
  constexpr std::int64_t kNanoseconds = 1'000'000;
  check.set_interval_ms(number_of(config, "Interval") / kNanoseconds);
  check.set_timeout_ms(number_of(config, "Timeout") / kNanoseconds);
  check.set_start_period_ms(number_of(config, "StartPeriod") / kNanoseconds);
  check.set_retries(static_cast<std::uint32_t>(number_of(config, "Retries")));
  return check;
}

// "json-file" is Podman's other name for the same format.
std::string read_log_path(const bj::object& container) {
  const bj::value* host = container.if_contains("HostConfig");
  const bj::value* found =
      host && host->is_object() ? host->get_object().if_contains("LogConfig") : nullptr;
  if (found == nullptr || !found->is_object()) return "";
  const std::string driver = text_of(found->get_object(), "Type");
  return driver == "k8s-file" || driver == "json-file" ? text_of(found->get_object(), "Path") : "";
}

// Podman's events of one container, a JSON object a line. Of `podman stop` it tells only that the
// container was cleaned up twice: by whoever stopped it, and at its end as always.
Ending read_ending(const std::string& lines, std::int64_t since_ms) {
  Ending out;
  int cleanups = 0;
  for (std::size_t at = 0; at < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string line = lines.substr(at, end - at);
    at = end + 1;
    if (line.empty()) continue;
    const bj::value value = json::parse(line);
    const bj::object& event = object_of(value);
    const std::string action = text_of(event, "Action");
    if (number_of(event, "timeNano") / 1'000'000 < since_ms) continue;
    if (action == "start" && out.exit_code) break;  // the run after it
    if (action == "died" && !out.exit_code) {
      const bj::value* actor = event.if_contains("Actor");
      const bj::value* attributes =
          actor && actor->is_object() ? actor->get_object().if_contains("Attributes") : nullptr;
      if (attributes && attributes->is_object())
        out.exit_code = std::atoi(text_of(attributes->get_object(), "containerExitCode").c_str());
    }
    if (action == "cleanup") ++cleanups;
    if (action == "kill" || action == "stop" || action == "remove" || cleanups > 1)
      out.by_others = true;
  }
  return out;
}

constexpr Duration kCallTime{120'000};
constexpr Duration kStopTime{2LL * 3600 * 1000};  // over the longest sensible grace period
constexpr Duration kPullTime{6LL * 3600 * 1000};  // a large image over a slow line

class Podman final : public Runtime {
 public:
  Podman(Executor executor, std::string socket, std::vector<std::string> insecure)
      : http_(executor, client_options(socket, kCallTime, 2)),
        patient_http_(executor, client_options(std::move(socket), kStopTime, 0)),
        insecure_(std::move(insecure)) {}

  Task<std::vector<Observed>> list() override {
    const bj::value answer =
        co_await call("GET", "/containers/json?all=true&filters=" + managed_filter());
    std::vector<Observed> out;
    if (!answer.is_array()) co_return out;
    for (const bj::value& item : answer.get_array()) {
      const bj::object& container = object_of(item);
      Observed observed;
      observed.id = text_of(container, "Id");
      const bj::value* labels = container.if_contains("Labels");
      if (labels == nullptr || !labels->is_object()) continue;
      observed.service = text_of(labels->get_object(), kServiceLabel);
      observed.config_hash = text_of(labels->get_object(), kConfigLabel);
      observed.image_digests = co_await digests_of(text_of(container, "ImageID"));
      const Fixed fixed = co_await fixed_of(observed.id);
      observed.image_check = fixed.check;
      observed.log_path = fixed.log_path;
      const std::string state = text_of(container, "State");
      observed.run = state == "running" || state == "paused" || state == "stopping" ? Run::kRunning
                     : state == "created" || state == "configured" || state == "initialized"
                         ? Run::kCreated
                         : Run::kExited;
      observed.exit_code = static_cast<int>(number_of(container, "ExitCode"));
      observed.pid = static_cast<int>(number_of(container, "Pid"));
      observed.started = from_unix_ms(number_of(container, "StartedAt") * 1000);
      out.push_back(std::move(observed));
    }
    forget_others(out);
    co_return out;
  }

  Task<bool> has_image(std::string image) override {
    const net::Response response =
        co_await http_.get(kBase + ("/images/" + url_encode(image) + "/exists"));
    co_return response.status == 204;
  }

  // The answer is a stream of JSON lines; success and failure are in the lines, not in the status.
  Task<void> pull(std::string image, PullCredentials credentials,
                  std::function<void(int)> progress) override {
    static_cast<void>(progress);
    const std::string host = image.substr(0, image.find('/'));
    const bool plain = std::find(insecure_.begin(), insecure_.end(), host) != insecure_.end();
    net::Headers headers;
    headers.add("X-Registry-Auth",
                to_base64(bj::serialize(bj::object{{"username", credentials.username},
                                                   {"password", credentials.password}})));
    std::string lines;
    int status = 0;
    const auto collect = [&](std::string_view chunk) -> Task<void> {
      lines += chunk;
      if (lines.size() > kAnswerLimit)
        throw Error(Code::kTooLarge, "podman says too much while pulling");
      co_return;
    };
    const std::string path = "/images/pull?policy=missing&quiet=true&tlsVerify=" +
                             std::string(plain ? "false" : "true") +
                             "&reference=" + url_encode(image);
    const auto answer = [&]() -> Task<void> {
      const net::Response response =
          co_await patient_http_.stream("POST", kBase + path, headers, "", collect);
      status = response.status;
    };
    co_await with_deadline(answer(), kPullTime, "pulling " + image);
    digests_.clear();  // an image that was there may have a new manifest now
    std::string failure;
    bool done = false;
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = std::min(lines.find('\n', at), lines.size());
      const std::string line = lines.substr(at, end - at);
      at = end + 1;
      if (line.empty()) continue;
      const bj::value value = json::parse(line);
      const bj::object& object = object_of(value);
      for (const char* key : {"error", "cause", "message"}) {
        if (failure.empty()) failure = text_of(object, key);
      }
      done = done || object.contains("id") || object.contains("images");
    }
    if (!failure.empty() || !done)
      throw runtime_error(failure.empty() ? "podman did not say that it pulled the image" : failure,
                          status);
    ours_.insert(image.substr(image.find('@') + 1));
  }

  Task<std::string> create(device::v1::Service service, DesiredState desired,
                           std::string config_hash) override {
    for (const std::string& network : networks_of(service, desired))
      co_await ensure_network(network, desired);
    const std::string body = container_spec(service, desired, config_hash);
    // One of ours with this name would be listed and replaced; a foreign one is a conflict to tell.
    const bj::value answer = co_await call("POST", "/containers/create", body);
    if (!answer.is_object())
      throw Error(Code::kProtocol, "podman did not tell the new container's id");
    co_return text_of(object_of(answer), "Id");
  }

  Task<void> start(std::string container) override {
    co_await call("POST", "/containers/" + container + "/start");
  }

  Task<void> stop(std::string container) override {
    co_await call(patient_http_, "POST", "/containers/" + container + "/stop", "");
  }

  Task<LastRun> last_run_of(std::string container) override {
    const bj::value answer = co_await call("GET", "/containers/" + container + "/json");
    const bj::value* value = object_of(answer).if_contains("State");
    const bj::object& state = object_of(value ? *value : answer);
    LastRun out{exit_from_code(static_cast<int>(number_of(state, "ExitCode"))), {}};
    const bj::value* killed = state.if_contains("OOMKilled");
    out.exit.set_out_of_memory(killed && killed->is_bool() && killed->get_bool());
    out.exit.set_at_ms(to_unix_ms(parse_rfc3339(text_of(state, "FinishedAt"))));
    out.started = parse_rfc3339(text_of(state, "StartedAt"));
    co_return out;
  }

  Task<Ending> ending_of(std::string container, TimePoint since) override {
    const std::string filter = url_encode(R"({"container":[")" + container + R"("]})");
    const std::string path =
        "/events?stream=false&since=" + std::to_string(to_unix_ms(since) / 1000) +
        "&filters=" + filter;
    const net::Response response = co_await http_.get(kBase + path);
    co_return response.status == 200 ? read_ending(response.body, to_unix_ms(since)) : Ending();
  }

  Task<void> remove_volume(std::string volume) override {
    try {
      co_await call("DELETE", "/volumes/" + url_encode(volume_name(volume)));
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
  }

  Task<void> remove(std::string container) override {
    try {
      co_await stop(container);
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound)
        log::debug("cannot stop a container; it is removed anyway", error);
    }
    try {
      co_await call("DELETE", "/containers/" + container + "?force=true&volumes=true");
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
      co_return number_of(object_of(log->get_array().back()), "ExitCode") == 0;
    co_return text_of(*result, "Status") == "healthy";
  }

  Task<void> clean_up(DesiredState desired) override {
    co_await remove_images(desired);
    std::set<std::string> wanted;
    for (const auto& service : desired.services())
      for (const std::string& name : networks_of(service, desired)) wanted.insert(name);
    const bj::value answer = co_await call("GET", "/networks/json?filters=" + managed_filter());
    if (!answer.is_array()) co_return;
    for (const bj::value& item : answer.get_array()) {
      const std::string name = item.is_object() ? text_of(item.get_object(), "name") : "";
      if (name.empty() || wanted.contains(name)) continue;
      co_await try_delete("/networks/" + name);
    }
  }

 private:
  static std::string managed_filter() {
    return url_encode(R"({"label":[")" + std::string(kManagedLabel) + R"(=true"]})");
  }

  Task<void> remove_images(const DesiredState& desired) {
    const bj::value answer = co_await call("GET", "/images/json");
    if (!answer.is_array()) co_return;
    for (const bj::value& item : answer.get_array()) {
      const bj::object& image = object_of(item);
      if (number_of(image, "Containers") > 0) continue;
      const std::set<std::string> digests = co_await digests_of(text_of(image, "Id"));
      const bool ours = std::any_of(digests.begin(), digests.end(),
                                    [&](const auto& digest) { return ours_.contains(digest); });
      const bool wanted = std::any_of(
          desired.services().begin(), desired.services().end(), [&](const auto& service) {
            return digests.contains(service.image().substr(service.image().find('@') + 1));
          });
      if (ours && !wanted) co_await try_delete("/images/" + text_of(image, "Id"));
    }
  }

  // What somebody else uses after all stays.
  Task<void> try_delete(std::string path) {
    try {
      co_await call("DELETE", path);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("something of ours could not be removed", error, {{"path", path}});
    }
  }

  Task<bj::value> call(std::string method, std::string path, std::string body = "") {
    return call(http_, std::move(method), std::move(path), std::move(body));
  }

  static Task<bj::value> call(net::HttpClient& http, std::string method, std::string path,
                              std::string body) {
    net::Headers headers;
    if (!body.empty()) headers.add("Content-Type", "application/json");
    const net::Response response = co_await http.send(method, kBase + path, headers, body);
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

  Task<std::set<std::string>> digests_of(std::string image_id) {
    if (const auto known = digests_.find(image_id); known != digests_.end())
      co_return known->second;
    std::set<std::string> digests;
    try {
      const bj::value answer = co_await call("GET", "/images/" + image_id + "/json");
      const bj::object& image = object_of(answer);
      if (const std::string own = text_of(image, "Digest"); !own.empty()) digests.insert(own);
      if (const bj::value* names = image.if_contains("RepoDigests"); names && names->is_array()) {
        for (const bj::value& name : names->get_array()) {
          const std::string text = name.is_string() ? std::string(name.get_string()) : "";
          if (const std::size_t at = text.find('@'); at != std::string::npos)
            digests.insert(text.substr(at + 1));
        }
      }
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
    if (digests_.size() > 200) digests_.clear();
    if (!digests.empty()) digests_[image_id] = digests;
    co_return digests;
  }

  // What never changes in a container's life.
  struct Fixed {
    std::optional<device::v1::HealthCheck> check;
    std::string log_path;
  };
  Task<Fixed> fixed_of(std::string id) {
    if (const auto known = fixed_.find(id); known != fixed_.end()) co_return known->second;
    Fixed fixed;
    try {
      const bj::value answer = co_await call("GET", "/containers/" + id + "/json");
      const bj::value* config = object_of(answer).if_contains("Config");
      const bj::value* health =
          config && config->is_object() ? config->get_object().if_contains("Healthcheck") : nullptr;
      if (health && health->is_object()) fixed.check = read_check(health->get_object());
      fixed.log_path = read_log_path(object_of(answer));
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) throw;
    }
    fixed_[id] = fixed;
    co_return fixed;
  }

  void forget_others(const std::vector<Observed>& containers) {
    std::erase_if(fixed_, [&](const auto& item) {
      return std::none_of(containers.begin(), containers.end(),
                          [&](const Observed& c) { return c.id == item.first; });
    });
    for (const Observed& container : containers)
      ours_.insert(container.image_digests.begin(), container.image_digests.end());
  }

  Task<void> ensure_network(std::string name, const DesiredState& desired) {
    bool internal = false;
    for (const auto& network : desired.networks())
      internal = internal || ("flock-" + network.name() == name && network.internal());
    const net::Response response = co_await http_.get(kBase + ("/networks/" + name + "/json"));
    if (response.status == 200) {
      const bj::value there = json::parse(response.body, {.bytes = kAnswerLimit, .depth = 64});
      const bj::value* was =
          there.is_object() ? there.get_object().if_contains("internal") : nullptr;
      if ((was && was->is_bool() && was->get_bool()) == internal) co_return;
      // Its containers were removed before, for this is part of what a service is.
      co_await call("DELETE", "/networks/" + name);
    }
    const bj::object body{{"name", name},
                          {"driver", "bridge"},
                          {"internal", internal},
                          {"dns_enabled", true},
                          {"labels", {{kManagedLabel, "true"}}}};
    co_await call("POST", "/networks/create", bj::serialize(body));
  }

  net::HttpClient http_;
  net::HttpClient patient_http_;  // for what may take long by its nature: stops and pulls
  std::vector<std::string> insecure_;
  std::map<std::string, std::set<std::string>> digests_;  // by image id
  std::map<std::string, Fixed> fixed_;                    // by container id
  std::set<std::string> ours_;  // digests that this device pulled or a container of ours used
};

}  // namespace

std::unique_ptr<Runtime> make_podman(Executor executor, std::string socket,
                                     std::vector<std::string> insecure_hosts) {
  return std::make_unique<Podman>(std::move(executor), std::move(socket),
                                  std::move(insecure_hosts));
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <boost/json.hpp>
#include <cstdio>
#include <ctime>
#include <optional>

#include "command.h"
#include "commands/doctor.h"
#include "contexts.h"

namespace flock::cli {

// IMF-fixdate (RFC 9110, 5.6.7), the only form a server may send.
std::optional<std::int64_t> parse_http_date(const std::string& text) {
  struct tm time{};
  const char* end = ::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &time);
  if (end == nullptr || *end != '\0') return std::nullopt;
  return static_cast<std::int64_t>(::timegm(&time));
}

Check check_clock(const std::optional<std::string>& date, std::int64_t now) {
  const auto there = date ? parse_http_date(*date) : std::nullopt;
  if (!there) return {"clock", "WARN", "the server did not say what time it is", ""};
  const std::int64_t skew = now - *there;
  const std::string text = std::to_string(skew < 0 ? -skew : skew) + " s " +
                           (skew < 0 ? "behind" : "ahead of") + " the server";
  if (skew >= -30 && skew <= 30) return {"clock", "OK", text, ""};
  return {"clock", "WARN", text, "set the clock: timedatectl set-ntp true"};
}

namespace {

namespace bj = boost::json;

Check check_config() {
  try {
    const Config config = load_config();
    if (config.contexts.empty())
      return {"config", "WARN", "no context in " + config_folder(), "flock login --server URL"};
    return {"config", "OK", std::to_string(config.contexts.size()) + " contexts", ""};
  } catch (const Error& error) {
    return {"config", "FAIL", error.message(), error.hint()};
  }
}

Check check_permissions(unsigned mode) {
  if ((mode & 077) == 0) return {"permissions", "OK", "only you can read the credentials", ""};
  return {"permissions", "WARN", "others could read the credentials",
          "they are 0600 now; make a new token: flock login"};
}

unsigned credentials_mode() {
  struct stat info{};
  const std::string file = config_folder() + "/credentials.json";
  return ::stat(file.c_str(), &info) == 0 ? info.st_mode & 0777 : 0600;
}

Check check_tls(const std::string& server) {
  const net::Url url = net::parse_url(server);
  if (url.scheme == "https") return {"tls", "OK", "the certificate is valid", ""};
  if (url.host == "127.0.0.1" || url.host == "localhost" || url.host == "::1")
    return {"tls", "OK", "none, on this machine only", ""};
  return {"tls", "WARN", "tokens travel unencrypted", "flock login --server https://" + url.host};
}

Check check_credential(const Session& s) {
  try {
    if (s.client.token().empty())
      return {"credential", "FAIL", "you are not signed in", "flock login"};
    const bj::value who = s.client.get("/v1/whoami");
    return {"credential", "OK", value_at(who, "name") + " of " + value_at(who, "organization.name"),
            ""};
  } catch (const Error& error) {
    return {"credential", "FAIL", error.message(),
            error.hint().empty() ? "flock login" : error.hint()};
  }
}

void check_server(const Session& s, std::vector<Check>& out) {
  const Settings& settings = s.client.settings();
  if (settings.server.value.empty()) {
    out.push_back({"server", "FAIL", "no server is configured", "flock login --server URL"});
    return;
  }
  net::Response response;
  try {
    response = exchange(settings, "GET", settings.server.value + "/v1/auth/config", {}, "");
  } catch (const Error& error) {
    out.push_back({"server", "FAIL", error.message(), error.hint()});
    return;
  }
  out.push_back({"server", response.status < 500 ? "OK" : "FAIL",
                 settings.server.value + " answers with " + std::to_string(response.status),
                 response.status < 500 ? "" : "look at the server's log"});
  out.push_back(check_tls(settings.server.value));
  const auto date = response.headers.get("Date");
  out.push_back(check_clock(date ? std::optional<std::string>(*date) : std::nullopt,
                            static_cast<std::int64_t>(std::time(nullptr))));
  out.push_back(check_credential(s));
}

int doctor(Session& s) {
  std::vector<Check> checks{check_config(), check_permissions(credentials_mode())};
  check_server(s, checks);
  bj::array items;
  bool failed = false;
  for (const Check& check : checks) {
    failed = failed || check.state == "FAIL";
    items.push_back(bj::object{{"check", check.name},
                               {"state", check.state},
                               {"detail", check.detail},
                               {"try", check.advice}});
  }
  print(s.output, bj::object{{"items", std::move(items)}},
        {{"CHECK", "check"}, {"STATE", "state"}, {"DETAIL", "detail"}, {"TRY", "try"}}, "check");
  return failed ? 1 : 0;
}

}  // namespace

Command doctor_command() {
  return {.name = "doctor",
          .summary = "check configuration, server, clock and credential",
          .verbs = {{.summary = "exit code 1 when something fails; warnings do not count",
                     .run = doctor}},
          .examples = {"flock doctor", "flock doctor --context test -o json"}};
}

}  // namespace flock::cli

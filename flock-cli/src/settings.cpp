// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace flock::cli {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string folder() {
  if (const std::string own = variable("FLOCK_CONFIG_HOME"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CONFIG_HOME"); !xdg.empty()) return xdg + "/flock";
  return variable("HOME") + "/.config/flock";
}

std::string member(const std::string& file, const char* key) {
  const auto text = read_file(folder() + "/" + file);
  if (!text) return "";
  const boost::json::value value = json::parse(*text);
  const auto* found = value.is_object() ? value.get_object().if_contains(key) : nullptr;
  return found && found->is_string() ? std::string(found->get_string()) : "";
}

std::string first_of(std::string a, const std::string& b) { return a.empty() ? b : a; }

}  // namespace

Settings load_settings(const std::string& server_flag) {
  Settings out;
  out.server =
      first_of(first_of(server_flag, variable("FLOCK_SERVER")), member("config.json", "server"));
  out.ca_file = first_of(variable("FLOCK_CA_FILE"), member("config.json", "ca_file"));
  out.token = Secret(first_of(variable("FLOCK_TOKEN"), member("credentials.json", "token")));
  while (out.server.ends_with('/')) out.server.pop_back();
  return out;
}

void store_settings(const Settings& settings) {
  std::error_code error;
  std::filesystem::create_directories(folder(), error);
  if (error)
    throw Error(Code::kUnavailable, "cannot create the configuration folder: " + error.message())
        .with("folder", folder());
  write_file_atomic(folder() + "/config.json",
                    boost::json::serialize(boost::json::object{{"server", settings.server},
                                                               {"ca_file", settings.ca_file}}) +
                        "\n",
                    0644);
  write_file_atomic(
      folder() + "/credentials.json",
      boost::json::serialize(boost::json::object{{"token", settings.token.reveal()}}) + "\n", 0600);
}

}  // namespace flock::cli

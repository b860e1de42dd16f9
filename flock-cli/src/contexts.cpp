// SPDX-License-Identifier: Apache-2.0
#include "contexts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "output.h"
#include "toml.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string path_of(const char* name) { return config_folder() + "/" + name; }

void make_folder() {
  std::error_code error;
  std::filesystem::create_directories(config_folder(), error);
  if (error)
    throw Error(Code::kUnavailable, "cannot create the configuration folder: " + error.message())
        .with("folder", config_folder());
}

std::string old_member(const char* file, const char* key) {
  const auto text = read_file(path_of(file));
  return text ? value_at(json::parse(*text), key) : "";
}

// Up to version 0.1 there was one server in config.json and one token in credentials.json.
std::optional<Config> migrate() {
  const std::string server = old_member("config.json", "server");
  if (server.empty()) return std::nullopt;
  Config config{"default", {{"default", {server, old_member("config.json", "ca_file"), "", ""}}}};
  const std::string token = old_member("credentials.json", "token");
  if (!token.empty()) {
    Credential key;
    key.access_token = Secret(token);
    change_credentials([&](Credentials& all) { all["default"] = key; });
  }
  save_config(config);
  std::filesystem::remove(path_of("config.json"));
  return config;
}

void tighten(const std::string& file) {
  struct stat info{};
  if (::stat(file.c_str(), &info) != 0 || (info.st_mode & 077) == 0) return;
  const bool done = ::chmod(file.c_str(), 0600) == 0;
  std::fprintf(stderr, "warning: others could read %s; %s\n", file.c_str(),
               done ? "it is 0600 now. Consider a new token." : "and its mode cannot be changed.");
}

// The lock has a file of its own: credentials.json is replaced, which would lose a lock on it.
class Lock {
 public:
  Lock() : fd_(::open(path_of("credentials.lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)) {
    if (fd_ < 0 || ::lockf(fd_, F_LOCK, 0) != 0) {
      if (fd_ >= 0) ::close(fd_);
      throw Error(Code::kUnavailable, "cannot lock the credentials")
          .with("folder", config_folder());
    }
  }
  ~Lock() { ::close(fd_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
};

Credentials read_credentials() {
  Credentials out;
  const std::string file = path_of("credentials.json");
  const auto text = read_file(file);
  if (!text) return out;
  tighten(file);
  const bj::value document = json::parse(*text);
  const bj::value* contexts =
      document.is_object() ? document.get_object().if_contains("contexts") : nullptr;
  if (contexts == nullptr || !contexts->is_object()) return out;
  for (const auto& item : contexts->get_object()) {
    const bj::value& value = item.value();
    Credential& credential = out[item.key()];
    credential.oidc = value_at(value, "kind") == "oidc";
    credential.access_token = Secret(value_at(value, credential.oidc ? "access_token" : "api_key"));
    credential.refresh_token = Secret(value_at(value, "refresh_token"));
    credential.expires_at = value_at(value, "expires_at");
    credential.token_endpoint = value_at(value, "token_endpoint");
    credential.revocation_endpoint = value_at(value, "revocation_endpoint");
    credential.client_id = value_at(value, "client_id");
    credential.resource = value_at(value, "resource");
  }
  return out;
}

bj::object credential_json(const Credential& credential) {
  if (!credential.oidc) return {{"kind", "api_key"}, {"api_key", credential.access_token.reveal()}};
  return {{"kind", "oidc"},
          {"access_token", credential.access_token.reveal()},
          {"refresh_token", credential.refresh_token.reveal()},
          {"expires_at", credential.expires_at},
          {"token_endpoint", credential.token_endpoint},
          {"revocation_endpoint", credential.revocation_endpoint},
          {"client_id", credential.client_id},
          {"resource", credential.resource}};
}

}  // namespace

std::string config_folder() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string own = variable("FLOCK_CONFIG_HOME"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CONFIG_HOME"); !xdg.empty()) return xdg + "/flock";
  return variable("HOME") + "/.config/flock";
}

std::string& field(Context& context, const std::string& key) {
  if (key == "server") return context.server;
  if (key == "ca_file") return context.ca_file;
  if (key == "organization") return context.organization;
  if (key == "fleet") return context.fleet;
  throw Error(Code::kInvalidArgument, "a context has no `" + key + "`")
      .hint("server, ca_file, organization or fleet");
}

Config load_config() {
  const std::string file = path_of("config.toml");
  const auto text = read_file(file);
  if (!text) return migrate().value_or(Config{});
  Config out;
  const auto refuse = [&](int line, const std::string& what) {
    throw Error(Code::kInvalidArgument, file + ", line " + std::to_string(line) + ": " + what)
        .hint("correct the file, or move it away and sign in again");
  };
  for (const toml::Table& table : toml::parse(*text, file)) {
    if (table.path.empty()) {
      for (const toml::Entry& entry : table.entries) {
        if (entry.key != "current") refuse(entry.line, "unknown key `" + entry.key + "`");
        out.current = entry.value;
      }
      continue;
    }
    if (table.path.size() != 2 || table.path[0] != "contexts")
      refuse(table.line, "expected [contexts.NAME]");
    Context& context = out.contexts[table.path[1]];
    for (const toml::Entry& entry : table.entries) {
      const auto known = std::find_if(std::begin(kContextKeys), std::end(kContextKeys),
                                      [&](const char* key) { return entry.key == key; });
      if (known == std::end(kContextKeys)) refuse(entry.line, "unknown key `" + entry.key + "`");
      field(context, entry.key) = entry.value;
    }
  }
  return out;
}

void save_config(const Config& config) {
  std::vector<toml::Table> tables(1);
  tables[0].entries.push_back({"current", config.current, 0});
  for (const auto& [name, context] : config.contexts) {
    toml::Table table{{"contexts", name}, {}, 0};
    Context copy = context;
    for (const char* key : kContextKeys) {
      if (!field(copy, key).empty()) table.entries.push_back({key, field(copy, key), 0});
    }
    tables.push_back(std::move(table));
  }
  make_folder();
  write_file_atomic(path_of("config.toml"), toml::write(tables), 0644);
}

Credentials load_credentials() { return read_credentials(); }

void change_credentials(const std::function<void(Credentials&)>& change) {
  make_folder();
  const Lock lock;
  Credentials all = read_credentials();
  change(all);
  bj::object contexts;
  for (const auto& [name, credential] : all) contexts[name] = credential_json(credential);
  write_file_atomic(path_of("credentials.json"),
                    bj::serialize(bj::object{{"contexts", std::move(contexts)}}) + "\n", 0600);
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
// Configuration: defaults < YAML file < environment < flags; an unknown key is an error, never
// ignored.
//
//   struct PostgresConfig { std::string url = "..."; std::int64_t pool_size = 8; Secret password;
//   }; config::Schema schema("FLOCK_"); schema.add("postgres.url", c.url, "connection string, see
//   libpq"); schema.load({.file = path, .arguments = {argv + 1, argv + argc}});
//
// Key "postgres.pool_size" is `postgres: {pool_size: 8}` in YAML, FLOCK_POSTGRES_POOL_SIZE in the
// environment, and
// --postgres.pool-size=8 (or --postgres.pool_size 8) on the command line.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "base/time.h"

namespace flock::config {

struct Sources {
  std::string file;                                // empty: none
  std::vector<std::string> arguments;              // without the program's name
  std::map<std::string, std::string> environment;  // usually environment_with_prefix()
};

// The variables of this process that begin with `prefix`.
std::map<std::string, std::string> environment_with_prefix(std::string_view prefix);

class Schema {
 public:
  explicit Schema(std::string environment_prefix) : prefix_(std::move(environment_prefix)) {}

  // `target` holds the default and receives the value; it must outlive the schema.
  void add(std::string key, std::string& target, std::string help);
  void add(std::string key, std::int64_t& target, std::string help, std::int64_t min = 0,
           std::int64_t max = INT64_MAX);
  void add(std::string key, bool& target, std::string help);
  void add(std::string key, Duration& target, std::string help);
  void add(std::string key, Secret& target, std::string help);
  // Comma-separated in the environment and in flags, a list in YAML.
  void add(std::string key, std::vector<std::string>& target, std::string help);

  // Throws Error{kInvalidArgument} with every problem at once; each names the source and the key.
  void load(const Sources& sources);

  // The effective configuration as YAML; secrets are "****".
  std::string print() const;
  // One line per key: flag, default, help.
  std::string help() const;

 private:
  struct Entry {
    std::string key;
    std::string help;
    std::string initial;
    bool list = false;
    std::function<void(const std::string&)> set;  // throws Error on a bad value
    std::function<void(std::vector<std::string>)> set_list;
    std::function<std::string()> get;  // YAML scalar or flow list; secrets blanked
  };
  void add_entry(Entry entry);
  const Entry* find(std::string_view key) const;

  std::string prefix_;
  std::vector<Entry> entries_;
};

}  // namespace flock::config

// SPDX-License-Identifier: Apache-2.0
// Private to this room: typed values out of YAML nodes, with problems collected. Included by .cpp
// files only.
#pragma once

#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "workload/workload.h"

namespace flock::workload {

bool is_name(std::string_view name);
// A key as a part of an RFC 6901 pointer.
std::string escape(std::string_view key);

class ComposeReader {
 public:
  // At most 100, then one line that says so.
  void problem(std::string pointer, std::string code, std::string detail);
  // yaml-cpp keeps every one of equal keys; a reader would take one of them silently.
  void unique_keys(const YAML::Node& map, const std::string& at);
  // Each gives a neutral value beside the problem it records.
  std::string text(const YAML::Node& node, const std::string& at);
  bool boolean(const YAML::Node& node, const std::string& at);
  double number(const YAML::Node& node, const std::string& at, double min, double max);
  std::int64_t whole(const YAML::Node& node, const std::string& at, std::int64_t min,
                     std::int64_t max);
  std::int64_t bytes(const YAML::Node& node, const std::string& at);
  Duration duration(const YAML::Node& node, const std::string& at);
  std::vector<std::string> list(const YAML::Node& node, const std::string& at);
  std::vector<std::string> list_or_one(const YAML::Node& node, const std::string& at);
  // A list as it is; text split as a shell would, without expansion.
  std::vector<std::string> words(const YAML::Node& node, const std::string& at);
  // A map, or a list of KEY=VALUE.
  std::map<std::string, std::string> pairs(const YAML::Node& node, const std::string& at);
  std::vector<Port> ports(const YAML::Node& node, const std::string& at);
  void mounts(const YAML::Node& node, const std::string& at, std::vector<Mount>& out);
  void tmpfs(const YAML::Node& node, const std::string& at, std::vector<Mount>& out);

  std::vector<Problem> problems;

 private:
  void short_port(const std::string& text, const std::string& at, std::vector<Port>& out);
  void long_port(const YAML::Node& node, const std::string& at, std::vector<Port>& out);
  Mount short_mount(const std::string& text, const std::string& at);
  Mount long_mount(const YAML::Node& node, const std::string& at);
};

}  // namespace flock::workload

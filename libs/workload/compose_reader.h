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

class ComposeReader {
 public:
  void problem(std::string pointer, std::string code, std::string detail) {
    problems.push_back({std::move(pointer), std::move(code), std::move(detail)});
  }
  // Each gives a neutral value beside the problem it records.
  std::string text(const YAML::Node& node, const std::string& at);
  bool boolean(const YAML::Node& node, const std::string& at);
  double number(const YAML::Node& node, const std::string& at, double min, double max);
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

  std::vector<Problem> problems;

 private:
  void short_port(const std::string& text, const std::string& at, std::vector<Port>& out);
  void long_port(const YAML::Node& node, const std::string& at, std::vector<Port>& out);
  Mount short_mount(const std::string& text, const std::string& at);
  Mount long_mount(const YAML::Node& node, const std::string& at);
};

}  // namespace flock::workload

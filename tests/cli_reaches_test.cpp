// SPDX-License-Identifier: Apache-2.0
// Every operation of the API has a command: some source of the CLI names its path, the words behind
// the id, and its method. `flock api` reaches them all anyway and does not count.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "base/files.h"

namespace {

// What is not for people at a terminal, and why.
const std::map<std::string, std::string> kNotForPeople = {
    {"registerDevice", "flockd calls it"},
    {"renewDeviceToken", "flockd calls it"},
    {"getRegistryToken", "docker and flockd call it"},
    {"getKeys", "brokers and registries read it"},
    {"getOpenApi", "for programs; flock api prints it"},
    {"listDeviceLogs", "flock logs DEVICE reads /v1/logs"},
    {"getApiKey", "flock tokens ls shows as much"},
    {"getAuditHead", "flock audit export ends with it"},
};

std::vector<std::string> sources() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           std::string(FLOCK_SOURCE_DIR) + "/flock-cli/src")) {
    const std::string path = entry.path().string();
    if (entry.path().extension() != ".cpp" || path.ends_with("_test.cpp") ||
        path.ends_with("/api.cpp"))
      continue;
    out.push_back(flock::read_file(path).value_or(""));
  }
  return out;
}

// "/v1/devices/{id}/actions/move" -> {"/v1/devices", "actions", "move"}
std::vector<std::string> words_of(const std::string& pattern) {
  std::vector<std::string> words;
  std::istringstream in(pattern.substr(1));
  for (std::string word; std::getline(in, word, '/');) {
    if (word.starts_with('{') || word == "v1") continue;
    words.push_back(words.empty() ? "/v1/" + word : word);
  }
  return words;
}

TEST(CliReaches, EveryOperationThatIsForPeople) {
  const YAML::Node document =
      YAML::LoadFile(std::string(FLOCK_SOURCE_DIR) + "/flock-api/openapi/openapi.yaml");
  const auto files = sources();
  std::size_t reached = 0, excused = 0;
  std::set<std::string> known;
  for (const auto& path : document["paths"]) {
    const auto words = words_of(path.first.as<std::string>());
    for (const auto& item : path.second) {
      if (!item.second.IsMap() || !item.second["operationId"]) continue;
      const std::string id = item.second["operationId"].as<std::string>();
      std::string method = item.first.as<std::string>();
      std::transform(method.begin(), method.end(), method.begin(), ::toupper);
      known.insert(id);
      const bool plain = method == "GET" || method == "POST";
      const bool found = std::any_of(files.begin(), files.end(), [&](const std::string& text) {
        return (plain || text.find('"' + method + '"') != std::string::npos) &&
               std::all_of(words.begin(), words.end(), [&](const std::string& word) {
                 return text.find(word) != std::string::npos;
               });
      });
      if (kNotForPeople.contains(id)) {
        ++excused;
        continue;
      }
      EXPECT_TRUE(found) << id << " (" << method << " " << path.first << ") has no command";
      reached += found ? 1 : 0;
    }
  }
  for (const auto& [id, why] : kNotForPeople)
    EXPECT_TRUE(known.contains(id)) << id << " is excused and does not exist";
  std::printf("commands reach %zu operations, %zu are not for people\n", reached, excused);
}

}  // namespace

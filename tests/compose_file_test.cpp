// SPDX-License-Identifier: Apache-2.0
// Is flock-local/docker-compose.yaml valid? No container engine runs here, so it is read, not
// started: its keys, every file and name it refers to, and flock-api's own check of its
// configuration.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "base/files.h"
#include "testing/process.h"

namespace flock {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = FLOCK_SOURCE_DIR;
const fs::path kFolder = kRoot / "flock-local";

std::string content(const fs::path& path) {
  const auto text = read_file(path.string());
  EXPECT_TRUE(text) << path << " does not exist";
  return text.value_or("");
}

std::set<std::string> keys(const YAML::Node& map) {
  std::set<std::string> out;
  for (const auto& item : map) {
    const auto key = item.first.as<std::string>();
    EXPECT_TRUE(out.insert(key).second) << key << " stands twice";
  }
  return out;
}

void expect_known(const YAML::Node& map, const std::set<std::string>& known,
                  const std::string& where) {
  for (const std::string& key : keys(map)) EXPECT_TRUE(known.contains(key)) << where << ": " << key;
}

// The words behind `name` in a file of lines "name value".
std::string line_value(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.starts_with(name + " ")) return line.substr(name.size() + 1);
  }
  ADD_FAILURE() << "no line " << name;
  return "";
}

class ComposeFile : public ::testing::Test {
 protected:
  YAML::Node file = YAML::Load(content(kFolder / "docker-compose.yaml"));
  YAML::Node services = file["services"];

  // Where each service sees its volumes.
  std::set<std::string> mounts(const std::string& service) {
    std::set<std::string> out;
    for (const YAML::Node& volume : services[service]["volumes"]) {
      const auto text = volume.as<std::string>();
      const std::size_t first = text.find(':'), second = text.find(':', first + 1);
      out.insert(text.substr(first + 1, second == std::string::npos ? second : second - first - 1));
    }
    return out;
  }
  bool sees(const std::string& service, const std::string& path) {
    for (const std::string& mount : mounts(service)) {
      if (path == mount || path.starts_with(mount + "/")) return true;
    }
    return false;
  }
};

TEST_F(ComposeFile, HasOnlyKeysOfTheSpecification) {
  expect_known(file, {"name", "services", "volumes"}, "file");
  for (const char* name :
       {"postgres", "mosquitto", "valkey", "clickhouse", "registry", "flock-api"})
    EXPECT_TRUE(services[name]) << name;
  for (const auto& item : services) {
    const auto name = item.first.as<std::string>();
    expect_known(item.second,
                 {"build", "command", "depends_on", "entrypoint", "environment", "healthcheck",
                  "image", "ports", "restart", "user", "volumes"},
                 name);
    expect_known(item.second["healthcheck"], {"test", "interval", "retries"}, name);
    expect_known(item.second["build"], {"context", "dockerfile", "target"}, name);
    EXPECT_TRUE(item.second["image"]) << name;
    for (const YAML::Node& port : item.second["ports"])
      EXPECT_TRUE(port.as<std::string>().starts_with("127.0.0.1:")) << name;
  }
}

TEST_F(ComposeFile, RefersOnlyToWhatExists) {
  std::set<std::string> used;
  for (const auto& item : services) {
    const auto name = item.first.as<std::string>();
    for (const YAML::Node& volume : item.second["volumes"]) {
      const auto text = volume.as<std::string>();
      const std::string source = text.substr(0, text.find(':'));
      if (source.starts_with('.')) {
        EXPECT_TRUE(fs::is_regular_file(kFolder / source)) << name << ": " << source;
      } else {
        EXPECT_TRUE(keys(file["volumes"]).contains(source)) << name << ": " << source;
        used.insert(source);
      }
    }
    const YAML::Node wanted = item.second["depends_on"];
    for (const auto& dependency : wanted) {
      EXPECT_TRUE(services[dependency.first.as<std::string>()]) << name;
      const auto condition = dependency.second["condition"].as<std::string>();
      EXPECT_TRUE(condition == "service_started" || condition == "service_healthy" ||
                  condition == "service_completed_successfully")
          << name << ": " << condition;
      if (condition == "service_healthy")
        EXPECT_TRUE(services[dependency.first.as<std::string>()]["healthcheck"]) << name;
    }
    const YAML::Node build = item.second["build"];
    if (!build) continue;
    const fs::path context = kFolder / build["context"].as<std::string>();
    const std::string dockerfile = content(context / build["dockerfile"].as<std::string>());
    EXPECT_NE(dockerfile.find(" AS " + build["target"].as<std::string>() + "\n"), std::string::npos)
        << name;
  }
  EXPECT_EQ(used, keys(file["volumes"]));
}

TEST_F(ComposeFile, ItsDockerfileCopiesWhatExistsAndBuildsWhatItCopies) {
  const std::string dockerfile = content(kFolder / "Dockerfile");
  std::istringstream lines(dockerfile);
  std::string line;
  int copies = 0;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string word, from;
    words >> word;
    if (word != "COPY") continue;
    ++copies;
    std::vector<std::string> paths;
    while (words >> word) word.starts_with("--") ? void(from = word) : paths.push_back(word);
    ASSERT_GE(paths.size(), 2u) << line;
    for (std::size_t i = 0; i + 1 < paths.size(); ++i) {
      if (from.empty()) {
        EXPECT_TRUE(fs::exists(kRoot / paths[i])) << line;
      } else {
        // /src/build/release/ROOM/TARGET of a program that the build stage makes.
        const fs::path built = paths[i];
        EXPECT_TRUE(paths[i].starts_with("/src/build/release/")) << line;
        EXPECT_NE(dockerfile.find(built.stem().string()), std::string::npos);
        EXPECT_TRUE(
            fs::is_directory(kRoot / built.parent_path().lexically_relative("/src/build/release")))
            << line;
      }
    }
  }
  EXPECT_GE(copies, 4);
}

TEST_F(ComposeFile, FlockApiTakesItsConfiguration) {
  const fs::path path = kFolder / "compose" / "flock-api.yaml";
  testing::run_program({FLOCK_API, "--config", path.string(), "--check-config"});
  const YAML::Node config = YAML::Load(content(path));
  for (const char* at :
       {"postgres:5432", "mosquitto:8883", "registry:5000", "valkey:6379", "clickhouse:8123"}) {
    const std::string host = at;
    EXPECT_NE(content(path).find(host), std::string::npos) << host;
    EXPECT_TRUE(services[host.substr(0, host.find(':'))]) << host;
  }
  for (const auto& [section, key] :
       {std::pair{"postgres", "password_file"}, std::pair{"clickhouse", "password_file"},
        std::pair{"mqtt", "password_file"}, std::pair{"mqtt", "ca_file"},
        std::pair{"keys", "directory"}}) {
    const auto file_path = config[section][key].as<std::string>();
    EXPECT_TRUE(sees("flock-api", file_path)) << file_path;
    EXPECT_TRUE(sees("setup", file_path)) << file_path;
    EXPECT_NE(content(kFolder / "compose" / "setup.sh").find(file_path), std::string::npos)
        << "setup.sh does not make " << file_path;
  }
}

// Broker, registry and API must agree on who issues tokens.
TEST_F(ComposeFile, ItsPartsAgree) {
  const YAML::Node api = YAML::Load(content(kFolder / "compose" / "flock-api.yaml"));
  const std::string broker = content(kFolder / "compose" / "mosquitto.conf");
  const auto url = api["public_url"].as<std::string>();
  EXPECT_EQ(line_value(broker, "plugin_opt_issuer"), url);
  for (const char* name : {"password_file", "acl_file", "plugin_opt_jwks_file", "certfile",
                           "keyfile", "persistence_location"}) {
    const std::string path = line_value(broker, name);
    EXPECT_TRUE(sees("mosquitto", path)) << path;
  }
  EXPECT_NE(content(kFolder / "Dockerfile").find(line_value(broker, "plugin")), std::string::npos);
  const YAML::Node registry = YAML::Load(content(kFolder / "compose" / "registry.yml"));
  const YAML::Node token = registry["auth"]["token"];
  EXPECT_EQ(token["realm"].as<std::string>(), url + "/v1/registry/token");
  EXPECT_EQ(token["service"].as<std::string>(), api["registry"]["service"].as<std::string>());
  EXPECT_EQ(token["issuer"].as<std::string>(), "flock");
  EXPECT_TRUE(sees("registry", token["rootcertbundle"].as<std::string>()));
  for (const char* script : {"setup.sh", "postgres.sh"})
    testing::run_program({"bash", "-n", (kFolder / "compose" / script).string()});
}

}  // namespace
}  // namespace flock

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "workload/compose.h"

namespace flock::workload {
namespace {

Service only(const std::string& body) {
  const ComposeResult result =
      parse_compose("services:\n  web:\n    image: r.example/a/b:1\n" + body);
  return result.workload.services.at(0);
}

// The place of the first problem, or "" when the file is accepted.
std::string problem_of(const std::string& yaml) {
  try {
    parse_compose(yaml);
    return "";
  } catch (const Error& error) {
    return error.problems().empty() ? std::string(to_string(error.code()))
                                    : error.problems().front().pointer;
  }
}
std::string problem_in_service(const std::string& body) {
  return problem_of("services:\n  web:\n    image: r.example/a/b:1\n" + body);
}

TEST(Compose, ReadsTheSupportedKeys) {
  const Service s = only(R"(    command: serve --name "a b" 'c$$d'
    entrypoint: ["/bin/x", "y"]
    environment: {A: "1", B: two}
    ports: ["8080:80", "127.0.0.1:53:53/udp", "7000-7001:9000-9001"]
    volumes: ["/etc/x:/x:ro", "data:/data"]
    tmpfs: /tmp
    restart: on-failure:3
    healthcheck: {test: ["CMD", "/x"], interval: 2s, retries: 5}
    cap_add: [NET_ADMIN]
    devices: ["/dev/ttyUSB0"]
    mem_limit: 1.5g
    cpus: 0.5
    stop_grace_period: 1m30s
    read_only: true
    extra_hosts: ["a=1.2.3.4"]
volumes:
  data:
)");
  EXPECT_EQ(*s.command, (std::vector<std::string>{"serve", "--name", "a b", "c$d"}));
  EXPECT_EQ(s.entrypoint->size(), 2u);
  EXPECT_EQ(s.environment.at("B"), "two");
  ASSERT_EQ(s.ports.size(), 4u);
  EXPECT_EQ(s.ports[1].host_ip, "127.0.0.1");
  EXPECT_EQ(s.ports[1].protocol, "udp");
  EXPECT_EQ(s.ports[3].host_port, 7001);
  EXPECT_EQ(s.ports[3].container_port, 9001);
  ASSERT_EQ(s.mounts.size(), 3u);
  EXPECT_EQ(s.max_retries, 3);
  EXPECT_EQ(s.healthcheck->retries, 5);
  EXPECT_EQ(s.memory_bytes, 1610612736);
  EXPECT_EQ(s.stop_grace, Duration(90'000));
  EXPECT_TRUE(s.read_only);
  EXPECT_EQ(s.extra_hosts.at(0), "a:1.2.3.4");
}

TEST(Compose, NamesWhatItRefusesByItsPath) {
  const std::pair<const char*, const char*> cases[] = {
      {"    build: .\n", "/services/web/build"},
      {"    container_name: x\n", "/services/web/container_name"},
      {"    nonsense: 1\n", "/services/web/nonsense"},
      {"    ports: [\"x\"]\n", "/services/web/ports/0"},
      {"    ports: [\"1:2:3:4:5\"]\n", "/services/web/ports/0"},
      {"    ports: [\"70000\"]\n", "/services/web/ports/0"},
      {"    volumes: [\"./a:/a\"]\n", "/services/web/volumes/0"},
      {"    volumes: [\"data:/a\"]\n", "/services/web/volumes"},
      {"    volumes: [\"/a:b\"]\n", "/services/web/volumes/0"},
      {"    environment: [\"A=${HOME}\"]\n", "/services/web/environment/0"},
      {"    environment: {A: }\n", "/services/web/environment/A"},
      {"    restart: sometimes\n", "/services/web/restart"},
      {"    depends_on: [db]\n", "/services/web/depends_on"},
      {"    depends_on: [web]\n", "/services/web/depends_on"},
      {"    healthcheck: {interval: 5s}\n", "/services/web/healthcheck/test"},
      {"    healthcheck: {test: x, interval: fast}\n", "/services/web/healthcheck/interval"},
      {"    mem_limit: much\n", "/services/web/mem_limit"},
      {"    network_mode: weave\n", "/services/web/network_mode"},
      {"    network_mode: host\n    ports: [\"80:80\"]\n", "/services/web/ports"},
      {"    privileged: yes please\n", "/services/web/privileged"},
      {"    labels: {io.flock.managed: \"true\"}\n", "/services/web/labels/io.flock.managed"},
      {"    networks: [other]\n", "/services/web/networks"},
      {"    deploy: {replicas: 2}\n", "/services/web/deploy/replicas"},
      {"    image: twice\n", "/services/web/image"},
  };
  for (const auto& [body, pointer] : cases) EXPECT_EQ(problem_in_service(body), pointer) << body;
}

TEST(Compose, RefusesWhatIsNoComposeFile) {
  for (const char* bad :
       {"[1, 2]", "text", "services: [a]", "services: {}", "services: {web: {}}", "{{{{",
        "services: {web: {image: [x]}}", "services: {\"a b\": {image: x}}", "a: &a [*a]"}) {
    EXPECT_THROW(parse_compose(bad), Error) << bad;
  }
  EXPECT_THROW(parse_compose(std::string(300 * 1024, '#')), Error);
  EXPECT_THROW(parse_compose(std::string(10'000, '[')), Error);
  std::string bomb = "x-a: &a [1,2,3,4,5,6,7,8,9]\n";
  for (char c = 'b'; c < 'h'; ++c) {
    const std::string previous(1, static_cast<char>(c - 1));
    bomb += "x-" + std::string(1, c) + ": &" + c + " [*" + previous + ",*" + previous + ",*" +
            previous + ",*" + previous + ",*" + previous + ",*" + previous + "]\n";
  }
  EXPECT_THROW(parse_compose(bomb + "services: {web: {image: x}}\n"), Error);
}

TEST(Compose, FindsEveryProblemAtOnce) {
  try {
    parse_compose("services:\n  a: {image: x, build: ., ports: [z]}\n  b: {restart: never}\n");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.problems().size(), 4u) << error.describe();
  }
}

TEST(Compose, TellsWhatItIgnores) {
  const ComposeResult result =
      parse_compose("version: '3'\nservices:\n  web: {image: x, logging: {driver: none}}\n");
  EXPECT_EQ(result.notes.size(), 2u);
}

TEST(Workload, ComesBackFromItsJson) {
  Workload workload =
      parse_compose(
          "services:\n  a: {image: x, ports: ['80:80'], depends_on: {b: {condition: "
          "service_healthy, required: false}}, restart: 'no', command: []}\n  b: {image: y, "
          "healthcheck: {test: true}, networks: [n]}\nnetworks: {n: {internal: true}}\n")
          .workload;
  workload.services[0].digests = {{"linux/amd64", "sha256:1"}};
  const std::string text = to_json(workload);
  EXPECT_EQ(to_json(from_json(text)), text);
  EXPECT_TRUE(from_json(text).services[0].command.has_value());
  EXPECT_FALSE(from_json(text).services[0].entrypoint.has_value());
  EXPECT_THROW(from_json("{\"services\":[1]}"), Error);
  EXPECT_THROW(from_json("x"), Error);
}

}  // namespace
}  // namespace flock::workload

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "workload/compose.h"

namespace flock::workload {
namespace {

using namespace std::string_literals;

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

// Everything else that compose-spec 2026 lets a service say. None may be dropped silently.
TEST(Compose, RefusesEveryOtherKeyOfTheSpecByItsPath) {
  for (const char* key : {"annotations",
                          "attach",
                          "blkio_config",
                          "build",
                          "cgroup",
                          "cgroup_parent",
                          "configs",
                          "container_name",
                          "cpu_count",
                          "cpu_percent",
                          "cpu_period",
                          "cpu_quota",
                          "cpu_rt_period",
                          "cpu_rt_runtime",
                          "cpu_shares",
                          "cpuset",
                          "credential_spec",
                          "develop",
                          "device_cgroup_rules",
                          "dns",
                          "dns_opt",
                          "dns_search",
                          "domainname",
                          "driver_opts",
                          "env_file",
                          "expose",
                          "extends",
                          "external_links",
                          "gpus",
                          "group_add",
                          "ipc",
                          "isolation",
                          "label_file",
                          "links",
                          "mac_address",
                          "mem_swappiness",
                          "memswap_limit",
                          "models",
                          "oom_kill_disable",
                          "oom_score_adj",
                          "pid",
                          "platform",
                          "post_start",
                          "pre_stop",
                          "profiles",
                          "provider",
                          "pull_policy",
                          "runtime",
                          "scale",
                          "secrets",
                          "security_opt",
                          "shm_size",
                          "stdin_open",
                          "storage_opt",
                          "sysctls",
                          "tty",
                          "ulimits",
                          "use_api_socket",
                          "userns_mode",
                          "uts",
                          "volumes_from"}) {
    EXPECT_EQ(problem_in_service("    " + std::string(key) + ": x\n"),
              "/services/web/" + std::string(key));
  }
  for (const char* key : {"configs", "secrets", "include", "models"}) {
    EXPECT_EQ(problem_of("services: {web: {image: x}}\n" + std::string(key) + ": {a: {}}\n"),
              "/" + std::string(key));
  }
}

TEST(Compose, RefusesOptionsInsideWhatItSupports) {
  const std::pair<const char*, const char*> cases[] = {
      {"    ports: [{target: 80, published: 8000-8010}]\n", "/services/web/ports/0/published"},
      {"    ports: [{target: 80, published: x}]\n", "/services/web/ports/0/published"},
      {"    ports: [{target: 80, protocol: icmp}]\n", "/services/web/ports/0/protocol"},
      {"    ports: [{target: 80, mode: ingress}]\n", "/services/web/ports/0/mode"},
      {"    ports: [{target: 80, host_ip: eth0}]\n", "/services/web/ports/0/host_ip"},
      {"    ports: [{target: 80, app_protocol: http}]\n", "/services/web/ports/0/app_protocol"},
      {"    ports: [{target: 80-90}]\n", "/services/web/ports/0/target"},
      {"    volumes: [{type: volume, source: data, target: /d, volume: {nocopy: true}}]\n",
       "/services/web/volumes/0/volume"},
      {"    volumes: [{type: npipe, source: a, target: /d}]\n", "/services/web/volumes/0/type"},
      {"    volumes: [{type: tmpfs, target: /d, tmpfs: {mode: 7}}]\n",
       "/services/web/volumes/0/tmpfs"},
      {"    volumes: [\"/a:/b:ro,z\"]\n", "/services/web/volumes/0"},
      {"    tmpfs: [\"/run:mode=755\"]\n", "/services/web/tmpfs/0"},
      {"    tmpfs: run\n", "/services/web/tmpfs"},
      {"    healthcheck: {test: x, start_interval: 1s}\n",
       "/services/web/healthcheck/start_interval"},
      {"    healthcheck: {test: x, retries: 2.5}\n", "/services/web/healthcheck/retries"},
      {"    healthcheck: {test: [CMD]}\n", "/services/web/healthcheck/test"},
      {"    healthcheck: {test: [RUN, x]}\n", "/services/web/healthcheck/test"},
      {"    healthcheck: {test: x, interval: 10ms}\n", "/services/web/healthcheck/interval"},
      {"    depends_on: {web2: {condition: service_happy}}\n",
       "/services/web/depends_on/web2/condition"},
      {"    depends_on: {web2: {restart: true}}\n", "/services/web/depends_on/web2/restart"},
      {"    networks: {default: {aliases: [x]}}\n", "/services/web/networks/default"},
      {"    devices: [\"ttyUSB0\"]\n", "/services/web/devices/0"},
      {"    devices: [\"/dev/a:/dev/a:x\"]\n", "/services/web/devices/0"},
      {"    devices: [\"/dev/a:/dev/a:\"]\n", "/services/web/devices/0"},
      {"    deploy: {resources: {limits: {devices: []}}}\n",
       "/services/web/deploy/resources/limits/devices"},
      {"    deploy: {resources: {reservations: {cpus: 1}}}\n",
       "/services/web/deploy/resources/reservations/cpus"},
      {"    deploy: {restart_policy: {}}\n", "/services/web/deploy/restart_policy"},
      {"    pids_limit: 1.5\n", "/services/web/pids_limit"},
      {"    cpus: -1\n", "/services/web/cpus"},
      {"    cpus: nan\n", "/services/web/cpus"},
      {"    mem_limit: -5m\n", "/services/web/mem_limit"},
      {"    stop_grace_period: 10\n", "/services/web/stop_grace_period"},
      {"    network_mode: \"service:gone\"\n", "/services/web/network_mode"},
      {"    network_mode: \"container:x\"\n", "/services/web/network_mode"},
      {"    network_mode: host\n    networks: [default]\n", "/services/web/networks"},
      {"    extra_hosts: [alone]\n", "/services/web/extra_hosts"},
      {"    user: [root]\n", "/services/web/user"},
      {"    init: 1\n", "/services/web/init"},
      {"    command: \"a 'b\"\n", "/services/web/command"},
      {"    image: {a: b}\n", "/services/web/image"},
      {"    <<: {init: true}\n", "/services/web/<<"},
      {"    environment: {A: 1, A: 2}\n", "/services/web/environment/A"},
      {"    environment: {\"a/b~c\": }\n", "/services/web/environment/a~1b~0c"},
      {"    labels: {\"io.flock.x/y\": \"1\"}\n", "/services/web/labels/io.flock.x~1y"},
  };
  for (const auto& [body, pointer] : cases) EXPECT_EQ(problem_in_service(body), pointer) << body;

  const std::pair<const char*, const char*> files[] = {
      {"services: {web: {image: x}, web: {image: y}}", "/services/web"},
      {"services: {web: {image: x}}\nvolumes: {d: text}", "/volumes/d"},
      {"services: {web: {image: x}}\nvolumes: {d: {external: true}}", "/volumes/d"},
      {"services: {web: {image: x}}\nvolumes: {d: , d: }", "/volumes/d"},
      {"services: {web: {image: x}}\nnetworks: {n: text}", "/networks/n"},
      {"services: {web: {image: x}}\nnetworks: {n: , n: }", "/networks/n"},
      {"services: {web: {image: x}}\nnetworks: {n: {driver: overlay}}", "/networks/n/driver"},
      {"services: {web: {image: x}}\nnetworks: {n: {ipam: {}}}", "/networks/n/ipam"},
      {"services: {web: {image: x}}\nservices: {db: {image: x}}", "/services"},
      {"services: {web: {image: x}}\n---\nservices: {db: {image: x}}", ""},
      {"services: {web: {image: x, depends_on: [db]}, db: {image: y, depends_on: [web]}}",
       "/services/db/depends_on"},
  };
  for (const auto& [text, pointer] : files) {
    EXPECT_THROW(parse_compose(text), Error) << text;
    EXPECT_EQ(problem_of(text), pointer) << text;
  }
}

// Every key of the subset, each in every form that is written: through the canonical JSON and back
// nothing is lost.
TEST(Compose, KeepsEverySupportedKeyThroughItsJson) {
  const ComposeResult result = parse_compose(R"(
name: all
services:
  db: {image: "r.example/db:1"}
  web:
    image: r.example/web:1
    command: [serve, --port, "80"]
    entrypoint: /bin/entry "a b"
    environment: [A=1, "B=x=y", "C="]
    labels: {tier: front}
    ports:
      - "8080:80"
      - "[::1]:53:53/udp"
      - {target: 90, published: "9090", protocol: sctp, host_ip: 127.0.0.1}
      - "7000"
    volumes:
      - data:/data
      - /etc/x:/x:ro
      - /anonymous
      - {type: bind, source: /var/y, target: /y, read_only: true}
      - {type: tmpfs, target: /t, tmpfs: {size: 64m}}
    tmpfs: ["/run:size=1m", /tmp]
    restart: on-failure:7
    healthcheck: {test: [CMD-SHELL, "exit 0"], interval: 5s, timeout: 2s, start_period: 1m, retries: 9}
    depends_on: {db: {condition: service_completed_successfully, required: false}}
    networks: {front: , default: }
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    devices: ["/dev/ttyUSB0:/dev/tty:rw"]
    privileged: true
    read_only: true
    init: true
    mem_limit: 1g
    mem_reservation: 512m
    cpus: 1.5
    pids_limit: 100
    stop_grace_period: 1m30s
    stop_signal: SIGINT
    user: "1000:1000"
    working_dir: /srv
    hostname: web-1
    extra_hosts: {gw: 10.0.0.1}
    logging: {driver: syslog}
  host: {image: x, network_mode: "service:web", restart: "no", deploy: {resources: {limits: {memory: 2g, cpus: "0.5", pids: 9}, reservations: {memory: 1g}}}}
volumes: {data: }
networks: {front: {driver: bridge, internal: true}}
)");
  ASSERT_EQ(result.notes.size(), 2u);
  const std::string text = to_json(result.workload);
  EXPECT_EQ(to_json(from_json(text)), text);
  EXPECT_EQ(
      text,
      R"({"networks":[{"internal":true,"name":"front"}],)"
      R"("services":[{"image":"r.example/db:1","name":"db","restart":1,"stop_grace_ms":10000},)"
      R"({"cpus":5E-1,"image":"x","memory_bytes":2147483648,"memory_reservation_bytes":1073741824,"name":"host","network_mode":"service:web","pids":9,"restart":0,"stop_grace_ms":10000},)"
      R"({"cap_add":["NET_ADMIN"],"cap_drop":["ALL"],)"
      R"("command":["serve","--port","80"],"cpus":1.5E0,"depends_on":[{"condition":2,"optional":true,"service":"db"}],"devices":[{"container_path":"/dev/tty","host_path":"/dev/ttyUSB0","permissions":"rw"}],"entrypoint":["/bin/entry","a b"],)"
      R"("environment":{"A":"1","B":"x=y","C":""},"extra_hosts":["gw:10.0.0.1"],)"
      R"("healthcheck":{"interval_ms":5000,"retries":9,"start_period_ms":60000,"test":["CMD-SHELL","exit 0"],"timeout_ms":2000},"hostname":"web-1","image":"r.example/web:1","init":true,"labels":{"tier":"front"},"max_retries":7,"memory_bytes":1073741824,"memory_reservation_bytes":536870912,)"
      R"("mounts":[{"kind":0,"source":"data","target":"/data"},{"kind":1,"read_only":true,"source":"/etc/x","target":"/x"},{"kind":0,"target":"/anonymous"},{"kind":1,"read_only":true,"source":"/var/y","target":"/y"},{"kind":2,"size_bytes":67108864,"target":"/t"},{"kind":2,"size_bytes":1048576,"target":"/run"},{"kind":2,"target":"/tmp"}],"name":"web","networks":["front","default"],"pids":100,)"
      R"("ports":[{"container_port":80,"host_port":8080,"protocol":"tcp"},{"container_port":53,"host_ip":"::1","host_port":53,"protocol":"udp"},{"container_port":90,"host_ip":"127.0.0.1","host_port":9090,"protocol":"sctp"},{"container_port":7000,"protocol":"tcp"}],)"
      R"("privileged":true,"read_only":true,"restart":2,"stop_grace_ms":90000,"stop_signal":"SIGINT","user":"1000:1000","working_dir":"/srv"}],"volumes":["data"]})");
}

TEST(Compose, LeavesTheImagesOwnCommandWhereNoneIsGiven) {
  EXPECT_FALSE(only("    command:\n").command);  // compose-spec: null is the image's
  EXPECT_FALSE(only("    entrypoint: null\n").entrypoint);
  EXPECT_EQ(only("    command: []\n").command, std::vector<std::string>{});
  EXPECT_EQ(only("    command: \"\"\n").command, std::vector<std::string>{});
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

TEST(Compose, StaysCheapForHostileYaml) {
  const auto refused = [](const std::string& text) {
    EXPECT_THROW(parse_compose(text), Error) << text.substr(0, 60);
  };
  std::string laughs = "x-a: &a {k: 1, l: 2}\n";
  for (char c = 'b'; c < 'k'; ++c) {
    const std::string previous(1, static_cast<char>(c - 1));
    laughs += "x-" + std::string(1, c) + ": &" + c + " {a: *" + previous + ", b: *" + previous +
              ", c: *" + previous + ", d: *" + previous + "}\n";
  }
  refused(laughs + "services: {web: {image: x}}\n");
  std::string staircase = "services:";
  for (int i = 1; i < 300; ++i)
    staircase += "\n" + std::string(static_cast<std::size_t>(i), ' ') + "a:";
  refused(staircase);
  std::string dashes;
  for (int i = 0; i < 50'000; ++i) dashes += "-\t";
  refused(dashes);
  std::string questions;
  for (int i = 0; i < 50'000; ++i) questions += "?\t";
  refused(questions);
  // The fuzzer's: yaml-cpp's LoadAll() never returns from it.
  refused("# o,.\n,erviervicin.\nservices:\n  hel:___________:\n\0   igrac_period: =3s\n"s);
  std::string many = "services:\n";
  for (int i = 0; i < 101; ++i) many += "  s" + std::to_string(i) + ": {image: x}\n";
  refused(many);
  std::string ports = "services:\n  web:\n    image: x\n    ports:\n";
  for (int i = 0; i < 200; ++i) ports += "      - \"1-1001:1-1001\"\n";
  EXPECT_EQ(problem_of(ports), "/services/web/ports");
  refused("services: {web: {image: \"" + std::string(40'000, 'a') + "\"}}");
  // A hundred thousand problems would be an answer larger than the question.
  std::string wrong = "services:\n  web:\n    image: x\n";
  for (int i = 0; i < 15'000; ++i) wrong += "    k" + std::to_string(i) + ":\n";
  try {
    parse_compose(wrong);
    FAIL();
  } catch (const Error& error) {
    EXPECT_LE(error.problems().size(), 101u);
  }
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

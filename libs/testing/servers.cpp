// SPDX-License-Identifier: Apache-2.0
#include "testing/servers.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace flock::testing {
namespace {

bool is_root() { return ::geteuid() == 0; }

// Puts a command under another user where we are root and the program refuses to be.
std::vector<std::string> as_user(const std::string& user, std::vector<std::string> command) {
  if (!is_root()) return command;
  std::vector<std::string> full{"setpriv", "--reuid=" + user, "--regid=" + user, "--clear-groups"};
  full.insert(full.end(), command.begin(), command.end());
  return full;
}

void give_to(const std::string& user, const std::string& path) {
  if (is_root()) run_program({"chown", "-R", user + ":" + user, path});
}

}  // namespace

bool require(const std::vector<std::string>& programs) {
  for (const std::string& program : programs) {
    if (!find_program({program}).empty()) continue;
    const char* strict = std::getenv("FLOCK_REQUIRE_SERVICES");
    if (strict != nullptr && std::string_view(strict) == "1") {
      throw Error(Code::kNotFound, "program is not installed")
          .with("program", program)
          .hint("./dev setup");
    }
    return false;
  }
  return true;
}

void Postgres::start() {
  const std::string data = dir_.file("data"), socket = dir_.file("socket");
  const bool fresh = !std::filesystem::exists(data);
  if (fresh) {
    for (const std::string& folder : {data, socket}) {
      std::filesystem::create_directory(folder);
      ::chmod(folder.c_str(), 0700);
      give_to("postgres", folder);
    }
    dir_.write("password", "test-password\n");
    run_program(as_user(
        "postgres", {find_program({"initdb"}), "-D", data, "-U", "postgres", "--auth-local=trust",
                     "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"}));
  }
  process_.start(
      as_user("postgres",
              {find_program({"postgres"}), "-D", data, "-p", std::to_string(port_), "-k", socket,
               "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=32MB"}),
      log());
  const auto answers = [&] {
    try {
      execute("select 1");
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  wait_until("PostgreSQL answers", answers, 30);
  if (fresh) {
    execute("CREATE ROLE flock LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD 'test-password'");
    execute("CREATE DATABASE flock OWNER flock");
  }
}

std::string Postgres::url() const {
  return "postgresql://flock@127.0.0.1:" + std::to_string(port_) + "/flock";
}

void Postgres::execute(const std::string& sql) const {
  run_program({"psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", dir_.file("socket"), "-p",
               std::to_string(port_), "-U", "postgres", "postgres"},
              sql);
}

void Mosquitto::start() {
  std::string config =
      "per_listener_settings false\nmax_inflight_messages 1000\nmax_queued_messages "
      "100000\npersistence true\npersistence_location " +
      dir_.path() + "/\n";
  if (is_root()) config = "user mosquitto\n" + config;
  std::string tls;
  if (!options_.tls_certificate_pem.empty()) {
    tls = "certfile " + dir_.write("cert.pem", options_.tls_certificate_pem) + "\nkeyfile " +
          dir_.write("key.pem", options_.tls_key_pem) + "\n";
  }
  config += "listener " + std::to_string(port_) + " 127.0.0.1\n" + tls;
  if (options_.websockets) {
    config +=
        "listener " + std::to_string(websocket_port_) + " 127.0.0.1\nprotocol websockets\n" + tls;
  }
  config += options_.extra.empty() ? "allow_anonymous true\n" : options_.extra;
  dir_.write("mosquitto.conf", config);
  give_to("mosquitto", dir_.path());
  process_.start({"mosquitto", "-c", dir_.file("mosquitto.conf")}, log());
  wait_until("Mosquitto listens", [&] {
    return port_open(port_) && (!options_.websockets || port_open(websocket_port_));
  });
}

std::string Mosquitto::url() const {
  return (options_.tls_certificate_pem.empty() ? "mqtt://127.0.0.1:" : "mqtts://127.0.0.1:") +
         std::to_string(port_);
}

std::string Mosquitto::websocket_url() const {
  return (options_.tls_certificate_pem.empty() ? "ws://127.0.0.1:" : "wss://127.0.0.1:") +
         std::to_string(websocket_port_);
}

// One PING over a socket of its own.
static bool answers_ping(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  char answer[5] = {};
  const bool pong =
      ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
      ::send(fd, "PING\r\n", 6, MSG_NOSIGNAL) == 6 && ::recv(fd, answer, 5, MSG_WAITALL) == 5 &&
      std::string_view(answer, 5) == "+PONG";
  ::close(fd);
  return pong;
}

void Valkey::start() {
  const std::string program = find_program({"valkey-server", "redis-server"});
  if (program.empty())
    throw Error(Code::kNotFound, "neither valkey-server nor redis-server is installed");
  process_.start({program, "--port", std::to_string(port_), "--bind", "127.0.0.1", "--dir",
                  dir_.path(), "--appendonly", "yes", "--save", ""},
                 log());
  // It listens before it has read its file, and answers LOADING meanwhile.
  wait_until("Valkey answers", [&] { return port_open(port_) && answers_ping(port_); });
}

void ClickHouse::start() {
  const std::string root = "<path>" + dir_.file("data") + "/</path><tmp_path>" + dir_.file("tmp") +
                           "/</tmp_path><user_files_path>" + dir_.file("files") +
                           "/</user_files_path><format_schema_path>" + dir_.file("schemas") +
                           "/</format_schema_path>";
  dir_.write("config.xml",
             "<yandex><logger><level>warning</level><console>1</console></logger><http_port>" +
                 std::to_string(port_) + "</http_port><tcp_port>" + std::to_string(native_port_) +
                 "</tcp_port><listen_host>127.0.0.1</listen_host>" + root +
                 "<users_config>users.xml</users_config><default_profile>default</default_profile>"
                 "<default_database>default</default_database>"
                 "<mark_cache_size>67108864</mark_cache_size>"
                 // What was merged goes soon: else a lively test leaves 100,000 files to remove.
                 "<merge_tree><old_parts_lifetime>10</old_parts_lifetime>"
                 "<cleanup_delay_period>5</cleanup_delay_period></merge_tree>"
                 "<uncompressed_cache_size>0</uncompressed_cache_size></yandex>");
  dir_.write("users.xml",
             "<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default>"
             "<password>" +
                 password() +
                 "</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>"
                 "<quota>default</quota></default></users></yandex>");
  give_to("clickhouse", dir_.path());
  process_.start(as_user("clickhouse", {find_program({"clickhouse-server"}),
                                        "--config-file=" + dir_.file("config.xml")}),
                 log());
  // The ports open when the tables are loaded.
  wait_until("ClickHouse listens", [&] { return port_open(port_) && port_open(native_port_); });
}

void Registry::start() {
  dir_.write("config.yml",
             "version: 0.1\nstorage: {filesystem: {rootdirectory: " + dir_.file("store") +
                 "}, delete: {enabled: true}}\nhttp: {addr: '" + host() + "'}\n" + auth_);
  process_.start({"docker-registry", "serve", dir_.file("config.yml")}, log());
  wait_until("the registry listens", [&] { return port_open(port_); });
}

}  // namespace flock::testing

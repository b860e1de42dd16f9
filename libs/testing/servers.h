// SPDX-License-Identifier: Apache-2.0
// The real servers, each private, on a free loopback port, with its data in a TempDir. A missing
// program fails the test when FLOCK_REQUIRE_SERVICES=1 and skips it otherwise (require()).
#pragma once

#include <csignal>
#include <string>
#include <vector>

#include "testing/process.h"

namespace flock::testing {

// True when all are installed; false means: GTEST_SKIP(). Throws where services are required.
bool require(const std::vector<std::string>& programs);

class Server {
 public:
  virtual ~Server() = default;
  virtual void start() = 0;
  void stop() { process_.stop(); }
  void kill9() { process_.stop(9); }
  void pause() { process_.signal(SIGSTOP); }
  void resume() { process_.signal(SIGCONT); }
  int port() const noexcept { return port_; }
  pid_t pid() const noexcept { return process_.pid(); }
  std::string log() const { return dir_.file("log"); }

 protected:
  TempDir dir_;
  Process process_;
  int port_ = free_port();
};

class Postgres final : public Server {
 public:
  void start() override;
  // Role `flock`: no superuser, no BYPASSRLS; owner of the database `flock`. The password is in
  // password_file().
  std::string url() const;
  std::string password_file() const { return dir_.file("password"); }
  // As the superuser, by psql.
  void execute(const std::string& sql) const;
};

class Mosquitto final : public Server {
 public:
  struct Options {
    std::string tls_certificate_pem, tls_key_pem;  // set: TLS
    std::string extra;        // lines of mosquitto.conf; without any, anonymous is allowed
    bool websockets = false;  // a second listener, with the same TLS
  };
  Mosquitto() = default;
  explicit Mosquitto(Options options) : options_(std::move(options)) {}
  void start() override;
  std::string url() const;
  std::string websocket_url() const;  // ws:// or wss://, without a path
  const TempDir& dir() const { return dir_; }

 private:
  Options options_;
  int websocket_port_ = free_port();
};

class Valkey final : public Server {
 public:
  void start() override;
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
};

class ClickHouse final : public Server {
 public:
  void start() override;
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  // Of the user `default`.
  static std::string password() { return "test-password"; }
  int native_port() const noexcept { return native_port_; }  // for clickhouse-client

 private:
  int native_port_ = free_port();
};

class Registry final : public Server {
 public:
  // `auth`: YAML lines of the `auth:` section, or none.
  explicit Registry(std::string auth = "") : auth_(std::move(auth)) {}
  void start() override;
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  std::string auth_;
};

// The development OpenID provider of flock-local/oidc on Node. Keys outlive a restart.
class OidcProvider final : public Server {
 public:
  void start() override;
  std::string issuer() const { return "http://127.0.0.1:" + std::to_string(port_); }
  static std::string audience() { return "https://api.flock.local"; }
  // Signs `user` in by a whole device flow; the answer is the token endpoint's JSON. Blocks. Throws
  // Error{kInternal}.
  std::string sign_in(const std::string& user) const;
  // The access token of that answer.
  std::string access_token(const std::string& user) const;
  // Throws the keys away; the next start() makes others.
  void forget_keys();
};

// A Podman service on a store of its own: the runtime of one test device. Needs root. Everything it
// made (containers, networks, mounts) goes with the object.
class Podman final : public Server {
 public:
  // `store`: where images and containers lie, e.g. a small file system; default: a folder of its
  // own.
  explicit Podman(std::string store = "");
  ~Podman() override;
  void start() override;
  std::string socket() const { return dir_.file("podman.sock"); }
  // `podman arguments...` on this store; returns what it printed. Throws Error{kInternal}.
  std::string run(const std::vector<std::string>& arguments) const;
  // Builds an image FROM scratch whose one file is the static C program `source` as /app; returns
  // "localhost/NAME@sha256:...". `lines`: more of the Containerfile, e.g. "ENV A=b".
  std::string build(const std::string& name, const std::string& source,
                    const std::string& lines = "") const;

 private:
  std::vector<std::string> environment() const;
  std::string store_;
};

}  // namespace flock::testing

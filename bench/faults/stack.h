// SPDX-License-Identifier: Apache-2.0
// The servers that the fault suites break, each private, and flock-api as processes of their own.
#pragma once

#include <string>
#include <vector>

#include "mqtt/client.h"
#include "stores/postgres/database.h"
#include "stores/time_series/time_series.h"
#include "testing/servers.h"

namespace flock::faults {

struct Stack {
  Stack();
  postgres::Options database() const;
  stores::ClickHouseOptions time_series() const;
  mqtt::ClientOptions bus(const std::string& id) const;

  testing::Postgres postgres;
  testing::Mosquitto mosquitto;
  testing::Valkey valkey;
  testing::ClickHouse clickhouse;
  testing::TempDir dir;
  std::string clickhouse_password_file;
};

// The servers as a program finds them: something may stand before them.
struct Ports {
  int postgres = 0, broker = 0;  // 0: the server's own
};

class Program {
 public:
  Program(const Stack& stack, std::string name, std::vector<std::string> more = {},
          std::string targets = "ingester", Ports ports = {})
      : stack_(stack),
        name_(std::move(name)),
        more_(std::move(more)),
        targets_(std::move(targets)),
        ports_(ports) {}
  void start();
  void kill9() { process_.stop(SIGKILL); }
  void pause() { process_.signal(SIGSTOP); }
  void resume() { process_.signal(SIGCONT); }
  void stop() { process_.stop(); }
  pid_t pid() const noexcept { return process_.pid(); }
  std::string admin() const { return "http://127.0.0.1:" + std::to_string(admin_); }
  std::string log() const { return stack_.dir.file(name_ + ".log"); }
  // Where an ingester keeps what the time series cannot take.
  std::string spool() const { return stack_.dir.file("ingester-" + name_); }

 private:
  const Stack& stack_;
  const std::string name_;
  const std::vector<std::string> more_;
  const std::string targets_;
  const Ports ports_;
  const int admin_ = testing::free_port();
  testing::Process process_;
};

// Until it answers that it is ready. Error{kTimeout} with its log after a minute.
Task<void> until_ready(const Program& program);

}  // namespace flock::faults

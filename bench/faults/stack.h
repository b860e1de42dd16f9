// SPDX-License-Identifier: Apache-2.0
// The servers that the fault suite breaks, each private, and ingesters as processes of their own.
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

class Ingester {
 public:
  Ingester(const Stack& stack, std::string name, std::vector<std::string> more = {})
      : stack_(stack), name_(std::move(name)), more_(std::move(more)) {}
  void start();
  void kill9() { process_.stop(SIGKILL); }
  void pause() { process_.signal(SIGSTOP); }
  void resume() { process_.signal(SIGCONT); }
  void stop() { process_.stop(); }
  std::string admin() const { return "http://127.0.0.1:" + std::to_string(admin_); }
  std::string log() const { return stack_.dir.file(name_ + ".log"); }
  // Where it keeps what the time series cannot take.
  std::string spool() const { return stack_.dir.file("ingester-" + name_); }

 private:
  const Stack& stack_;
  const std::string name_;
  const std::vector<std::string> more_;
  const int admin_ = testing::free_port();
  testing::Process process_;
};

}  // namespace flock::faults

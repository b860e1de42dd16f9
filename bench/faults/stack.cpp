// SPDX-License-Identifier: Apache-2.0
#include "faults/stack.h"

#include <stdlib.h>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "net/http_client.h"

namespace flock::faults {

// The broker keeps its sessions on disk as often as flock-local's does.
Stack::Stack()
    : mosquitto(testing::Mosquitto::Options{
          "", "", "allow_anonymous true\nautosave_interval 5\nmax_packet_size 4194304\n", false}) {
  postgres.start();
  mosquitto.start();
  valkey.start();
  clickhouse.start();
  clickhouse_password_file = dir.write("clickhouse", testing::ClickHouse::password());
  testing::run_program({FLOCK_API_PROGRAM, "generate-keys", dir.file("keys")});
}

postgres::Options Stack::database() const {
  postgres::Options options;
  options.url = postgres.url();
  options.password = Secret(read_secret_file(postgres.password_file()));
  return options;
}

stores::ClickHouseOptions Stack::time_series() const {
  stores::ClickHouseOptions options;
  options.url = clickhouse.url();
  options.password = testing::ClickHouse::password();
  return options;
}

mqtt::ClientOptions Stack::bus(const std::string& id) const {
  mqtt::ClientOptions options;
  options.url = mosquitto.url();
  options.client_id = id;
  return options;
}

void Program::start() {
  const std::string postgres =
      ports_.postgres == 0
          ? stack_.postgres.url()
          : "postgresql://flock@127.0.0.1:" + std::to_string(ports_.postgres) + "/flock";
  const std::string broker = ports_.broker == 0
                                 ? stack_.mosquitto.url()
                                 : "mqtt://127.0.0.1:" + std::to_string(ports_.broker);
  std::vector<std::string> command{FLOCK_API_PROGRAM,
                                   "--target=" + targets_,
                                   "--postgres.url=" + postgres,
                                   "--postgres.password_file=" + stack_.postgres.password_file(),
                                   "--live_state.address=" + stack_.valkey.address(),
                                   "--mqtt.url=" + broker,
                                   "--clickhouse.url=" + stack_.clickhouse.url(),
                                   "--clickhouse.password_file=" + stack_.clickhouse_password_file,
                                   "--keys.directory=" + stack_.dir.file("keys"),
                                   "--registry.url=http://127.0.0.1:1",
                                   "--admin.listen=127.0.0.1:" + std::to_string(admin_),
                                   "--audit.directory=" + stack_.dir.file("audit"),
                                   "--audit.spool_directory=" + stack_.dir.file("audit-spool"),
                                   "--ingester.spool_directory=" + spool()};
  command.insert(command.end(), more_.begin(), more_.end());
  ::setenv("FLOCK_REPLICA", name_.c_str(), 1);
  process_.start(command, log());
  ::unsetenv("FLOCK_REPLICA");
}

Task<void> until_ready(const Program& program) {
  net::HttpClient http(co_await asio::this_coro::executor, {});
  const SteadyPoint end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (;;) {
    try {
      if ((co_await http.get(program.admin() + "/readyz")).status == 200) co_return;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
    }
    if (std::chrono::steady_clock::now() > end)
      throw Error(Code::kTimeout, "flock-api did not start").with("log", program.log());
    co_await sleep_for(Duration(200));
  }
}

}  // namespace flock::faults

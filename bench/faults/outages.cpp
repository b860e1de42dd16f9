// SPDX-License-Identifier: Apache-2.0
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "faults/cases.h"

namespace flock::faults {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

template <class Server>
void add(std::vector<Case>& cases, const Suite& suite, const std::string& name, Server& server) {
  const bool broker = std::is_same_v<Server, testing::Mosquitto>;
  Case killed;
  killed.name = name + " killed";
  killed.lasts = suite.lasts;
  killed.fleet = suite.usual;
  killed.begin = [&server] { server.kill9(); };
  killed.end = [&server] { server.start(); };
  killed.kills_broker = broker;
  cases.push_back(killed);
  Case paused = killed;
  paused.name = name + " paused";
  paused.begin = [&server] { server.pause(); };
  paused.end = [&server] { server.resume(); };
  paused.kills_broker = false;
  cases.push_back(paused);
}

class SmallDisk {
 public:
  SmallDisk(std::string folder, const char* size) : folder_(std::move(folder)) {
    std::filesystem::create_directories(folder_);
    const std::string options = std::string("size=") + size;
    mounted_ = ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount(folder_.c_str());
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const noexcept { return mounted_; }

 private:
  const std::string folder_;
  bool mounted_ = false;
};

// Lines so long that what the devices write in one outage is `bytes`.
std::size_t line_bytes(const Suite& suite, std::int64_t bytes) {
  const std::int64_t rounds = suite.lasts / suite.usual.every;
  const std::int64_t lines = std::max<std::int64_t>(1, rounds * suite.usual.devices);
  return static_cast<std::size_t>(std::clamp<std::int64_t>(bytes / lines, 40, 60'000));
}

Case without_series(const Suite& suite, std::string name, std::int64_t bytes) {
  Case one;
  one.name = std::move(name);
  one.lasts = suite.lasts;
  one.fleet = suite.usual;
  one.fleet.device.line_bytes = line_bytes(suite, bytes);
  testing::ClickHouse& clickhouse = suite.stack.clickhouse;
  one.begin = [&clickhouse] { clickhouse.kill9(); };
  one.end = [&clickhouse] { clickhouse.start(); };
  return one;
}

}  // namespace

std::vector<Case> outages(const Suite& suite, Pair ingesters) {
  std::vector<Case> cases;
  add(cases, suite, "ClickHouse", suite.stack.clickhouse);
  add(cases, suite, "Valkey", suite.stack.valkey);
  add(cases, suite, "PostgreSQL", suite.stack.postgres);
  add(cases, suite, "one of two ingesters", ingesters.a);
  add(cases, suite, "broker", suite.stack.mosquitto);
  return cases;
}

Task<void> run_without_room(Suite& suite) {
  {
    // Telemetry of the outage has room in it, lines have not.
    const std::int64_t spool = (suite.is_short() ? 2 : 8) * kMiB;
    Program small(suite.stack, "small", {"--ingester.spool_bytes=" + std::to_string(spool)});
    small.start();
    co_await until_ready(small);
    Case one = without_series(
        suite, "ClickHouse killed, spool of " + std::to_string(spool / kMiB) + " MiB", 4 * spool);
    one.drops_lines = true;
    one.check = [](Fleet&, std::string&) -> Task<std::string> {
      co_return "the lines that were dropped are told as gaps";
    };
    co_await suite.run(std::move(one));
    small.stop();
  }
  Program full(suite.stack, "full");
  const SmallDisk disk(full.spool(), "2m");
  if (!disk.mounted()) {
    std::printf("| ClickHouse killed, disk of 2 MiB full | | | | | | | | not run: needs root |\n");
    co_return;
  }
  full.start();
  co_await until_ready(full);
  Case one = without_series(suite, "ClickHouse killed, disk of 2 MiB full", 8 * kMiB);
  one.check = [&full](Fleet&, std::string& faults) -> Task<std::string> {
    const std::string log = read_file(full.log(), 16 << 20).value_or("");
    if (log.find("cannot be written to disk") == std::string::npos)
      faults += "the disk was never full";
    co_return "";
  };
  co_await suite.run(std::move(one));
  full.stop();
}

}  // namespace flock::faults

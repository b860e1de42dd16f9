// SPDX-License-Identifier: Apache-2.0
// Rollouts through a fleet of virtual devices while the scheduler and the servers are killed and
// stopped: each ends as it would have without. Prints a table; fails when one did not.
//   bench_rollout_faults [DEVICES [STRIDE [ROW]]]
// STRIDE: the scheduler is killed at each STRIDE-th step. ROW: only rows whose name has this.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <set>

#include "async/blocking.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "rollout_faults/site.h"
#include "testing/crash_points.h"

using namespace flock;
using namespace flock::faults;

namespace {

constexpr int kSkipped = 77;
constexpr Duration kLook{50};
// A leader is believed for so long (postgres::kLease), and one that stopped in the middle of a
// transaction is ended within 5 s.
constexpr Duration kFrozen = postgres::kLease + Duration(4000);
constexpr std::chrono::minutes kPatience{5};
constexpr std::chrono::seconds kNotices{20};

using Seconds = std::chrono::duration<double>;

// One row: what is done while the rollout goes on. Returns a remark.
struct Case {
  std::string name;
  std::function<Task<std::string>()> faults;
};

class Suite {
 public:
  Suite(Executor executor, Stack& stack, int devices, int stride)
      : stack_(stack),
        stride_(stride),
        site_(executor, stack, devices),
        a_(stack, "a", {}, "scheduler"),
        b_(stack, "b", {}, "scheduler"),
        watched_(stack, "watched", {}, "scheduler", {postgres_port_, broker_port_}),
        statements_(postgres_port_, stack.postgres.port(), testing::postgres_steps),
        messages_(broker_port_, stack.mosquitto.port(), testing::mqtt_steps) {}

  Task<int> run(const std::string& only) {
    co_await site_.open();
    std::printf(
        "%d devices, 4 stages; 3 %% of the updates fail.\n\n| fault | rollout took | confirmed | "
        "failed | turns | wrong |  |\n|---|---|---|---|---|---|---|\n",
        site_.devices);
    std::exception_ptr failure;
    try {
      for (const Case& one : cases())
        if (one.name.find(only) != std::string::npos) co_await run(one);
    } catch (...) {
      failure = std::current_exception();
    }
    co_await site_.close();
    if (failure) std::rethrow_exception(failure);
    co_return failed_;
  }

 private:
  std::vector<Case> cases() {
    return {
        {"none", [this] { return none(); }},
        {"scheduler killed at each step", [this] { return killed_at_each_step(); }},
        {"leader of two stopped past its lease", [this] { return frozen(); }},
        {"leader of two killed", [this] { return replaced(); }},
        {"PostgreSQL killed twice",
         [this] { return outages([this] { restart(stack_.postgres); }); }},
        {"broker killed twice", [this] { return outages([this] { restart(stack_.mosquitto); }); }}};
  }

  Task<void> run(const Case& one) {
    co_await site_.deploy();
    const SteadyPoint began = std::chrono::steady_clock::now();
    const std::string remark = co_await one.faults();
    co_await until_settled(began);
    const double took = Seconds(std::chrono::steady_clock::now() - began).count();
    for (Program* program : {&a_, &b_, &watched_}) program->stop();
    const Site::Outcome out = co_await site_.outcome();
    std::printf("| %s | %.1f s | %lld | %lld | %lld | %zu | %s |\n", one.name.c_str(), took,
                static_cast<long long>(out.confirmed), static_cast<long long>(out.failed),
                static_cast<long long>(out.decisions), out.faults.size(), remark.c_str());
    for (const std::string& fault : out.faults) std::printf("FAILED: %s\n", fault.c_str());
    std::fflush(stdout);
    failed_ += out.faults.empty() ? 0 : 1;
  }

  Task<void> until_settled(SteadyPoint began) {
    while (!co_await is_settled()) {
      if (std::chrono::steady_clock::now() - began > kPatience)
        throw Error(Code::kTimeout, "the rollout does not end");
      co_await sleep_for(kLook);
    }
  }
  // Not while the database is away.
  Task<bool> is_settled() {
    try {
      co_return co_await site_.settled();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      co_return false;
    }
  }
  Task<void> until_begun(std::int64_t devices) {
    while (co_await begun() < devices) co_await sleep_for(kLook);
  }
  Task<std::int64_t> begun() {
    try {
      co_return co_await site_.begun();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      co_return 0;
    }
  }

  Task<std::string> none() {
    a_.start();
    co_return "";
  }

  // Killed at the first step after its start, started, killed at the next one, and so on: before a
  // statement or message reaches its server, and after it did, without hearing so.
  Task<std::string> killed_at_each_step() {
    int kills = 0;
    std::set<std::string> steps;
    int marks[] = {0, 0};
    testing::CrashPoints* points[] = {&statements_, &messages_};
    for (std::size_t turn = 0; !co_await is_settled(); turn = 1 - turn) {
      testing::CrashPoints& point = *points[turn];
      point.arm(marks[turn], [this] { watched_.kill9(); });
      watched_.start();
      while (!point.crashed() && !co_await is_settled()) co_await sleep_for(Duration(10));
      if (!point.crashed()) break;
      ++kills;
      steps.insert(kind_of(point.step()));
      marks[turn] += turn == 0 ? stride_ : std::max(1, stride_ / 4);
    }
    statements_.arm(-1, nullptr);
    messages_.arm(-1, nullptr);
    co_return std::to_string(kills) + " kills at " + std::to_string(steps.size()) +
        " kinds of steps";
  }
  // Without the device's id.
  static std::string kind_of(const std::string& step) {
    const std::size_t id = step.find("devices/");
    return id == std::string::npos || !step.starts_with("PUBLISH")
               ? step
               : step.substr(0, id) + step.substr(step.rfind('/'));
  }

  Task<std::string> frozen() {
    a_.start();
    co_await until_begun(1);
    b_.start();
    a_.pause();
    co_await sleep_for(kFrozen);
    const std::int64_t then = co_await site_.begun();
    a_.resume();
    const SteadyPoint resumed = std::chrono::steady_clock::now();
    while (!leads_no_more(a_)) {
      if (std::chrono::steady_clock::now() - resumed > kNotices)
        throw Error(Code::kTimeout, "a leader that was stopped does not see that it leads no more");
      co_await sleep_for(kLook);
    }
    co_return std::to_string(then) + " had begun when it went on, and saw that it leads no more";
  }
  static bool leads_no_more(const Program& program) {
    const std::string log = read_file(program.log(), 64 << 20).value_or("");
    return log.find("this process leads no more") != std::string::npos;
  }

  Task<std::string> replaced() {
    a_.start();
    co_await until_begun(1);
    b_.start();
    a_.kill9();
    co_return "";
  }

  template <class Server>
  static void restart(Server& server) {
    server.kill9();
    std::this_thread::sleep_for(std::chrono::seconds(1));
    server.start();
  }
  Task<std::string> outages(std::function<void()> outage) {
    a_.start();
    for (const std::int64_t devices : {1, site_.devices / 5}) {
      co_await until_begun(devices);
      co_await BlockingPool::shared().run_void(outage);
    }
    co_return "";
  }

  Stack& stack_;
  const int stride_;
  const int postgres_port_ = testing::free_port(), broker_port_ = testing::free_port();
  Site site_;
  Program a_, b_, watched_;
  testing::CrashPoints statements_, messages_;
  int failed_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  log::set_level(log::Level::kError);
  if (!testing::require(
          {"postgres", "initdb", "psql", "mosquitto", "redis-server", "clickhouse-server"})) {
    std::printf("the servers are not installed\n");
    return kSkipped;
  }
  const int devices = argc > 1 ? std::atoi(argv[1]) : 1000;
  const int stride = argc > 2 ? std::atoi(argv[2]) : 1;
  try {
    Stack stack;
    Loop loop;
    int failed = 0;
    const auto body = [&]() -> Task<void> {
      Suite suite(co_await asio::this_coro::executor, stack, devices, stride);
      failed = co_await suite.run(argc > 3 ? argv[3] : "");
    };
    loop.run(body());
    return failed == 0 ? 0 : 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

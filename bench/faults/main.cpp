// SPDX-License-Identifier: Apache-2.0
// The fault suite: numbered devices speak while a server or an ingester is killed or paused, or
// while something is wrong with what is sent, and every number is looked for afterwards. Prints a
// table; fails when something was lost.
//   bench_faults [SECONDS [ROW]]
// SECONDS: how long each fault lasts. ROW: only rows whose name has this.
#include <cstdio>
#include <cstdlib>

#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"
#include "faults/cases.h"

using namespace flock;
using namespace flock::faults;

namespace {

constexpr int kSkipped = 77;

Task<int> run(Stack& stack, Duration lasts, std::string only) {
  const Executor executor = co_await asio::this_coro::executor;
  postgres::Database db(executor, stack.database());
  co_await db.migrate();
  Ledger ledger(executor, stack, db);
  Suite suite{stack, db, ledger, lasts, {}};
  suite.usual.rounds = static_cast<int>((2 * lasts + Duration(120'000)) / suite.usual.every);
  if (suite.is_short()) {
    suite.usual.devices = 20;
    suite.usual.device.reconnect_spread = Duration(500);
  }
  Program a(stack, "a"), b(stack, "b");
  for (Program* ingester : {&a, &b}) {
    ingester->start();
    co_await until_ready(*ingester);
  }
  Suite::print_header(suite);
  for (const auto& cases : {outages(suite, {a, b}), bad_input(suite, {a, b})}) {
    for (const Case& one : cases)
      if (one.name.find(only) != std::string::npos) co_await suite.run(one);
  }
  a.stop();
  b.stop();
  if (only.empty() || only == "disk") co_await run_without_room(suite);
  co_return suite.failed;
}

}  // namespace

int main(int argc, char** argv) {
  log::set_level(log::Level::kError);
  if (!testing::require(
          {"postgres", "initdb", "psql", "mosquitto", "redis-server", "clickhouse-server"})) {
    std::printf("the servers are not installed\n");
    return kSkipped;
  }
  const Duration lasts(1000LL * (argc > 1 ? std::atoi(argv[1]) : 60));
  try {
    Stack stack;
    Loop loop;
    int failed = 0;
    const auto body = [&]() -> Task<void> {
      failed = co_await run(stack, lasts, argc > 2 ? argv[2] : "");
    };
    loop.run(body());
    return failed == 0 ? 0 : 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.describe().c_str());
    return 1;
  }
}

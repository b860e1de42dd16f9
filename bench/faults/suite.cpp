// SPDX-License-Identifier: Apache-2.0
#include "faults/suite.h"

#include <cstdio>

#include "async/blocking.h"
#include "async/loop.h"
#include "base/error.h"

namespace flock::faults {
namespace {

constexpr Duration kLook{200};
// Devices keep what they have said on one disk, and have up to a minute until they connect again.
constexpr Duration kSending{120'000};
// Nothing more arrives after this long without news.
constexpr Duration kQuiet{30'000};

SteadyPoint now() { return std::chrono::steady_clock::now(); }

Task<void> do_blocking(const std::function<void()>& what) {
  if (what) co_await BlockingPool::shared().run_void(what);
}

}  // namespace

// How long it takes until all is there that ever comes of the first `rounds`.
Task<Duration> Suite::recovery(Fleet& fleet, int rounds) {
  const SteadyPoint begin = now();
  SteadyPoint news = begin;
  std::int64_t seen = -1;
  while (now() < news + kQuiet) {
    try {
      const std::int64_t arrived = co_await ledger.arrived(fleet, rounds);
      if (arrived > seen) news = now();
      seen = std::max(seen, arrived);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      news = now();  // nobody can tell yet
    }
    if (seen >= Ledger::expected(fleet, rounds)) break;
    co_await sleep_for(kLook);
  }
  co_return std::chrono::duration_cast<Duration>(news - begin);
}

Task<void> Suite::run(Case one) {
  Fleet devices(co_await asio::this_coro::executor, stack, db, one.fleet);
  std::exception_ptr failure;
  try {
    co_await devices.open();
    co_await run(one, devices);
  } catch (...) {
    failure = std::current_exception();
  }
  co_await devices.close();
  if (failure) std::rethrow_exception(failure);
}

Task<void> Suite::run(const Case& one, Fleet& devices) {
  TaskScope tasks(co_await asio::this_coro::executor);
  std::exception_ptr failure;
  tasks.on_failure([&](const std::string&, std::exception_ptr error) { failure = error; });
  tasks.spawn("devices", devices.speak());
  co_await sleep_for(is_short() ? Duration(700) : Duration(5000));
  co_await do_blocking(one.begin);
  if (one.beside) tasks.spawn("beside", one.beside(devices));
  co_await sleep_for(one.lasts);
  const SteadyPoint ended = now();
  const int rounds = devices.rounds() - 1;
  co_await do_blocking(one.end);
  const Duration starting = std::chrono::duration_cast<Duration>(now() - ended);
  const Duration took = starting + co_await recovery(devices, rounds);
  devices.stop();
  co_await tasks.join();
  if (failure) std::rethrow_exception(failure);
  co_await devices.all_sent(kSending);
  co_await recovery(devices, devices.rounds());
  // What was told in the meantime is on its way.
  co_await sleep_for(Duration(300));
  Counts counts = co_await ledger.count(devices, one.kills_broker ? ended : SteadyPoint::min());
  if (one.drops_lines && counts.gaps == 0) counts.faults = "nothing was dropped";
  std::string remark;
  if (one.check) remark = co_await one.check(devices, counts.faults);
  print(one, devices, counts, took, remark);
}

void Suite::print_header(const Suite& suite) {
  std::printf(
      "Servers are away for %s. Lost counts what neither arrived nor is told as missing.\n\n",
      to_string(suite.lasts).c_str());
  std::printf(
      "| fault | messages/s | sent | received | lost | gaps | repeated | recovery |  |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
}

void Suite::print(const Case& one, const Fleet& fleet, const Counts& counts, Duration recovery,
                  const std::string& remark) {
  std::string remarks = remark;
  const auto add = [&remarks](const std::string& text) {
    remarks += (remarks.empty() ? "" : "; ") + text;
  };
  if (counts.lost_by_broker > 0)
    add(std::to_string(counts.lost_by_broker) + " more that the killed broker had acknowledged");
  if (counts.wrong_reports > 0) add(std::to_string(counts.wrong_reports) + " reports not current");
  if (counts.unsent > 0) add(std::to_string(counts.unsent) + " still kept by devices");
  if (counts.untold > 0)
    add(std::to_string(counts.untold) + " results stored, not told on the bus");
  if (counts.offline > 0) add(std::to_string(counts.offline) + " turned offline");
  std::printf("| %s | %.0f | %lld | %lld | %lld | %lld | %lld | %.1f s | %s |\n", one.name.c_str(),
              fleet.per_second(), static_cast<long long>(counts.sent),
              static_cast<long long>(counts.received), static_cast<long long>(counts.lost),
              static_cast<long long>(counts.gaps), static_cast<long long>(counts.repeated),
              std::chrono::duration<double>(recovery).count(), remarks.c_str());
  const bool fine = counts.lost == 0 && counts.unsent == 0 && counts.wrong_reports == 0 &&
                    counts.offline == 0 && (counts.gaps == 0 || one.drops_lines) &&
                    counts.faults.empty();
  if (!fine) {
    ++failed;
    std::printf("FAILED: %s\n", counts.faults.c_str());
  }
  std::fflush(stdout);
}

}  // namespace flock::faults

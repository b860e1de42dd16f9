// SPDX-License-Identifier: Apache-2.0
// What every audit store keeps, and what each does when its disk or its Loki fails.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "stores/audit/audit_store.h"
#include "stores/audit/loki_imposter.h"
#include "testing/crash_points.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::stores {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;

audit::Event event(const OrgId& org, const std::string& action = "createFleet") {
  audit::Event out;
  out.id = new_uuid();
  out.org = org.text();
  out.at = system_clock().now();
  out.actor_kind = "user";
  out.actor_id = "ada";
  out.action = action;
  out.resource_type = "fleet";
  out.resource_id = "f-1";
  return out;
}

std::vector<audit::Event> events(const OrgId& org, int count) {
  std::vector<audit::Event> out;
  for (int i = 0; i < count; ++i)
    out.push_back(event(org, i % 3 == 0 ? "deleteFleet" : "createFleet"));
  return out;
}

// A store over what lasts: a folder, or a folder and a Loki. restart() is a new process over them.
class Place {
 public:
  Place(Executor e, std::string k) : executor(e), kind(std::move(k)), loki(e) {
    auto listener = net::Listener::tcp(e, "127.0.0.1", 0);
    port = listener->port();
    loki.listen(std::move(listener));
  }
  LokiOptions options() const {
    LokiOptions out;
    out.url = "http://127.0.0.1:" + std::to_string(port);
    out.spool_directory = dir.file("spool");
    out.spool_bytes = spool_bytes;
    out.segment_bytes = 4096;
    out.push_bytes = 2048;
    out.backoff_first = out.backoff_max = Duration(20);
    out.clock = &clock;
    return out;
  }
  std::unique_ptr<AuditStore> make() const {
    if (kind == "file") return make_file_audit_store(dir.file("store"), 4096);
    return make_loki_audit_store(executor, options());
  }
  Task<void> start() {
    store = make();
    co_await store->open();
    scope.emplace(executor);
    scope->spawn("run", store->run());
  }
  Task<void> restart() {
    co_await stop();
    co_await start();
  }
  Task<void> stop() {
    if (scope) co_await scope->finish();
    scope.reset();
    store.reset();
  }
  // Until readers see it.
  Task<void> until(OrgId org, std::int64_t seq) {
    for (int i = 0; i < 500; ++i) {
      if ((co_await store->head(org)).seq >= seq) co_return;
      co_await sleep_for(Duration(10));
    }
    throw Error(Code::kTimeout, "the audit lines never came").with("seq", std::to_string(seq));
  }
  Task<std::vector<std::string>> all(OrgId org, std::int64_t from = 1) {
    std::vector<std::string> lines;
    const auto visit = [&](const std::string& line) -> Task<bool> {
      lines.push_back(line);
      co_return true;
    };
    co_await store->walk(org, from, visit);
    co_return lines;
  }
  Task<audit::Verdict> verify(OrgId org) {
    const auto lines = co_await all(org);
    std::size_t next = 0;
    co_return audit::verify_chain([&](std::string& line) {
      if (next == lines.size()) return false;
      line = lines[next++];
      return true;
    });
  }
  Task<void> expect_whole(OrgId org, std::size_t count) {
    const audit::Verdict verdict = co_await verify(org);
    EXPECT_EQ(verdict.fault, audit::Fault::kNone) << verdict.line << ": " << verdict.what;
    EXPECT_EQ(verdict.events, count);
    EXPECT_EQ(co_await store->head(org), verdict.head);
  }

  Executor executor;
  std::string kind;
  flock::testing::TempDir dir;
  LokiImposter loki;
  struct : Clock {
    TimePoint now() const override { return system_clock().now() + ahead; }
    Duration ahead{0};
  } clock;
  int port;
  std::int64_t spool_bytes = 1 << 20;
  std::optional<TaskScope> scope;
  std::unique_ptr<AuditStore> store;
};

void with_place(const std::string& kind, std::function<Task<void>(Place&)> body) {
  run_task(
      [&]() -> Task<void> {
        Place place(co_await asio::this_coro::executor, kind);
        std::exception_ptr failure;
        try {
          co_await place.start();
          co_await body(place);
        } catch (const Error&) {
          failure = std::current_exception();
        }
        co_await place.stop();
        co_await place.loki.stop();
        if (failure) std::rethrow_exception(failure);
      },
      Duration(10'000));
}

class AuditStores : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Each, AuditStores, ::testing::Values("file", "loki"),
                         [](const auto& info) { return info.param; });

TEST_P(AuditStores, KeepAChainForEachOrganization) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const OrgId a = OrgId::fresh(), b = OrgId::fresh();
    EXPECT_EQ(co_await place.store->head(a), audit::Head());
    auto both = events(a, 25);
    for (auto& more : events(b, 5)) both.push_back(std::move(more));
    co_await place.store->append(both);
    co_await place.store->append(events(a, 25));
    co_await place.until(a, 50);
    co_await place.until(b, 5);
    co_await place.expect_whole(a, 50);
    co_await place.expect_whole(b, 5);
    EXPECT_EQ((co_await place.all(a, 48)).size(), 3u);
    EXPECT_TRUE((co_await place.all(OrgId::fresh())).empty());
  });
}

TEST_P(AuditStores, TakeAnEventOnceButItsAbortToo) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    auto some = events(org, 3);
    some.push_back(some[0]);
    co_await place.store->append(some);
    co_await place.store->append(some);
    co_await place.restart();
    co_await place.store->append(some);
    some[1].outcome = audit::Outcome::kAborted;
    co_await place.store->append({some[1]});
    co_await place.store->append({some[1]});
    co_await place.until(org, 4);
    co_await place.expect_whole(org, 4);
    EXPECT_NE((co_await place.all(org)).back().find("\"outcome\":\"aborted\""), std::string::npos);
  });
}

TEST_P(AuditStores, GoOnWithTheChainAfterARestart) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    for (int i = 1; i <= 10; ++i) {
      co_await place.store->append(events(org, 7));
      co_await place.restart();
    }
    co_await place.until(org, 70);
    co_await place.expect_whole(org, 70);
  });
}

TEST_P(AuditStores, GivePagesNewestFirst) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 50));
    co_await place.until(org, 50);
    std::int64_t expected = 50;
    std::string token;
    do {
      const AuditPage page = co_await place.store->page(org, {}, token, 7);
      EXPECT_LE(page.lines.size(), 7u);
      for (const std::string& line : page.lines) EXPECT_EQ(audit::read_line(line)->seq, expected--);
      token = page.next;
    } while (!token.empty());
    EXPECT_EQ(expected, 0);
    for (const char* bad : {"x", "1.x", "-", "9999999999999999999999"})
      EXPECT_EQ(co_await code_of_task([](Place& p, OrgId o, const char* t) -> Task<void> {
                  co_await p.store->page(o, {}, t, 1);
                }(place, org, bad)),
                Code::kInvalidArgument)
          << bad;
  });
}

TEST_P(AuditStores, FilterByWhatAnEventSays) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    auto some = events(org, 6);
    some[1].actor_id = "bob";
    some[2].action = "x\"} or {\\";
    some[3].resource_type = "device";
    some[4].resource_id = "f-2";
    some[5].outcome = audit::Outcome::kAborted;
    some[0].at = from_unix_ms(1'000);
    co_await place.store->append(some);
    co_await place.until(org, 6);
    const auto only = [&](AuditFilter filter, std::int64_t seq) -> Task<void> {
      const AuditPage page = co_await place.store->page(org, filter, "", 10);
      EXPECT_EQ(page.lines.size(), 1u) << seq;
      if (page.lines.size() == 1u) EXPECT_EQ(audit::read_line(page.lines[0])->seq, seq);
    };
    co_await only({.actor = "bob"}, 2);
    co_await only({.action = some[2].action}, 3);
    co_await only({.resource_type = "device"}, 4);
    co_await only({.resource_id = "f-2"}, 5);
    co_await only({.outcome = audit::Outcome::kAborted}, 6);
    co_await only({.to = from_unix_ms(2'000)}, 1);
    EXPECT_EQ((co_await place.store->page(org, {.from = from_unix_ms(2'000)}, "", 10)).lines.size(),
              5u);
    const auto range = co_await find_range(*place.store, org, from_unix_ms(2'000), std::nullopt);
    EXPECT_TRUE(range && range->first == 2 && range->last == 6);
    EXPECT_FALSE(co_await find_range(*place.store, org, std::nullopt, from_unix_ms(1)));
  });
}

TEST_P(AuditStores, LetOnlyOneWrite) {
  with_place(GetParam(), [](Place& place) -> Task<void> {
    const auto second = place.make();
    EXPECT_EQ(co_await code_of_task(second->open()), Code::kUnavailable);
    EXPECT_EQ((co_await second->head(OrgId::fresh())).seq, 0) << "reading is free";
  });
}

TEST(FileAuditStore, CutsWhatAPowerLossLeftAndKeepsIt) {
  with_place("file", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 5));
    const std::string folder = place.dir.file("store/" + org.text());
    std::string file;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) file = entry.path();
    for (const std::string& torn : {std::string("{\"seq\":6,\"id"), std::string(5000, '\0')}) {
      std::ofstream(file, std::ios::app | std::ios::binary) << torn;
      co_await place.expect_whole(org, (co_await place.all(org)).size());
      co_await place.restart();
      co_await place.store->append(events(org, 1));
    }
    co_await place.expect_whole(org, 7);
    EXPECT_EQ(read_file(file + ".torn").value_or("").size(), 5000u + 12);
  });
}

TEST(FileAuditStore, ShowsWhatWasDoneToItsFiles) {
  with_place("file", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 3));
    std::string file;
    for (const auto& entry :
         std::filesystem::directory_iterator(place.dir.file("store/" + org.text())))
      file = entry.path();
    std::string text = read_file(file).value_or("");
    text.replace(text.rfind("\"ada\""), 5, "\"eve\"");
    write_file_atomic(file, text);
    co_await place.restart();
    co_await place.store->append(events(org, 1));
    const audit::Verdict verdict = co_await place.verify(org);
    EXPECT_EQ(verdict.fault, audit::Fault::kAltered);
    EXPECT_EQ(verdict.seq, 3);
    EXPECT_EQ((co_await place.all(org)).size(), 4u);
  });
}

TEST(FileAuditStore, LosesNothingWhenTheDiskTakesNoMore) {
  with_place("file", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    auto some = events(org, 3);
    co_await place.store->append(some);
    // A folder in the way of the next segment is as good as a full disk.
    const std::string folder = place.dir.file("store/" + org.text());
    std::filesystem::rename(folder, folder + ".gone");
    std::ofstream(folder) << "in the way";
    auto more = events(org, 40);
    EXPECT_EQ(co_await code_of_task(place.store->append(more)), Code::kUnavailable);
    std::filesystem::remove(folder);
    std::filesystem::rename(folder + ".gone", folder);
    co_await place.store->append(more);
    co_await place.expect_whole(org, 43);
  });
}

TEST(LokiAuditStore, LabelsFewAndTellsTheRest) {
  with_place("loki", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    audit::Event one = event(org);
    one.request_id = "r-9";
    one.ip = "192.0.2.7";
    co_await place.store->append({one});
    co_await place.until(org, 1);
    const auto& [labels, stream] = *place.loki.streams.begin();
    EXPECT_EQ(labels, (std::map<std::string, std::string>{{"app", "flock-audit"},
                                                          {"org", org.text()},
                                                          {"action", "createFleet"},
                                                          {"resource_type", "fleet"}}));
    const auto& facts = stream.begin()->second.metadata;
    EXPECT_EQ(facts.at("actor"), "ada");
    EXPECT_EQ(facts.at("resource"), "f-1");
    EXPECT_EQ(facts.at("request_id"), "r-9");
    EXPECT_EQ(facts.at("ip"), "192.0.2.7");
  });
}

TEST(LokiAuditStore, SendsTenantAndToken) {
  run_task([]() -> Task<void> {
    Place place(co_await asio::this_coro::executor, "loki");
    place.loki.tenant = "acme";
    place.loki.token = "secret";
    LokiOptions options = place.options();
    options.tenant = "acme";
    options.token_file = place.dir.write("token", "secret\n");
    const auto store = make_loki_audit_store(place.executor, options);
    co_await store->open();
    co_await place.loki.stop();
  });
}

TEST(LokiAuditStore, LosesNothingWhileLokiIsAwayForTenDays) {
  with_place("loki", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 5));
    co_await place.until(org, 5);
    place.loki.away = true;
    for (int i = 0; i < 10; ++i) {
      co_await place.store->append(events(org, 9));
      co_await place.restart();
    }
    // Loki knows the time first, and refuses what it thinks too old; the writer then agrees.
    place.loki.clock = std::chrono::days(10);
    place.loki.away = false;
    co_await sleep_for(Duration(100));
    EXPECT_GT(place.loki.refused, 0);
    EXPECT_EQ(place.loki.lines(), 5u);
    place.clock.ahead = std::chrono::days(10);
    co_await place.until(org, 95);
    co_await place.expect_whole(org, 95);
  });
}

// A push whose answer is lost is repeated, and no reader sees it twice.
TEST(LokiAuditStore, ShowsALinePushedTwiceOnce) {
  with_place("loki", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 4));
    co_await place.until(org, 4);
    for (auto& [labels, stream] : place.loki.streams) {
      const LokiImposter::Stream copy = stream;
      for (const auto& [ns, entry] : copy) stream.emplace(ns + 1'000, entry);
    }
    co_await sleep_for(Duration(5));
    co_await place.store->append(events(org, 4));
    co_await place.until(org, 8);
    const auto lines = co_await place.all(org);
    std::vector<std::int64_t> seen;
    for (const AuditPage& page : {co_await place.store->page(org, {}, "", 100)}) {
      for (const std::string& line : page.lines) seen.push_back(audit::read_line(line)->seq);
    }
    EXPECT_TRUE(std::is_sorted(seen.rbegin(), seen.rend()));
    EXPECT_EQ(std::set<std::int64_t>(seen.begin(), seen.end()).size(), seen.size());
    EXPECT_EQ(lines.size(), 8u);
  });
}

TEST(LokiAuditStore, TakesNoMoreWhenTheSpoolIsFullAndGoesOnLater) {
  run_task(
      []() -> Task<void> {
        Place place(co_await asio::this_coro::executor, "loki");
        place.spool_bytes = 20'000;
        co_await place.start();
        const OrgId org = OrgId::fresh();
        place.loki.away = true;
        std::vector<std::vector<audit::Event>> waiting;
        std::size_t taken = 0;
        for (int i = 0; i < 10; ++i) waiting.push_back(events(org, 5));
        for (const auto& batch : waiting) {
          try {
            co_await place.store->append(batch);
            ++taken;
          } catch (const Error& error) {
            EXPECT_EQ(error.code(), Code::kUnavailable);
            EXPECT_EQ(error.message(), "the audit spool is full");
          }
        }
        EXPECT_GT(taken, 2u);
        EXPECT_LT(taken, 10u);
        place.loki.away = false;
        co_await place.until(org, static_cast<std::int64_t>(taken) * 5);
        for (const auto& batch : waiting) co_await place.store->append(batch);
        co_await place.until(org, 50);
        co_await place.expect_whole(org, 50);
        co_await place.stop();
        co_await place.loki.stop();
      },
      Duration(10'000));
}

TEST(LokiAuditStore, LearnsTheHeadsWhenTheSpoolsDiskIsLost) {
  with_place("loki", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    co_await place.store->append(events(org, 5));
    co_await place.until(org, 5);
    co_await place.stop();
    std::filesystem::remove_all(place.dir.file("spool"));
    place.loki.away = true;
    EXPECT_EQ(co_await code_of_task(place.start()), Code::kUnavailable)
        << "a chain must not begin anew";
    place.store.reset();
    place.loki.away = false;
    co_await place.start();
    co_await place.store->append(events(org, 5));
    co_await place.until(org, 10);
    co_await place.expect_whole(org, 10);
  });
}

TEST(LokiAuditStore, PassesOverADamagedLineOfTheSpoolAndShowsTheGap) {
  with_place("loki", [](Place& place) -> Task<void> {
    const OrgId org = OrgId::fresh();
    place.loki.away = true;
    co_await place.store->append(events(org, 3));
    co_await place.stop();
    const std::string file = place.dir.file("spool/000000000001.spool");
    std::string text = read_file(file).value_or("");
    text[text.find('\n') + 100] ^= 1;
    write_file_atomic(file, text);
    place.loki.away = false;
    co_await place.start();
    co_await place.until(org, 3);
    const audit::Verdict verdict = co_await place.verify(org);
    EXPECT_EQ(verdict.fault, audit::Fault::kRemoved);
    EXPECT_EQ(verdict.seq, 2);
    EXPECT_TRUE(std::filesystem::exists(place.dir.file("spool/damaged")));
  });
}

std::vector<audit::Event> same_events(const OrgId& org) {
  auto out = events(org, 30);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i].id = "01a20f18-b91c-7000-9658-57f0f12237" + std::to_string(10 + i);
  return out;
}

LokiOptions options_of_process() {
  LokiOptions out;
  out.url = "http://loki";
  out.unix_path = std::string(std::getenv("AUDIT_TEST_DIR")) + "/crash.sock";
  out.spool_directory = std::string(std::getenv("AUDIT_TEST_DIR")) + "/spool";
  out.segment_bytes = 4096;
  out.push_bytes = 4096;
  return out;
}

// Not a test: a writer as a process of its own, which ends when Loki has everything.
TEST(AuditStoreProcess, DISABLED_Writes) {
  const OrgId org = OrgId::trusted(std::getenv("AUDIT_TEST_ORG"));
  run_task([&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    const auto store = make_loki_audit_store(executor, options_of_process());
    co_await store->open();
    TaskScope scope(executor);
    scope.spawn("run", store->run());
    const auto all = same_events(org);
    for (std::size_t i = 0; i < all.size(); i += 5)
      co_await store->append({all.begin() + static_cast<std::ptrdiff_t>(i),
                              all.begin() + static_cast<std::ptrdiff_t>(i + 5)});
    while ((co_await store->head(org)).seq < 30) co_await sleep_for(Duration(5));
    co_await scope.finish();
  });
}

// Killed before and after each push; what was acknowledged and what comes again is there once.
TEST(LokiAuditStore, KilledAtEveryStepTowardsLokiLosesAndDoublesNothing) {
  int steps = 0;
  for (int mark = 0; mark <= steps && mark < 100; ++mark) {
    run_task(
        [&]() -> Task<void> {
          const Executor executor = co_await asio::this_coro::executor;
          flock::testing::TempDir dir;
          const OrgId org = OrgId::fresh();
          ::setenv("AUDIT_TEST_DIR", dir.path().c_str(), 1);
          ::setenv("AUDIT_TEST_ORG", org.text().c_str(), 1);
          LokiImposter loki(executor);
          loki.listen(net::Listener::unix_socket(executor, dir.file("loki.sock")));
          flock::testing::CrashPoints between(dir.file("crash.sock"), dir.file("loki.sock"));
          flock::testing::Process writer;
          const std::vector<std::string> program{std::filesystem::read_symlink("/proc/self/exe"),
                                                 "--gtest_filter=AuditStoreProcess.DISABLED_Writes",
                                                 "--gtest_also_run_disabled_tests"};
          between.arm(mark, [&] { writer.signal(SIGKILL); });
          writer.start(program, dir.file("log"));
          while (writer.running()) co_await sleep_for(Duration(2));
          if (between.crashed()) {
            steps = mark + 1;
            writer.start(program, dir.file("log"));
            while (writer.running()) co_await sleep_for(Duration(2));
          }
          LokiOptions options = options_of_process();
          options.unix_path = dir.file("loki.sock");
          const auto store = make_loki_audit_store(executor, options);
          std::size_t next = 0;
          std::vector<std::string> lines;
          const auto visit = [&](const std::string& line) -> Task<bool> {
            lines.push_back(line);
            co_return true;
          };
          co_await store->walk(org, 1, visit);
          const audit::Verdict verdict = audit::verify_chain([&](std::string& line) {
            if (next == lines.size()) return false;
            line = lines[next++];
            return true;
          });
          EXPECT_EQ(verdict.fault, audit::Fault::kNone)
              << mark << " " << between.step() << ": " << verdict.what;
          EXPECT_EQ(verdict.events, 30u) << mark << " " << between.step();
          EXPECT_EQ(loki.lines(), 30u) << "Loki keeps what was pushed again once";
          co_await loki.stop();
        },
        Duration(10'000));
  }
  EXPECT_GT(steps, 4) << "the writer was never killed";
}

}  // namespace
}  // namespace flock::stores

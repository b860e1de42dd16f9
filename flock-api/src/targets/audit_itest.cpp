// SPDX-License-Identifier: Apache-2.0
// The writer behind a real Mosquitto: killed, cut off, without a disk; and the log as the API shows
// it. What a publisher was told is kept must be in the chain, once.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/credentials.h"
#include "stores/audit/loki_imposter.h"
#include "targets/audit/audit_target.h"
#include "targets/itest_stack.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::targets {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;
using internal::v1::AuditEvent;

AuditEvent event(const std::string& org) {
  AuditEvent out;
  out.set_id(new_uuid());
  out.set_org_id(org);
  out.set_at_ms(to_unix_ms(system_clock().now()));
  out.set_actor_kind(AuditEvent::API_KEY);
  out.set_actor_id("k-1");
  out.set_actor_name("=ci");
  out.set_action("createFleet");
  out.set_resource_type("fleet");
  out.set_detail_json(R"({"name":"Oslo"})");
  return out;
}

mqtt::Message message(const AuditEvent& event) {
  mqtt::Message out;
  out.topic = kAuditTopic;
  out.payload = event.SerializeAsString();
  out.must_be_heard = true;
  return out;
}

// The audit target with its own session, as the runtime makes it.
struct Writer {
  Writer(Executor executor, const Settings& s, const std::string& broker)
      : settings(s),
        db(executor, {}),
        live(stores::make_memory_live_state()),
        time_series(stores::make_memory_time_series()),
        bus(executor, options(broker, "flock-audit")),
        scope(executor),
        target(make_audit_target(Parts{executor, settings, db, *live, *time_series, bus,
                                       crypto::Key::generate(crypto::Key::Kind::kP256)})) {
    scope.spawn("bus", bus.run());
  }
  static mqtt::ClientOptions options(const std::string& broker, const std::string& id) {
    mqtt::ClientOptions out;
    out.url = broker;
    out.client_id = id;
    out.backoff_first = out.backoff_max = Duration(50);
    out.receive_maximum = 1024;
    return out;
  }
  Task<void> start() {
    co_await bus.wait_connected();
    co_await target->start();
  }
  Task<void> stop() {
    co_await target->drain();
    co_await target->stop();
    co_await scope.finish();
  }
  Settings settings;
  postgres::Database db;
  std::unique_ptr<stores::LiveState> live;
  std::unique_ptr<stores::TimeSeries> time_series;
  mqtt::Client bus;
  TaskScope scope;
  std::unique_ptr<Target> target;
};

Settings settings_in(const std::string& dir) {
  Settings out;
  out.audit_directory = dir + "/audit";
  out.audit_spool_directory = dir + "/spool";
  return out;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Not a test: the writer as a process of its own, until it is killed.
TEST(AuditWriterProcess, DISABLED_Runs) {
  Loop loop;
  loop.run([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Settings settings = settings_in(environment("AUDIT_TEST_DIR"));
    settings.audit_loki_url = environment("AUDIT_TEST_LOKI");
    if (!settings.audit_loki_url.empty()) settings.audit_kind = "loki";
    Writer writer(executor, settings, environment("AUDIT_TEST_BROKER"));
    co_await writer.start();
    for (;;) co_await sleep_for(Duration(60'000));
  }());
}

class AuditWriter : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!flock::testing::require({"mosquitto"})) GTEST_SKIP() << "Mosquitto is not installed";
    broker.start();
    ::setenv("AUDIT_TEST_DIR", dir.path().c_str(), 1);
    ::setenv("AUDIT_TEST_BROKER", broker.url().c_str(), 1);
    ::unsetenv("AUDIT_TEST_LOKI");
  }
  void start_process() {
    process.start(
        {std::filesystem::read_symlink("/proc/self/exe"),
         "--gtest_filter=AuditWriterProcess.DISABLED_Runs", "--gtest_also_run_disabled_tests"},
        dir.file("log"));
  }
  // Until the broker takes it for somebody who listens; as the API does, but patient.
  static Task<void> publish(mqtt::Client& bus, AuditEvent event) {
    for (;;) {
      try {
        co_await bus.publish(message(event));
        co_return;
      } catch (const Error& error) {
        if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
      }
      co_await sleep_for(Duration(20));
    }
  }
  static Task<std::vector<std::string>> lines(stores::AuditStore& store, std::string org) {
    std::vector<std::string> out;
    const auto visit = [&](const std::string& line) -> Task<bool> {
      out.push_back(line);
      co_return true;
    };
    co_await store.walk(OrgId::trusted(org), 1, visit);
    co_return out;
  }
  // All of `ids`, each once, in a chain that holds.
  static Task<void> expect_kept(stores::AuditStore& store, std::string org,
                                std::set<std::string> ids) {
    std::vector<std::string> found;
    const auto complete = [&]() -> Task<bool> {
      found = co_await lines(store, org);
      co_return found.size() >= ids.size();
    };
    co_await itest::eventually("all events are written", complete, Duration(20'000));
    std::size_t next = 0;
    const audit::Verdict verdict = audit::verify_chain([&](std::string& line) {
      if (next == found.size()) return false;
      line = found[next++];
      return true;
    });
    EXPECT_EQ(verdict.fault, audit::Fault::kNone) << verdict.line << ": " << verdict.what;
    std::multiset<std::string> seen;
    for (const std::string& line : found) seen.insert(audit::read_line(line)->event.id);
    EXPECT_EQ(seen, std::multiset<std::string>(ids.begin(), ids.end()));
  }

  // Kills the writer at random moments while events come in.
  Task<void> kill_again_and_again(stores::AuditStore& store) {
    const std::string seed_text = environment("FLOCK_TEST_SEED");
    const unsigned seed =
        seed_text.empty() ? std::random_device()() : static_cast<unsigned>(std::stoul(seed_text));
    SCOPED_TRACE("FLOCK_TEST_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    const Executor executor = co_await asio::this_coro::executor;
    mqtt::Client bus(executor, Writer::options(broker.url(), "publisher"));
    TaskScope scope(executor);
    scope.spawn("bus", bus.run());
    co_await bus.wait_connected();
    const std::string org = new_uuid();
    std::set<std::string> ids;
    const auto send = [&]() -> Task<void> {
      for (int i = 0; i < 400; ++i) {
        const AuditEvent one = event(org);
        co_await publish(bus, one);
        if (i % 50 == 0) co_await publish(bus, one);  // as after a lost answer
        ids.insert(one.id());
        if (i % 10 == 0) co_await sleep_for(Duration(30));
      }
    };
    start_process();
    scope.spawn("send", send());
    for (int kill = 0; kill < 8; ++kill) {
      co_await sleep_for(Duration(100 + random() % 200));
      process.stop(SIGKILL);
      start_process();
    }
    while (scope.size() > 1) co_await sleep_for(Duration(20));
    EXPECT_EQ(ids.size(), 400u);
    co_await expect_kept(store, org, ids);
    process.stop(SIGKILL);
    co_await scope.finish();
  }

  flock::testing::Mosquitto broker;
  flock::testing::TempDir dir;
  flock::testing::Process process;
};

TEST_F(AuditWriter, KilledAtAnyMomentLosesAndDoublesNothing) {
  run_task(
      [&]() -> Task<void> {
        const auto store = stores::make_file_audit_store(dir.file("audit"));
        co_await kill_again_and_again(*store);
      },
      Duration(60'000));
}

TEST_F(AuditWriter, KilledInFrontOfLokiLosesAndDoublesNothing) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        stores::LokiImposter loki(executor);
        auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
        stores::LokiOptions options;
        options.url = "http://127.0.0.1:" + std::to_string(listener->port());
        ::setenv("AUDIT_TEST_LOKI", options.url.c_str(), 1);
        loki.listen(std::move(listener));
        const auto store = stores::make_loki_audit_store(executor, options);
        co_await kill_again_and_again(*store);
        co_await loki.stop();
      },
      Duration(60'000));
}

TEST_F(AuditWriter, GoesOnWhenTheBrokerIsRestarted) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Writer writer(executor, settings_in(dir.path()), broker.url());
        co_await writer.start();
        mqtt::Client bus(executor, Writer::options(broker.url(), "publisher"));
        TaskScope scope(executor);
        scope.spawn("bus", bus.run());
        const std::string org = new_uuid();
        std::set<std::string> ids;
        for (int round = 0; round < 3; ++round) {
          for (int i = 0; i < 20; ++i) {
            const AuditEvent one = event(org);
            co_await publish(bus, one);
            ids.insert(one.id());
          }
          if (round < 2) {
            broker.stop();
            broker.start();
          }
        }
        const auto store = stores::make_file_audit_store(dir.file("audit"));
        co_await expect_kept(*store, org, ids);
        co_await writer.stop();
        co_await scope.finish();
      },
      Duration(60'000));
}

// The API then answers 503 (must_be_heard), and goes on when the disk is back.
TEST_F(AuditWriter, LetsPublishersFailWhileItCannotWrite) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Writer writer(executor, settings_in(dir.path()), broker.url());
        co_await writer.start();
        mqtt::Client bus(executor, Writer::options(broker.url(), "publisher"));
        TaskScope scope(executor);
        scope.spawn("bus", bus.run());
        const std::string org = new_uuid();
        const std::string in_the_way = dir.write("audit/" + org, "");
        const AuditEvent first = event(org), second = event(org), third = event(org);
        co_await bus.publish(message(first));
        const auto refused = [&]() -> Task<bool> {
          try {
            co_await bus.publish(message(third));
          } catch (const Error& error) {
            co_return error.code() == Code::kUnavailable;
          }
          co_return false;
        };
        co_await itest::eventually("a publisher is told", refused);
        EXPECT_EQ(co_await code_of_task(bus.publish(message(second))), Code::kUnavailable);
        std::filesystem::remove(in_the_way);
        co_await publish(bus, second);
        const auto store = stores::make_file_audit_store(dir.file("audit"));
        co_await expect_kept(*store, org, {first.id(), second.id(), third.id()});
        co_await writer.stop();
        co_await scope.finish();
      },
      Duration(30'000));
}

TEST_F(AuditWriter, PutsAsideWhatItCannotRead) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        Writer writer(executor, settings_in(dir.path()), broker.url());
        co_await writer.start();
        mqtt::Client bus(executor, Writer::options(broker.url(), "publisher"));
        TaskScope scope(executor);
        scope.spawn("bus", bus.run());
        const std::string org = new_uuid();
        mqtt::Message poison = message(event(org));
        poison.payload = "\x01\xff poison";
        co_await bus.publish(poison);
        AuditEvent elsewhere = event("../../etc"), good = event(org);
        co_await bus.publish(message(elsewhere));
        good.set_detail_json("not JSON");
        co_await bus.publish(message(good));
        const auto store = stores::make_file_audit_store(dir.file("audit"));
        co_await expect_kept(*store, org, {good.id()});
        std::string aside;
        const auto both = [&]() -> Task<bool> {
          aside = read_file(dir.file("spool/unreadable.jsonl")).value_or("");
          co_return std::count(aside.begin(), aside.end(), '\n') == 2;
        };
        co_await itest::eventually("both are put aside", both);
        EXPECT_NE(aside.find(to_base64(poison.payload)), std::string::npos) << aside;
        co_await writer.stop();
        co_await scope.finish();
      },
      Duration(30'000));
}

TEST(AuditLog, IsReadThroughTheApiByItsOrganizationOnly) {
  using namespace itest;
  Stack* const stack = Stack::get();
  if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *stack);
        co_await backend.start();
        Api api(backend.executor, *stack, co_await backend.make_tenant("Seen")),
            other(backend.executor, *stack, co_await backend.make_tenant("Other"));
        const std::string org =
            text((co_await api.call("GET", "/v1/whoami")).at("organization"), "id");
        std::vector<AuditEvent> sent;
        for (int i = 0; i < 5; ++i) {
          AuditEvent one = event(org);
          if (i == 3) one.set_action("deleteFleet");
          if (i == 4) {
            one = sent[0];
            one.set_outcome(AuditEvent::ABORTED);
          }
          co_await backend.bus.publish(message(one));
          sent.push_back(one);
        }
        const auto have = [&]() -> Task<bool> {
          const bj::value head = co_await api.call("GET", "/v1/audit/head");
          co_return head.at("seq").as_int64() >= 5;
        };
        co_await eventually("the audit log has them", have);
        const auto seqs = [&](std::string query) -> Task<std::vector<std::int64_t>> {
          std::vector<std::int64_t> out;
          std::string token;
          do {
            const bj::value page =
                co_await api.call("GET", "/v1/audit?page_size=2" + query + "&page_token=" + token);
            for (const bj::value& item : page.at("items").as_array())
              if (item.at("resource").at("type") == "fleet" && item.at("actor").at("id") == "k-1")
                out.push_back(item.at("seq").as_int64());
            token = text(page, "next_page_token");
          } while (!token.empty());
          co_return out;
        };
        EXPECT_EQ((co_await seqs("")).size(), 5u);
        EXPECT_EQ((co_await seqs("&action=deleteFleet")).size(), 1u);
        EXPECT_EQ((co_await seqs("&outcome=aborted")).size(), 1u);
        EXPECT_EQ((co_await seqs("&actor=nobody")).size(), 0u);
        EXPECT_EQ((co_await seqs("&to=2026-01-01T00:00:00Z")).size(), 0u);

        co_await api.call("GET", "/v1/audit/export");
        std::istringstream chain(api.last.body);
        const audit::Verdict verdict = audit::verify_chain(
            [&](std::string& line) { return static_cast<bool>(std::getline(chain, line)); });
        EXPECT_EQ(verdict.fault, audit::Fault::kNone) << verdict.what;
        EXPECT_GE(verdict.events, 5u);
        const bj::value head = co_await api.call("GET", "/v1/audit/head");
        EXPECT_EQ(text(head, "hash"), verdict.head.hash);
        co_await api.call("GET", "/v1/audit/export?format=csv");
        EXPECT_TRUE(api.last.body.starts_with("seq,at,")) << api.last.body;
        EXPECT_NE(api.last.body.find("\"'=ci\""), std::string::npos)
            << "a spreadsheet would run it";

        co_await other.call("GET", "/v1/audit/export");
        EXPECT_EQ(other.last.body.find(org), std::string::npos);
        for (const char* bad : {"?outcome=x", "?from=yesterday", "?wat=1", "/export?actor=a",
                                "/export?format=xml", "/head?x=1", "?page_token=eHg"}) {
          co_await api.call("GET", std::string("/v1/audit") + bad);
          EXPECT_EQ(api.last.status, 400) << bad << " " << api.last.body;
        }
        co_await backend.stop();
      },
      Duration(30'000));
}

}  // namespace
}  // namespace flock::targets

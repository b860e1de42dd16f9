// SPDX-License-Identifier: Apache-2.0
// The program itself: how it starts, says how it is, and stops, with real servers around it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <regex>
#include <set>
#include <thread>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/files.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "services/credentials.h"
#include "stores/postgres/database.h"
#include "stores/postgres/statements.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock::runtime {
namespace {

using flock::testing::free_port;
using flock::testing::run_task;
using Clock = std::chrono::steady_clock;

// flock-api as a child whose end can be looked at.
class Program {
 public:
  Program(const std::vector<std::string>& arguments, const std::string& log) : log_(log) {
    std::vector<std::string> full{FLOCK_API_PROGRAM};
    full.insert(full.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : full) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(output, 1);
      ::dup2(output, 2);
      for (int fd = 3; fd < 256; ++fd) ::close(fd);
      // The test's own switches are no keys of the program, which would refuse them.
      for (const char* name : {"FLOCK_TEST_CYCLES", "FLOCK_TEST_SEED"}) ::unsetenv(name);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
  }
  ~Program() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  // The exit code, 128 + signal, or nothing while it runs.
  std::optional<int> ended() {
    if (pid_ <= 0) return code_;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    pid_ = -1;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code_;
  }
  int wait(int seconds) {
    flock::testing::wait_until("flock-api ends", [&] { return ended().has_value(); }, seconds);
    return code_;
  }
  std::string output() const { return read_file(log_).value_or(""); }

 private:
  std::string log_;
  pid_t pid_ = -1;
  int code_ = -1;
};

struct Stack {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  flock::testing::TempDir dir;
  int api = free_port(), admin = free_port(), registry = free_port(), logs = 0;

  Stack() {
    postgres.start();
    mosquitto.start();
    valkey.start();
    Program keys({"generate-keys", dir.file("keys")}, dir.file("keys.log"));
    EXPECT_EQ(keys.wait(10), 0) << keys.output();
  }
  std::unique_ptr<Program> start(std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{
        "--postgres.url=" + postgres.url(),
        "--postgres.password_file=" + postgres.password_file(),
        "--live_state.address=" + valkey.address(),
        "--mqtt.url=" + mosquitto.url(),
        "--registry.url=http://127.0.0.1:" + std::to_string(registry),
        "--registry.hosts=registry.example",
        "--keys.directory=" + dir.file("keys"),
        "--api.listen=127.0.0.1:" + std::to_string(api),
        "--public_url=http://127.0.0.1:" + std::to_string(api),
        "--admin.listen=127.0.0.1:" + std::to_string(admin),
        "--audit.directory=" + dir.file("audit"),
        "--audit.spool_directory=" + dir.file("audit-spool"),
        "--ingester.spool_directory=" + dir.file("ingester"),
        "--events_gateway.quarantine_directory=" + dir.file("events-gateway"),
        "--clickhouse.kind=memory"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return std::make_unique<Program>(arguments, dir.file("log" + std::to_string(++logs)));
  }
  std::string admin_url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(admin) + path;
  }
  std::string api_url(const std::string& path) const {
    return "http://127.0.0.1:" + std::to_string(api) + path;
  }
};

class Process : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (flock::testing::require({"postgres", "initdb", "psql", "mosquitto", "redis-server"}))
      stack = std::make_unique<Stack>();
  }
  static void TearDownTestSuite() { stack.reset(); }
  void SetUp() override {
    if (!stack) GTEST_SKIP() << "the servers are not installed";
  }
  static std::unique_ptr<Stack> stack;
};
std::unique_ptr<Stack> Process::stack;

// What the admin port answers; status 0 while nobody listens.
Task<net::Response> ask(net::HttpClient& http, std::string url) {
  try {
    co_return co_await http.get(url);
  } catch (const Error&) {
    co_return net::Response{.status = 0, .headers = {}, .body = ""};
  }
}

Task<void> until_ready(net::HttpClient& http, const Stack& stack) {
  for (int i = 0;; ++i) {
    const net::Response answer = co_await ask(http, stack.admin_url("/readyz?verbose=1"));
    if (answer.status == 200) co_return;
    if (i > 200) throw Error(Code::kTimeout, "never became ready: " + answer.body);
    co_await sleep_for(Duration(50));
  }
}

Task<std::string> make_tenant(const Stack& stack) {
  postgres::Options options;
  options.url = stack.postgres.url();
  options.password = Secret(read_secret_file(stack.postgres.password_file()));
  postgres::Database db(co_await asio::this_coro::executor, options);
  const services::FreshKey key = services::make_key("flk_");
  const std::string org = new_uuid();
  co_await db.query(postgres::Scope::system(), postgres::sql::kOrganizationInsert,
                    postgres::Params().text(org).text(std::string("o")).text(org));
  co_await db.query(postgres::Scope::system(), postgres::sql::kApiKeyInsert,
                    postgres::Params()
                        .text(new_uuid())
                        .text(org)
                        .text(std::string("k"))
                        .text(key.prefix)
                        .bytes(key.hash));
  co_return key.secret;
}

// A registry that takes its time to know nothing.
class SlowRegistry {
 public:
  SlowRegistry(Executor executor, int port, Duration takes)
      : asked(executor),
        server_(
            executor,
            [this, takes](net::Request) -> Task<net::Reply> {
              asked.set();
              co_await sleep_for(takes);
              net::Reply reply;
              reply.response.status = 404;
              co_return reply;
            },
            [](const net::Request&, std::exception_ptr) { return net::Response{500, {}, ""}; }) {
    server_.listen(net::Listener::tcp(executor, "127.0.0.1", port));
  }
  Task<void> stop() { co_await server_.stop(); }
  Event asked;

 private:
  net::HttpServer server_;
};

// Asks for a release whose image the slow registry is asked for.
Task<void> ask_for_release(const Stack& stack, std::string key, int& status) {
  net::HttpClient http(co_await asio::this_coro::executor, {});
  net::Headers headers;
  headers.add("Authorization", "Bearer " + key);
  try {
    status = (co_await http.send("POST", stack.api_url("/v1/releases"), headers,
                                 R"({"compose":"services: {a: {image: registry.example/a:1}}"})"))
                 .status;
  } catch (const Error&) {
    status = -1;
  }
}

TEST_F(Process, AnswersWhatIsInFlightBeforeItStops) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        net::HttpClient http(executor, {});
        SlowRegistry registry(executor, stack->registry, Duration(1500));
        const auto program = stack->start();
        co_await until_ready(http, *stack);
        const std::string key = co_await make_tenant(*stack);
        int status = 0;
        TaskScope scope(executor);
        scope.spawn("release", ask_for_release(*stack, key, status));
        co_await registry.asked.wait();
        program->signal(SIGTERM);
        co_await sleep_for(Duration(300));
        const net::Response readiness = co_await ask(http, stack->admin_url("/readyz"));
        EXPECT_EQ(readiness.status, 503) << "the admin port answers while the targets drain";
        EXPECT_EQ((co_await ask(http, stack->admin_url("/livez"))).status, 200);
        co_await scope.join();
        EXPECT_EQ(status, 422) << "the request in flight was cut off";
        co_await registry.stop();
        EXPECT_EQ(program->wait(5), 0) << program->output();
      },
      Duration(30'000));
}

TEST_F(Process, StopsAtOnceWhenAskedTwice) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        net::HttpClient http(executor, {});
        SlowRegistry registry(executor, stack->registry, Duration(20'000));
        const auto program = stack->start();
        co_await until_ready(http, *stack);
        const std::string key = co_await make_tenant(*stack);
        int status = 0;
        TaskScope scope(executor);
        scope.spawn("release", ask_for_release(*stack, key, status));
        co_await registry.asked.wait();
        program->signal(SIGTERM);
        co_await sleep_for(Duration(300));
        EXPECT_FALSE(program->ended());
        program->signal(SIGTERM);
        EXPECT_EQ(program->wait(3), 128 + SIGTERM);
        co_await scope.join();
        co_await registry.stop();
      },
      Duration(30'000));
}

TEST_F(Process, EndsARequestThatOutlivesTheShutdownTimeout) {
  run_task(
      [&]() -> Task<void> {
        const Executor executor = co_await asio::this_coro::executor;
        net::HttpClient http(executor, {});
        SlowRegistry registry(executor, stack->registry, Duration(20'000));
        const auto program = stack->start({"--shutdown_timeout=2s"});
        co_await until_ready(http, *stack);
        const std::string key = co_await make_tenant(*stack);
        int status = 0;
        TaskScope scope(executor);
        scope.spawn("release", ask_for_release(*stack, key, status));
        co_await registry.asked.wait();
        const auto begin = Clock::now();
        program->signal(SIGTERM);
        while (!program->ended() && Clock::now() - begin < std::chrono::seconds(8))
          co_await sleep_for(Duration(20));
        EXPECT_EQ(program->ended(), 0) << program->output();
        EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
        co_await scope.join();
        co_await registry.stop();
      },
      Duration(30'000));
}

TEST_F(Process, WithoutClickHouseItSaysSoAndWorks) {
  const std::string address = "127.0.0.1:" + std::to_string(free_port());
  const auto program =
      stack->start({"--clickhouse.kind=clickhouse", "--clickhouse.url=http://" + address});
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        co_await until_ready(http, *stack);
        const net::Response readiness = co_await ask(http, stack->admin_url("/readyz?verbose=1"));
        EXPECT_EQ(readiness.status, 200);
        for (const char* line : {"[-] api time series", "[-] ingester time series"})
          EXPECT_NE(readiness.body.find(line), std::string::npos) << readiness.body;
        const net::Response metrics = co_await ask(http, stack->admin_url("/metrics"));
        EXPECT_NE(metrics.body.find("flock_time_series_up{target=\"api\"} 0"), std::string::npos);
      },
      Duration(20'000));
  program->signal(SIGTERM);
  EXPECT_EQ(program->wait(10), 0) << program->output();
  EXPECT_NE(program->output().find("no time series for now"), std::string::npos);
}

TEST_F(Process, WaitsForStoresAndStopsWhileItWaits) {
  stack->postgres.kill9();
  const auto waiting = stack->start();
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        net::Response answer;
        for (int i = 0; i < 200 && answer.status != 503; ++i) {
          answer = co_await ask(http, stack->admin_url("/readyz?verbose=1"));
          co_await sleep_for(Duration(20));
        }
        EXPECT_EQ(answer.status, 503);
        EXPECT_NE(answer.body.find("[-] api database"), std::string::npos) << answer.body;
        EXPECT_EQ((co_await ask(http, stack->admin_url("/livez"))).status, 200);
      },
      Duration(10'000));
  waiting->signal(SIGTERM);
  EXPECT_EQ(waiting->wait(5), 0) << waiting->output();
  EXPECT_EQ(waiting->output().find("\"level\":\"error\""), std::string::npos) << waiting->output();
  const auto program = stack->start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  stack->postgres.start();
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        co_await until_ready(http, *stack);
      },
      Duration(20'000));
  program->signal(SIGTERM);
  EXPECT_EQ(program->wait(5), 0) << program->output();
}

// The names in the dashboards' queries; of a histogram the name without its suffix.
std::set<std::string> dashboard_metrics() {
  std::set<std::string> names;
  const std::regex name("flock_[a-z_]+");
  for (const auto& file : std::filesystem::directory_iterator(FLOCK_DASHBOARDS)) {
    const auto board = boost::json::parse(read_file(file.path().string()).value());
    for (const auto& panel : board.at("panels").as_array()) {
      for (const auto& target : panel.at("targets").as_array()) {
        const std::string query(target.at("expr").as_string());
        for (std::sregex_iterator at(query.begin(), query.end(), name), end; at != end; ++at)
          names.insert(std::regex_replace(at->str(), std::regex("_(bucket|sum|count)$"), ""));
      }
    }
  }
  return names;
}

TEST_F(Process, ShowsEveryMetricThatADashboardNames) {
  const std::set<std::string> names = dashboard_metrics();
  EXPECT_GE(names.size(), 15u);
  const auto program = stack->start();
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        co_await until_ready(http, *stack);
        co_await ask(http, stack->api_url("/v1/openapi.json"));
        std::string all, missing = "?";
        for (int i = 0; i < 200 && !missing.empty(); ++i) {
          all = (co_await ask(http, stack->admin_url("/metrics"))).body;
          missing.clear();
          for (const std::string& name : names)
            if (all.find("# TYPE " + name + " ") == std::string::npos) missing += name + " ";
          co_await sleep_for(Duration(50));
        }
        EXPECT_EQ(missing, "");
      },
      Duration(20'000));
  program->signal(SIGTERM);
  EXPECT_EQ(program->wait(5), 0) << program->output();
}

TEST_F(Process, TellsAboutItselfAndKeepsSecrets) {
  run_task(
      [&]() -> Task<void> {
        net::HttpClient http(co_await asio::this_coro::executor, {});
        const auto program = stack->start();
        co_await until_ready(http, *stack);
        const net::Response metrics = co_await ask(http, stack->admin_url("/metrics"));
        EXPECT_EQ(metrics.headers.get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
        for (const char* target : {"api", "ingester", "scheduler", "audit", "events-gateway"}) {
          for (const char* name : {"flock_target_ready", "flock_mqtt_connected"})
            EXPECT_NE(metrics.body.find(std::string(name) + "{target=\"" + target + "\"} 1\n"),
                      std::string::npos)
                << metrics.body;
        }
        for (const char* name : {"flock_build_info", "flock_target_ready", "flock_mqtt_connected"})
          EXPECT_NE(metrics.body.find(std::string("# HELP ") + name), std::string::npos) << name;
        EXPECT_EQ((co_await ask(http, stack->admin_url("/nothing"))).status, 404);
        const net::Response config = co_await ask(http, stack->admin_url("/config"));
        const std::string key =
            read_file(stack->dir.file("keys") + "/device-signing.pem").value_or("?");
        for (const std::string& text : {config.body, program->output()}) {
          EXPECT_EQ(text.find("test-password"), std::string::npos) << text;
          EXPECT_EQ(text.find(key.substr(30, 40)), std::string::npos) << text;
        }
        program->signal(SIGTERM);
        EXPECT_EQ(program->wait(5), 0) << program->output();
      },
      Duration(30'000));
}

TEST_F(Process, RefusesAPasswordWhereEverybodyCanReadIt) {
  for (const char* given :
       {"--postgres.url=postgresql://flock:hunter2@h/flock", "--mqtt.url=mqtts://a:hunter2@h",
        "--postgres.url=host=h password=hunter2", "--registry.url=https://a:hunter2@h",
        "--mqtt.device_urls=mqtts://h,mqtts://a:hunter2@h"}) {
    Program program({"--print-config", given},
                    stack->dir.file("config" + std::to_string(++stack->logs)));
    EXPECT_EQ(program.wait(5), 2) << given;
    EXPECT_EQ(program.output().find("hunter2"), std::string::npos) << program.output();
    EXPECT_NE(program.output().find("password"), std::string::npos) << program.output();
  }
}

TEST_F(Process, ListsOnlyTheTargetsThatExist) {
  Program list({"--list-targets"}, stack->dir.file("list"));
  EXPECT_EQ(list.wait(5), 0);
  EXPECT_EQ(list.output(),
            "api            REST for people, programs and devices\n"
            "ingester       takes what devices report\n"
            "scheduler      drives rollouts\n"
            "audit          writes who did what\n"
            "events-gateway tells customers what happens\n"
            "all            every target above, in this process\n");
  Program unknown({"--target=api,webhooks"}, stack->dir.file("unknown"));
  EXPECT_EQ(unknown.wait(5), 2);
  EXPECT_NE(unknown.output().find("there is no target `webhooks`"), std::string::npos);
}

// FLOCK_TEST_CYCLES and FLOCK_TEST_SEED choose more and which.
TEST_F(Process, StopsAtAnyPointOfItsStart) {
  const char* cycles = std::getenv("FLOCK_TEST_CYCLES");
  const char* seed_text = std::getenv("FLOCK_TEST_SEED");
  const unsigned seed =
      seed_text ? static_cast<unsigned>(std::stoul(seed_text)) : std::random_device()();
  SCOPED_TRACE("FLOCK_TEST_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  const char* targets[] = {"api", "ingester", "scheduler", "audit", "events-gateway", "all"};
  for (int i = 0; i < (cycles ? std::stoi(cycles) : 30) && !HasFailure(); ++i) {
    const std::string target = targets[random() % std::size(targets)];
    const auto program = stack->start({"--target=" + target, "--shutdown_timeout=3s"});
    // Before main() has its handler a signal ends any program.
    flock::testing::wait_until("the admin port", [&] {
      return program->ended() || flock::testing::port_open(stack->admin);
    });
    ASSERT_FALSE(program->ended()) << target << "\n" << program->output();
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 120));
    program->signal(random() % 2 == 0 ? SIGTERM : SIGINT);
    EXPECT_EQ(program->wait(6), 0) << target << "\n" << program->output();
    EXPECT_EQ(program->output().find("did not stop in order"), std::string::npos)
        << program->output();
  }
}

}  // namespace
}  // namespace flock::runtime

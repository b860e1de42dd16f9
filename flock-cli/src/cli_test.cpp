// SPDX-License-Identifier: Apache-2.0
// The command line as its user sees it: whole command lines against an imposter of the API, with
// golden output.
#include "cli.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "async/event.h"
#include "async/loop.h"
#include "audit/chain.h"
#include "base/files.h"
#include "base/time.h"
#include "help.h"
#include "net/http_server.h"
#include "output.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

// Answers by "METHOD target"; what it has no answer for is a 404 problem.
class Api {
 public:
  Api() : thread_([this] { serve(); }) {
    while (port_ == 0) std::this_thread::yield();
  }
  ~Api() {
    asio::post(loop_.executor(), [this] { done_->set(); });
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  void answer(const std::string& request, int status, const std::string& body) {
    const std::lock_guard lock(mutex_);
    answers_[request] = {status, body};
  }
  std::string last_body() {
    const std::lock_guard lock(mutex_);
    return last_body_;
  }

 private:
  void serve() {
    const auto run = [this]() -> Task<void> {
      const Executor executor = co_await asio::this_coro::executor;
      done_.emplace(executor);
      const auto handler = [this](net::Request request) -> Task<net::Reply> {
        const std::lock_guard lock(mutex_);
        last_body_ = request.body;
        net::Reply reply;
        const auto found = answers_.find(request.method + " " + request.target);
        reply.response.status = found == answers_.end() ? 404 : found->second.first;
        reply.response.body = found != answers_.end()
                                  ? found->second.second
                                  : R"({"title":"Not Found","detail":"no such )" + request.target +
                                        R"(","request_id":"r-1","hint":"flock fleets"})";
        co_return reply;
      };
      net::HttpServer server(executor, handler, [](const net::Request&, std::exception_ptr) {
        return net::Response{500, {}, ""};
      });
      auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
      const int port = listener->port();
      server.listen(std::move(listener));
      port_ = port;
      co_await done_->wait();
      co_await server.stop();
    };
    loop_.run(run());
  }

  Loop loop_;
  std::optional<Event> done_;
  std::mutex mutex_;
  std::map<std::string, std::pair<int, std::string>> answers_;
  std::string last_body_;
  std::atomic<int> port_ = 0;
  std::thread thread_;
};

struct Result {
  int code;
  std::string out, err;
};

class Cli : public ::testing::Test {
 protected:
  Cli() {
    for (const char* name : {"FLOCK_TOKEN", "NO_COLOR", "FLOCK_COLOR", "CLICOLOR_FORCE",
                             "GITHUB_ACTIONS", "FLOCK_CA_FILE"})
      ::unsetenv(name);
    ::setenv("FLOCK_CONFIG_HOME", dir.path().c_str(), 1);
    ::setenv("FLOCK_SERVER", api.url().c_str(), 1);
  }
  Result flock(const std::vector<std::string>& line) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = run(line);
    std::fflush(stdout);
    std::fflush(stderr);
    Result result{code, ::testing::internal::GetCapturedStdout(),
                  ::testing::internal::GetCapturedStderr()};
    return result;
  }

  Api api;
  testing::TempDir dir;
};

constexpr const char* kFleets =
    R"({"items":[{"id":"1","name":"Oslo","slug":"oslo","device_count":3,"online_count":2,"current_release":{"id":"r","version":"12"},"created_at":"2026-11-23T10:00:00.000Z"},{"id":"2","name":"Bærum\u001b[31m","slug":"baerum","device_count":0,"online_count":0,"created_at":"2026-11-23T10:00:00.000Z"}],"next_page_token":""})";

TEST_F(Cli, ShowsItsHelpWithoutAServer) {
  ::unsetenv("FLOCK_SERVER");
  for (const auto& line : std::vector<std::vector<std::string>>{{}, {"help"}, {"--help"}, {"-h"}}) {
    const Result result = flock(line);
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(result.out,
              R"(flock: deploy, update and watch fleets of Linux devices

  flock setup     make the first organization with the server's one-time setup key
  flock login     sign in to a server
  flock whoami    show who is signed in
  flock auth      print the token in use
  flock fleets    devices that get the same releases
  flock keys      provisioning keys: what a new device registers with
  flock devices   what is registered, what it runs and should run
  flock releases  compose files locked to digests; never changed
  flock deploy    roll a release out to a fleet and watch it
  flock rollouts  deployments under way and past
  flock audit     who did what, and the proof that nothing is missing
  flock api       call the REST API as it is
  flock version   print the version
  flock help      help for a COMMAND, or exit-codes

Everywhere:
  -o, --output FORMAT      table (default), json as the API gave it, name; --json is -o json
      --no-headers         tables without their first line
      --server URL         default: FLOCK_SERVER, then what `flock login` stored
      --color WHEN         auto (default), always, never; also FLOCK_COLOR and NO_COLOR
      --no-input           fail instead of asking
      --debug              print every request on standard error, without secrets
  -h, --help               this text
)");
  }
  for (const auto& line : std::vector<std::vector<std::string>>{
           {"help", "releases"}, {"releases", "--help"}, {"release", "create", "-h"}}) {
    const Result result = flock(line);
    EXPECT_EQ(result.code, 0);
    EXPECT_TRUE(result.out.starts_with(
        R"(flock releases: compose files locked to digests; never changed

  flock releases [ls]
  flock releases show VERSION
  flock releases create -f FILE [--version VERSION] [--note TEXT]

      --file FILE                -f: a compose file; - reads standard input
      --version VERSION          the release's version; default: the next number
      --note TEXT                what is new, for people

Examples:
  flock releases create -f compose.yaml --note "new camera driver"

Everywhere:
)")) << result.out;
  }
  EXPECT_TRUE(flock({"help", "exit-codes"}).out.starts_with("  0  done\n"));
  EXPECT_EQ(flock({"--version"}).out, flock({"version"}).out);
}

std::vector<std::string> audit_lines(int count) {
  audit::Head head;
  std::vector<std::string> lines;
  for (int i = 1; i <= count; ++i) {
    audit::Event event;
    event.id = std::to_string(i);
    event.at = from_unix_ms(1'790'000'000'000);
    event.actor_name = "Ada";
    event.action = "createFleet";
    lines.push_back(audit::next_line(event, head));
  }
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

TEST_F(Cli, ProvesAnAuditExportOffline) {
  ::unsetenv("FLOCK_SERVER");
  auto lines = audit_lines(20);
  Result result = flock({"audit", "verify", dir.write("a", joined(lines))});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "ok: 20 events, seq 1..20, head " + audit::read_line(lines[19])->hash + "\n");
  result = flock({"audit", "verify", dir.write("a", joined({lines.begin() + 4, lines.end()}))});
  EXPECT_TRUE(result.out.starts_with("ok: 16 events, seq 5..20")) << result.out;
  EXPECT_EQ(result.err, "It begins at seq 5; what came before is not in it.\n");
  lines.erase(lines.begin() + 17);
  lines.erase(lines.begin());
  result = flock({"audit", "verify", dir.write("a", joined(lines))});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.out, "line 17: event seq 18 is missing\n");
  EXPECT_EQ(result.err, "What stands before it is good: seq 2..17.\n");
  result = flock({"audit", "verify", dir.write("a", kFleets)});
  EXPECT_EQ(result.out, "line 1: this is not an audit event\n");
  EXPECT_EQ(flock({"audit", "verify", dir.file("nosuch")}).code, 3);
  EXPECT_EQ(flock({"audit", "prove"}).code, 2);
}

TEST_F(Cli, ListsAndExportsTheAuditLog) {
  const auto lines = audit_lines(2);
  api.answer("GET /v1/audit?page_size=50&actor=u%201", 200,
             R"({"items":[)" + lines[0] + R"(],"next_page_token":""})");
  Result result = flock({"audit", "--actor", "u 1"});
  EXPECT_EQ(result.out,
            "SEQ\tAT\tWHO\tKIND\tACTION\tON\tNAME\tOUTCOME\n"
            "1\t2026-09-21T14:13:20.000Z\tAda\t\tcreateFleet\t\t\tdone\n");
  api.answer("GET /v1/audit/head", 200, R"({"seq":2})");
  api.answer("GET /v1/audit/export?format=jsonl", 200, joined(lines));
  result = flock({"audit", "export"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, joined(lines));
  api.answer("GET /v1/audit/export?format=xml", 400, R"({"detail":"there is no such format"})");
  result = flock({"audit", "export", "--format", "xml"});
  EXPECT_EQ(result.code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("there is no such format"), std::string::npos) << result.err;
}

// Each command says something about each of its flags and shows how it is used.
TEST_F(Cli, DocumentsEveryCommandAndFlag) {
  for (const CommandHelp& command : command_helps()) {
    const std::string text = help_for(command);
    EXPECT_FALSE(command.usage.empty() || command.examples.empty()) << command.name;
    for (const std::string& flag : command.flags)
      EXPECT_NE(text.find("      --" + flag), std::string::npos) << command.name << " " << flag;
    EXPECT_EQ(flock({"help", command.name}).code, 0);
  }
}

TEST_F(Cli, PrintsTabSeparatedTablesIntoAPipe) {
  api.answer("GET /v1/fleets?page_size=1000", 200, kFleets);
  const Result result = flock({"fleets"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.err, "");
  // A name cannot steer the terminal.
  EXPECT_EQ(result.out,
            "FLEET\tNAME\tDEVICES\tONLINE\tRELEASE\tCREATED\n"
            "oslo\tOslo\t3\t2\t12\t2026-11-23T10:00:00.000Z\n"
            "baerum\tBærum\xef\xbf\xbd[31m\t0\t0\t\t2026-11-23T10:00:00.000Z\n");
  EXPECT_EQ(flock({"fleet", "ls", "--no-headers"}).out,
            result.out.substr(result.out.find('\n') + 1));
  EXPECT_EQ(flock({"fleets", "-o", "name"}).out, "oslo\nbaerum\n");
  EXPECT_EQ(flock({"fleets", "--output=json"}).out,
            std::string(bj::serialize(bj::parse(kFleets))) + "\n");
  EXPECT_EQ(flock({"fleets", "--json"}).out, flock({"fleets", "-o", "json"}).out);
  api.answer("GET /v1/fleets?page_size=1000", 200, R"({"items":[],"next_page_token":""})");
  EXPECT_EQ(flock({"fleets"}).out, "");
}

TEST_F(Cli, PrintsAlignedTablesWithSignsOnATerminal) {
  Output output;
  output.terminal = true;
  const std::vector<Column> columns{{"DEVICE", "name"}, {"STATE", "state"}, {"NOTE", "note"}};
  const bj::value devices = bj::parse(
      R"({"items":[{"name":"gw-1","state":"ONLINE","note":"a"},{"name":"Bærum","state":"FAILED"},{"name":"x","state":"DOWNLOADING"},{"name":"y","state":"OFFLINE"}]})");
  EXPECT_EQ(render(output, devices, columns, "name"),
            "DEVICE  STATE          NOTE\n"
            "gw-1    ● ONLINE       a\n"
            "Bærum   ✗ FAILED\n"
            "x       … DOWNLOADING\n"
            "y       ○ OFFLINE\n");
  const std::string soon = to_rfc3339(system_clock().now() + Duration(7'300'000)),
                    past = to_rfc3339(system_clock().now() - Duration(90'000));
  EXPECT_EQ(
      render(output,
             bj::object{
                 {"at", past}, {"expires_at", soon}, {"on", bj::parse(R"([{"p":"a"},{"p":"b"}])")}},
             {{"SEEN", "at"}, {"EXPIRES", "expires_at"}, {"ON", "on.p"}}, "at"),
      "SEEN    EXPIRES  ON\n1m ago  in 2h    a,b\n");
  output.color = true;
  const std::string colored = render(output, devices, columns, "name");
  EXPECT_NE(colored.find("\x1b[32m● ONLINE\x1b[0m       a\n"), std::string::npos) << colored;
  EXPECT_NE(colored.find("\x1b[31m✗ FAILED\x1b[0m"), std::string::npos) << colored;
}

TEST_F(Cli, HasNoColorIntoAPipeUnlessItIsForced) {
  const std::string devices =
      R"({"items":[{"id":"1","name":"gw","state":"ONLINE"}],"next_page_token":""})";
  api.answer("GET /v1/devices?page_size=1000", 200, devices);
  const auto colored = [&](const std::vector<std::string>& line) {
    return flock(line).out.find('\x1b') != std::string::npos;
  };
  EXPECT_FALSE(colored({"devices"}));
  EXPECT_TRUE(colored({"devices", "--color", "always"}));
  ::setenv("CLICOLOR_FORCE", "1", 1);
  EXPECT_TRUE(colored({"devices"}));
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(colored({"devices"}));
  ::setenv("FLOCK_COLOR", "always", 1);
  EXPECT_TRUE(colored({"devices"}));
  EXPECT_FALSE(colored({"devices", "--color=never"}));
  EXPECT_EQ(flock({"devices", "--color", "sometimes"}).code, 2);
}

TEST_F(Cli, TakesEveryPageOfAList) {
  api.answer("GET /v1/devices?fleet_id=a%20b&page_size=1000", 200,
             R"({"items":[{"id":"1"}],"next_page_token":"t/2"})");
  api.answer("GET /v1/devices?fleet_id=a%20b&page_size=1000&page_token=t%2F2", 200,
             R"({"items":[{"id":"2"}],"next_page_token":"t3"})");
  api.answer("GET /v1/devices?fleet_id=a%20b&page_size=1000&page_token=t3", 200,
             R"({"items":[{"id":"3"}],"next_page_token":""})");
  EXPECT_EQ(flock({"devices", "--fleet", "a b", "-o", "name"}).out, "1\n2\n3\n");
  EXPECT_EQ(
      flock({"devices", "--fleet", "a b", "-o", "json"}).out,
      "{\"items\":[{\"id\":\"1\"},{\"id\":\"2\"},{\"id\":\"3\"}],\"next_page_token\":\"\"}\n");
}

TEST_F(Cli, SaysWhatWentWrongAndWhatToDo) {
  const Result missing = flock({"fleets", "show", "a/b"});
  EXPECT_EQ(missing.code, 3);
  EXPECT_EQ(missing.out, "");
  EXPECT_EQ(missing.err, "Error: no such /v1/fleets/a%2Fb\nTry:   flock fleets\nRequest: r-1\n");
  api.answer(
      "POST /v1/releases", 400,
      R"({"title":"Bad Request","detail":"the compose file cannot become a release","errors":[{"pointer":"/services/web/build","code":"unsupported","detail":"`build` is not supported"}],"request_id":"r-2"})");
  const Result refused = flock({"releases", "create", "-f", dir.write("c.yaml", "services: {}\n")});
  EXPECT_EQ(refused.code, 1);
  EXPECT_EQ(refused.err,
            "Error: the compose file cannot become a release\nWhy:   /services/web/build: `build` "
            "is not supported\nRequest: r-2\n");
}

TEST_F(Cli, EndsWithTheDocumentedExitCode) {
  const auto with_status = [&](int status) {
    api.answer("GET /v1/whoami", status, "{}");
    return flock({"whoami"}).code;
  };
  EXPECT_EQ(with_status(200), 0);
  EXPECT_EQ(with_status(401), 4);
  EXPECT_EQ(with_status(403), 4);
  EXPECT_EQ(with_status(404), 3);
  EXPECT_EQ(with_status(409), 5);
  EXPECT_EQ(with_status(412), 5);
  EXPECT_EQ(with_status(422), 1);
  EXPECT_EQ(with_status(500), 1);
  EXPECT_EQ(with_status(503), 6);
  EXPECT_EQ(with_status(504), 7);
  EXPECT_EQ(flock({"whoami", "--server", "http://127.0.0.1:1"}).code, 6);
  ::unsetenv("FLOCK_SERVER");
  EXPECT_EQ(flock({"whoami"}).code, 4);
}

TEST_F(Cli, RefusesWhatItDoesNotUnderstand) {
  const std::pair<std::vector<std::string>, const char*> lines[] = {
      {{"devces"}, "Try:   flock devices\n"},
      {{"xyzzy"}, "Try:   flock help\n"},
      {{"help", "devics"}, "Try:   flock devices\n"},
      {{"devices", "shwo", "gw"}, "Try:   flock devices show\n"},
      {{"devices", "--soak", "5s"}, "Try:   flock help devices\n"},
      {{"keys", "create", "--max-use", "5"}, "Try:   flock help keys\n"},
      {{"fleets", "--nonsense"}, "Try:   flock help fleets\n"},
      {{"fleets", "-o", "xml"}, "Try:   -o table, -o json or -o name\n"},
      {{"fleets", "-o"}, "needs a value"},
      {{"fleets", "--no-headers=yes"}, "takes no value"},
      {{"fleets", "create", "Oslo", "gateways"}, "unexpected: gateways"},
      {{"fleets", "create"}, "missing: a name"},
      {{"keys", "create", "--fleet", "a", "--max-uses", "many"}, "whole number"},
      {{"keys", "create", "--fleet", "a", "--max-uses", "0"}, "whole number"},
      {{"keys", "create"}, "missing: --fleet"},
      {{"deploy", "oslo"}, "missing: --release"},
      {{"deploy", "oslo", "--release", "1", "-f", "x"}, "exclude each other"},
      {{"deploy"}, "missing: a fleet"},
      {{"login"}, "missing: --with-token"},
      {{"setup"}, "missing: the setup key"},
  };
  for (const auto& [line, words] : lines) {
    const Result result = flock(line);
    EXPECT_EQ(result.code, 2) << words;
    EXPECT_EQ(result.out, "") << words;
    EXPECT_TRUE(result.err.starts_with("Error: ")) << result.err;
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  }
  EXPECT_EQ(flock({"releases", "create", "-f", dir.file("none")}).code, 3);
}

TEST_F(Cli, KeepsTheTokenToItself) {
  api.answer("POST /v1/setup", 201,
             R"({"organization":{"name":"Acme"},"api_key":{"secret":"flk_hush"}})");
  api.answer("GET /v1/whoami", 200, R"({"name":"first","organization":{"name":"Acme"},"id":"1"})");
  const Result setup =
      flock({"setup", "--setup-key-file", dir.write("key", "flks_x\n"), "--organization", "Acme"});
  EXPECT_EQ(setup.code, 0) << setup.err;
  EXPECT_EQ(setup.out, "");
  EXPECT_EQ(setup.err.find("flk_hush"), std::string::npos);
  EXPECT_EQ(api.last_body(), R"({"setup_key":"flks_x","organization":"Acme"})");
  EXPECT_EQ(flock({"auth", "token"}).out, "flk_hush\n");
  const Result debug = flock({"whoami", "--debug"});
  EXPECT_NE(debug.err.find("> GET " + api.url() + "/v1/whoami"), std::string::npos) << debug.err;
  EXPECT_NE(debug.err.find("< 200"), std::string::npos);
  EXPECT_EQ(debug.err.find("flk_hush"), std::string::npos);
}

TEST_F(Cli, WatchesARolloutToItsEnd) {
  const auto watch = [&](const std::string& state) {
    api.answer("GET /v1/rollouts/1/events", 200,
               "event: rollout\ndata: {\"release\":{\"version\":\"2\"},\"counts\":{\"confirmed\":1,"
               "\"total\":2,\"failed\":0}}\n\nevent: device\ndata: "
               "{\"name\":\"gw\",\"state\":\"CONFIRMED\"}\n\nevent: end\ndata: {\"state\":\"" +
                   state + "\"}\n\n");
    return flock({"rollouts", "watch", "1"});
  };
  const Result good = watch("COMPLETED");
  EXPECT_EQ(good.code, 0);
  EXPECT_NE(good.out.find("1/2 confirmed"), std::string::npos) << good.out;
  EXPECT_NE(good.out.find("✓ gw "), std::string::npos) << good.out;
  EXPECT_EQ(watch("FAILED").code, 9);
  EXPECT_EQ(flock({"rollouts", "watch", "2"}).code, 3);
}

TEST_F(Cli, CallsTheApiAsItIs) {
  api.answer("GET /v1/fleets", 200, kFleets);
  EXPECT_EQ(flock({"api", "/v1/fleets"}).out, std::string(kFleets) + "\n");
  EXPECT_EQ(flock({"api", "v1/fleets"}).code, 0);
  api.answer("POST /v1/fleets", 201, "{}");
  EXPECT_EQ(flock({"api", "/v1/fleets", "-d", "{\"name\":\"x\"}"}).code, 0);
  EXPECT_EQ(api.last_body(), "{\"name\":\"x\"}");
  EXPECT_EQ(flock({"api", "/v1/nothing"}).code, 3);
  EXPECT_TRUE(flock({"api", "/v1/fleets", "-i"}).out.starts_with("HTTP/1.1 200 OK\n"));
}

}  // namespace
}  // namespace flock::cli

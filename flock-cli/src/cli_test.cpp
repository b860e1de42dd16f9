// SPDX-License-Identifier: Apache-2.0
// The command line as its user sees it: whole command lines against an imposter of the API, with
// golden output.
#include <boost/json.hpp>

#include "audit/chain.h"
#include "base/files.h"
#include "base/time.h"
#include "cli_fixture.h"
#include "help.h"
#include "output.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kFleets =
    R"({"items":[{"id":"1","name":"Oslo","slug":"oslo","device_count":3,"online_count":2,"current_release":{"id":"r","version":"12"},"created_at":"2026-11-23T10:00:00.000Z"},{"id":"2","name":"Bærum\u001b[31m","slug":"baerum","device_count":0,"online_count":0,"created_at":"2026-11-23T10:00:00.000Z"}],"next_page_token":""})";

TEST_F(Cli, ShowsItsHelpWithoutAServer) {
  ::unsetenv("FLOCK_SERVER");
  for (const auto& line : std::vector<std::vector<std::string>>{{}, {"help"}, {"--help"}, {"-h"}}) {
    const Result result = flock(line);
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(result.out,
              R"HELP(flock: deploy, update and watch fleets of Linux devices

  flock setup       make the first organization with the server's one-time setup key
  flock login       sign in to a server
  flock logout      forget the credential of this context, and revoke it where that is possible
  flock whoami      show who is signed in, where, and as what
  flock auth        print the token in use, for other programs
  flock contexts    the servers you use, each with organization and default fleet
  flock config      what the context in use says, and where each value comes from
  flock orgs        organizations you are a member of
  flock members     who belongs to the organization, and as what
  flock tokens      API keys for programs
  flock fleets      devices that get the same releases
  flock keys        provisioning keys: what a new device registers with
  flock device-requests devices that wait for somebody to let them in
  flock devices     what is registered, what it runs and should run
  flock logs        what services write, of many devices as one stream
  flock operations  changes of many devices, under way and past
  flock releases    compose files locked to digests; never changed
  flock deploy      roll a release or a host command out to a fleet and watch it
  flock rollouts    deployments under way and past
  flock env         environment variables and secrets
  flock subscriptions where to be told of events, as webhooks
  flock audit       who did what, and the proof that nothing is missing
  flock api         call the REST API as it is
  flock doctor      check configuration, server, clock and credential
  flock completion  the completion script of a shell
  flock version     print the version
  flock help        help for a COMMAND, or exit-codes, environment, formatting

Everywhere:
  -o, --output FORMAT            table (default), wide, json, yaml, csv or name
      --json[=FIELDS]            -o json; --json=name,state prints those fields alone
      --columns A,B              the columns of a table or csv, by head or by path
      --no-headers               tables and csv without their first line
      --server URL               the server to talk to
      --context NAME             the context to use; see flock help contexts
      --org ORG                  the organization to work in: its slug or id
      --color WHEN               auto (default), always or never
      --no-input                 fail instead of asking
      --debug                    print every request on standard error, without secrets
  -h, --help                     this text
)HELP");
  }
  for (const auto& line : std::vector<std::vector<std::string>>{
           {"help", "releases"}, {"releases", "--help"}, {"release", "create", "-h"}}) {
    const Result result = flock(line);
    EXPECT_EQ(result.code, 0);
    EXPECT_TRUE(
        result.out.starts_with(R"HELP(flock releases: compose files locked to digests; never changed

  flock releases [ls] [--limit N]
  flock releases show VERSION
  flock releases create -f FILE [--version VERSION] [--note TEXT] [--tag TAG] [--draft]
  flock releases replace VERSION -f FILE
      the compose file of a draft; its images are locked again
  flock releases finalize VERSION
      a draft never changes again, and can be deployed
  flock releases invalidate VERSION --reason TEXT [--yes]
      nobody can deploy it any more
  flock releases note VERSION TEXT
  flock releases tag VERSION [TAG...]
      the tags it has from now on
  flock releases diff VERSION VERSION
      what changes from one to the other
  flock releases retention [--keep-last N] [--keep-days N] [--keep-all] [--yes]
      which old releases go by themselves; with a flag: from now on
  flock releases rm VERSION [--yes]

      --limit N                  stop after N items; default 1000, 0 takes all
  -f, --file FILE                a compose file; - reads standard input
      --version VERSION          the release's version; default: the next number
      --note TEXT                what is new, for people
      --tag TAG                  a tag; may repeat
      --draft                    it can be replaced, and not be deployed, until it is final
      --reason TEXT              why, for people
      --yes                      do not ask
      --keep-last N              the newest so many stay
      --keep-days N              those that are younger stay
      --keep-all                 no rule: nothing goes by itself

Examples:
  flock releases create -f compose.yaml --note "new camera driver"

Everywhere:
)HELP")) << result.out;
  }
  EXPECT_TRUE(flock({"help", "exit-codes"}).out.starts_with("  0  done\n"));
  EXPECT_NE(flock({"help", "environment"}).out.find("FLOCK_ORG"), std::string::npos);
  EXPECT_NE(flock({"help", "formatting"}).out.find("csv"), std::string::npos);
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
  api.answer("GET /v1/audit?actor=u%201&page_size=50", 200,
             R"({"items":[)" + lines[0] + R"(],"next_page_token":""})");
  Result result = flock({"audit", "--actor", "u 1"});
  EXPECT_EQ(result.out,
            "SEQ\tAT\tWHO\tKIND\tACTION\tON\tNAME\tOUTCOME\n"
            "1\t2026-09-21T14:13:20.000Z\tAda\t\tcreateFleet\t\t\tdone\n");
  api.answer("GET /v1/audit/export", 200, joined(lines));
  result = flock({"audit", "export"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, joined(lines));
  api.answer("GET /v1/audit/export?format=xml", 400, R"({"detail":"there is no such format"})");
  result = flock({"audit", "export", "--format", "xml"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("there is no such format"), std::string::npos) << result.err;
}

// Each command says something about each of its flags and shows how it is used.
TEST_F(Cli, DocumentsEveryCommandAndFlag) {
  const bj::value tree = bj::parse(flock({"help", "--json"}).out);
  EXPECT_EQ(tree.at("commands").as_array().size(), commands().size());
  for (const Command& command : commands()) {
    const std::string text = help_for(command);
    EXPECT_FALSE(command.summary.empty() || command.examples.empty()) << command.name;
    for (const Verb& verb : command.verbs) {
      EXPECT_NE(verb.run, nullptr) << command.name << " " << verb.name;
      for (const Flag& flag : verb.flags)
        EXPECT_NE(text.find("--" + flag.name), std::string::npos) << command.name << flag.name;
    }
    EXPECT_EQ(flock({"help", command.name}).out, text);
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
      {{"devices", "--soak", "5s"}, "`flock devices ls` has no --soak"},
      {{"keys", "create", "--max-use", "5"}, "Try:   flock keys create --max-uses\n"},
      {{"fleets", "--nonsense"}, "Try:   flock help fleets\n"},
      {{"fleets", "rm", "x", "--limit", "5"}, "`flock fleets rm` has no --limit"},
      {{"fleets", "-o", "xml"}, "Try:   -o table, wide, json, yaml, csv or name\n"},
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
      {{"login"}, "no sign-in by browser"},
      {{"auth"}, "missing: what to do"},
      {{"devices", "rm"}, "missing: a device"},
      {{"devices", "rm", "a", "b"}, "changes 2 devices"},
      {{"devices", "-l", "site"}, "not key=value"},
      {{"devices", "--all", "--fleet", "x"}, "excludes"},
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

// SPDX-License-Identifier: Apache-2.0
// Formats, selection, completion and the commands of organization and account.
#include <boost/json.hpp>

#include "cli_fixture.h"
#include "output.h"
#include "selection.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kDevices =
    R"({"items":[{"id":"1","name":"=cmd","state":"ONLINE","fleet":{"slug":"oslo"},"labels":{"site":"a, b"}}],"next_page_token":""})";

TEST_F(Cli, WritesCsvThatNoSpreadsheetRuns) {
  api.answer("GET /v1/devices?page_size=1000", 200, kDevices);
  EXPECT_EQ(flock({"devices", "-o", "csv"}).out,
            "DEVICE,STATE,SINCE,REASON,FLEET,WANTED,PHASE,SEEN,ID,ERROR\r\n"
            "'=cmd,ONLINE,,,oslo,,,,1,\r\n");
  EXPECT_EQ(flock({"devices", "-o", "csv", "--columns", "id,labels.site"}).out,
            "ID,LABELS.SITE\r\n1,\"a, b\"\r\n");
  Output output;
  output.format = Format::kCsv;
  output.headers = false;
  EXPECT_EQ(render(output, bj::parse(R"({"a":-5,"b":"-5+1","c":"a\"b"})"),
                   {{"A", "a"}, {"B", "b"}, {"C", "c"}}, "a"),
            "-5,'-5+1,\"a\"\"b\"\r\n");
}

TEST_F(Cli, WritesYaml) {
  EXPECT_EQ(
      yaml_text(bj::parse(
          R"({"items":[{"id":"1","name":"yes","at":"2026-01-01T00:00:00Z","on":[1,true],"o":{"x":null,"e":[]}},{"id":"a\u009b"}]})")),
      "items:\n"
      "- id: \"1\"\n"
      "  name: \"yes\"\n"
      "  at: \"2026-01-01T00:00:00Z\"\n"
      "  \"on\":\n"
      "  - 1\n"
      "  - true\n"
      "  o:\n"
      "    x: null\n"
      "    e: []\n"
      "- id: \"a\\x9b\"\n");
  EXPECT_EQ(json_text(bj::parse(R"(["a\u009b\u007f"])")), R"(["a\u009b\u007f"])");
}

TEST_F(Cli, ShowsTheColumnsAndFieldsAskedFor) {
  api.answer("GET /v1/devices?page_size=1000", 200, kDevices);
  EXPECT_EQ(flock({"devices", "--columns", "state,device"}).out, "STATE\tDEVICE\nONLINE\t=cmd\n");
  EXPECT_EQ(flock({"devices", "--columns", "nonsense"}).code, 2);
  EXPECT_TRUE(flock({"devices", "-o", "wide"})
                  .out.ends_with("\tID\tERROR\n=cmd\tONLINE\t\t\toslo\t\t\t\t1\t\n"));
  EXPECT_EQ(flock({"devices", "--json=name,fleet.slug"}).out,
            R"({"items":[{"name":"=cmd","fleet.slug":"oslo"}],"next_page_token":""})"
            "\n");
  Output narrow;
  narrow.terminal = true;
  narrow.width = 22;
  EXPECT_EQ(render(narrow, bj::parse(R"({"a":"short","b":"a text that is too long"})"),
                   {{"A", "a"}, {"B", "b"}}, "a"),
            "A      B\nshort  a text that is…\n");
}

TEST_F(Cli, StopsAtTheLimitAndSaysSo) {
  api.answer("GET /v1/fleets?page_size=1", 200,
             R"({"items":[{"slug":"a"}],"next_page_token":"t"})");
  const Result result = flock({"fleets", "--limit", "1", "-o", "name"});
  EXPECT_EQ(result.out, "a\n");
  EXPECT_EQ(result.err, "There are more than these 1; --limit 0 takes all.\n");
}

TEST_F(Cli, SelectsDevicesByTheApisFilter) {
  EXPECT_EQ(label_filter("site=oslo, stage!=a\"b"),
            "labels.site = \"oslo\" AND labels.stage != \"a\\\"b\"");
  api.answer(
      "GET /v1/devices?fleet_id=demo&filter=%28state%20%3D%20ONLINE%29%20AND%20labels.a%20%3D%20%22"
      "b%22&order_by=name&page_size=1000",
      200, kDevices);
  EXPECT_EQ(flock({"devices", "--fleet", "demo", "-l", "a=b", "--filter", "state = ONLINE",
                   "--order-by", "name", "-o", "name"})
                .out,
            "1\n");
  api.answer("GET /v1/devices?page_size=1000", 200, kDevices);
  EXPECT_EQ(flock({"devices", "rm", "--all"}).code, 2);
  // A default fleet narrows a selection and is none by itself.
  ::setenv("FLOCK_FLEET", "demo", 1);
  EXPECT_EQ(flock({"devices", "rm", "--yes"}).code, 2);
  api.answer("GET /v1/devices?fleet_id=demo&filter=labels.a%20%3D%20%22b%22&page_size=1000", 200,
             R"({"items":[],"next_page_token":""})");
  EXPECT_EQ(flock({"devices", "rm", "-l", "a=b", "--yes"}).err,
            "Error: no device matches\nTry:   flock devices ls\n");
  ::unsetenv("FLOCK_FLEET");
  api.answer("DELETE /v1/devices/1", 204, "");
  EXPECT_EQ(flock({"devices", "rm", "--all", "--yes"}).err,
            "Device =cmd is revoked and removed.\n");
}

TEST_F(Cli, CompletesCommandsFlagsAndNames) {
  ::setenv("XDG_CACHE_HOME", dir.path().c_str(), 1);
  EXPECT_EQ(flock({"__complete", "dep"}).out,
            "deploy\troll a release or a host command out to a fleet and watch it\n");
  EXPECT_EQ(flock({"__complete", "fleets", "cr"}).out, "create\t\n");
  EXPECT_EQ(flock({"__complete", "devices", "ls", "--ord"}).out.substr(0, 10), "--order-by");
  api.answer("GET /v1/fleets?page_size=200", 200,
             R"J({"items":[{"slug":"oslo","name":"Oslo"},{"slug":"$(reboot)","name":"x"}]})J");
  EXPECT_EQ(flock({"__complete", "fleets", "show", ""}).out, "oslo\tOslo\n");
  EXPECT_EQ(flock({"__complete", "devices", "--fleet", "o"}).out, "oslo\tOslo\n");
  EXPECT_EQ(flock({"__complete", "releases", "show", ""}).out, "");
  for (const char* shell : {"bash", "zsh", "fish", "powershell"})
    EXPECT_NE(flock({"completion", shell}).out.find("__complete"), std::string::npos);
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_F(Cli, ManagesTokensAndMembers) {
  api.answer("POST /v1/api-keys", 201, R"({"id":"k1","secret":"flk_new"})");
  EXPECT_EQ(flock({"tokens", "create", "--name", "ci", "--role", "viewer", "--scope", "a",
                   "--scope", "b", "--expires-in", "24h", "--no-headers"})
                .out,
            "flk_new\n");
  EXPECT_EQ(api.last_body(),
            R"({"name":"ci","role":"viewer","expires_in":"24h","scopes":["a","b"]})");
  api.answer("POST /v1/invitations", 201, R"({"id":"i1","secret":"inv"})");
  EXPECT_EQ(flock({"members", "invite", "ada@example.com", "--role", "admin"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"email":"ada@example.com","role":"admin"})");
  api.answer("PATCH /v1/members/m1", 200, "{}");
  EXPECT_EQ(flock({"members", "role", "m1", "viewer", "--fleet", "f1"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"role":"viewer","fleet_ids":["f1"]})");
  api.answer("POST /v1/invitations/accept", 200, "{}");
  EXPECT_EQ(flock({"members", "accept", "inv"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"token":"inv"})");
}

TEST_F(Cli, RenamesAnOrganizationThatIsNotTheOneInUse) {
  api.answer("PATCH /v1/organizations/acme", 200,
             R"({"id":"o1","slug":"acme","name":"Acme Robotics"})");
  EXPECT_EQ(flock({"orgs", "rename", "acme", "Acme Robotics"}).out,
            "ORGANIZATION\tNAME\tROLE\tCREATED\nacme\tAcme Robotics\t\t\n");
  EXPECT_EQ(api.last_body(), R"({"name":"Acme Robotics"})");
  EXPECT_EQ(api.last_organization(), "acme");
  EXPECT_NE(flock({"orgs", "rename", "acme"}).err.find("the new name"), std::string::npos);
}

TEST_F(Cli, ShowsAndChangesHowLongAnOrganizationKeepsItsData) {
  constexpr const char* kAcme =
      R"({"id":"o1","slug":"acme","name":"Acme","retention":{"telemetry_days":90,"logs_days":14}})";
  api.answer("GET /v1/organizations/acme", 200, kAcme);
  api.answer("PATCH /v1/organizations/acme", 200, kAcme);
  const std::string table = "ORGANIZATION\tTELEMETRY DAYS\tLOGS DAYS\nacme\t90\t14\n";
  EXPECT_EQ(flock({"orgs", "retention", "acme"}).out, table);
  EXPECT_EQ(api.last_organization(), "acme");
  EXPECT_EQ(flock({"orgs", "retention", "acme", "--telemetry-days", "90", "--yes"}).out, table);
  EXPECT_EQ(api.last_body(), R"({"retention":{"telemetry_days":90}})");
  EXPECT_EQ(flock({"orgs", "retention", "acme", "--logs-days", "0", "--yes"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"retention":{"logs_days":0}})");
  EXPECT_EQ(flock({"orgs", "retention", "acme", "--logs-days", "-1", "--yes"}).code, 2);
  EXPECT_EQ(flock({"orgs", "retention"}).code, 2);
}

TEST_F(Cli, ListsAndForgetsDevicesThatAKeyLetsIn) {
  api.answer("GET /v1/provisioning-keys/k1/devices?page_size=1000", 200,
             R"({"items":[{"id":"p1","thumbprint":"T1","name":"gw-1"},
             {"id":"p2","thumbprint":"T2","device_id":"d2"}],"next_page_token":""})");
  EXPECT_EQ(flock({"keys", "devices", "k1"}).out,
            "ID\tTHUMBPRINT\tNAME\tDEVICE\np1\tT1\tgw-1\t\np2\tT2\t\td2\n");
  api.answer("DELETE /v1/provisioning-keys/k1/devices/p1", 204, "");
  const Result gone = flock({"keys", "remove-device", "k1", "p1", "--yes"});
  EXPECT_EQ(gone.code, 0) << gone.err;
  EXPECT_NE(gone.err.find("stays"), std::string::npos);
  EXPECT_EQ(flock({"keys", "remove-device", "k1", "--yes"}).code, 2);
}

TEST_F(Cli, GuardsTheWayIn) {
  api.answer("POST /v1/provisioning-keys", 201, R"({"id":"k1","secret":"flp_new"})");
  EXPECT_EQ(flock({"keys", "create", "--fleet", "edge", "--network", "10.0.0.0/8", "--label",
                   "site=oslo", "--approval", "--preregistered"})
                .code,
            0);
  EXPECT_EQ(api.last_body(),
            R"({"fleet_id":"edge","allowed_networks":["10.0.0.0/8"],"labels":{"site":"oslo"},)"
            R"("approval_required":true,"mode":"PREREGISTERED"})");
  api.answer("PATCH /v1/provisioning-keys/k1", 200,
             R"({"id":"k1","name":"line 2","prefix":"flp_ab","uses":3,"max_uses":1000})");
  EXPECT_EQ(flock({"keys", "change", "k1", "--max-uses", "1000", "--name", "line 2", "--expires-in",
                   "60d"})
                .out,
            "ID\tNAME\tKEY\tUSES\tMAX\tEXPIRES\tREVOKED\nk1\tline 2\tflp_ab\t3\t1000\t\t\n");
  EXPECT_EQ(api.last_body(), R"({"name":"line 2","expires_in":"60d","max_uses":1000})");
  EXPECT_EQ(flock({"keys", "change", "k1"}).code, 2) << "nothing to change";
  EXPECT_EQ(flock({"keys", "change", "k1", "--max-uses", "0"}).code, 2);
  EXPECT_NE(flock({"keys", "create", "--fleet", "edge", "--label", "oslo"}).code, 0);
  api.answer("POST /v1/provisioning-keys/k1/devices", 201, R"({"id":"p1","thumbprint":"t"})");
  EXPECT_EQ(flock({"keys", "add-device", "k1", "t", "--name", "gw"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"thumbprint":"t","name":"gw"})");
  api.answer("POST /v1/device-requests/r1/actions/approve", 200, R"({"id":"r1"})");
  EXPECT_EQ(flock({"device-requests", "approve", "r1"}).code, 0);
  EXPECT_NE(flock({"device-requests", "reject", "r1"}).code, 0) << "no such answer";
}

TEST_F(Cli, CarriesAReleaseThroughItsLife) {
  api.answer("POST /v1/releases/1.0/actions/finalize", 200, R"({"id":"r"})");
  EXPECT_EQ(flock({"releases", "finalize", "1.0"}).code, 0);
  api.answer("POST /v1/releases/1.0/actions/invalidate", 200, R"({"id":"r"})");
  EXPECT_EQ(flock({"releases", "invalidate", "1.0", "--reason", "bad", "--yes"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"reason":"bad"})");
  api.answer("PATCH /v1/releases/1.0", 200, R"({"id":"r"})");
  EXPECT_EQ(flock({"releases", "tag", "1.0", "lts", "b"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"tags":["lts","b"]})");
  EXPECT_EQ(flock({"releases", "note", "1.0", "n"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"note":"n"})");
  api.answer("GET /v1/releases/1.0/diff?to=2.0", 200,
             R"({"services":[{"name":"web","change":"CHANGED","fields":[{"field":"command",)"
             R"("to":["a"]}]},{"name":"old","change":"REMOVED","fields":[]}]})");
  const std::string lines = flock({"releases", "diff", "1.0", "2.0", "-o", "csv"}).out;
  EXPECT_NE(lines.find("web,CHANGED,command"), std::string::npos) << lines;
  EXPECT_NE(lines.find("old,REMOVED"), std::string::npos) << lines;
  api.answer("GET /v1/release-retention", 200, "{}");
  const Result every = flock({"releases", "retention"});
  EXPECT_EQ(every.err, "Every release is kept.\n");
  EXPECT_EQ(flock({"releases", "retention", "--json"}).out, "{}\n");
  api.answer("PUT /v1/release-retention", 200, R"({"keep_last":20,"keep_days":90})");
  EXPECT_EQ(flock({"releases", "retention", "--keep-last", "20", "--keep-days", "90", "--yes"}).out,
            "NEWEST\tDAYS\n20\t90\n");
  EXPECT_EQ(api.last_body(), R"({"keep_last":20,"keep_days":90})");
  api.answer("PUT /v1/release-retention", 200, "{}");
  EXPECT_EQ(flock({"releases", "retention", "--keep-all"}).code, 0);
  EXPECT_EQ(api.last_body(), "{}");
  EXPECT_EQ(flock({"releases", "retention", "--keep-all", "--keep-last", "1"}).code, 2);
  EXPECT_EQ(flock({"releases", "retention", "--keep-days", "0"}).code, 2);
  api.answer("DELETE /v1/releases/1.0", 204, "");
  EXPECT_EQ(flock({"releases", "rm", "1.0", "--yes"}).code, 0);
}

TEST_F(Cli, ManagesSubscriptions) {
  api.answer("POST /v1/event-subscriptions", 201, R"({"id":"s1","secret":"whsec_x"})");
  EXPECT_EQ(flock({"subscriptions", "create", "--name", "ops", "--url", "https://a.example/",
                   "--event", "rollout.*", "--no-headers"})
                .out,
            "whsec_x\n");
  EXPECT_EQ(api.last_body(),
            R"({"name":"ops","url":"https://a.example/","event_types":["rollout.*"]})");
  api.answer("PATCH /v1/event-subscriptions/s1", 200, R"({"id":"s1"})");
  EXPECT_EQ(flock({"subscriptions", "disable", "s1"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"enabled":false})");
  api.answer("DELETE /v1/event-subscriptions/s1", 204, "");
  EXPECT_EQ(flock({"subscriptions", "rm", "s1", "--yes"}).code, 0);
}

TEST_F(Cli, SendsFieldsAndFollowsPages) {
  api.answer("POST /v1/things", 201, "{}");
  EXPECT_EQ(flock({"api", "/v1/things", "-f", "name=5", "-F", "count=5", "-F", "on=true"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"name":"5","count":5,"on":true})");
  api.answer("GET /v1/things?a=b&page_size=1000", 200, R"({"items":[1],"next_page_token":"t"})");
  api.answer("GET /v1/things?a=b&page_size=1000&page_token=t", 200,
             R"({"items":[2],"next_page_token":""})");
  EXPECT_EQ(flock({"api", "/v1/things", "--paginate", "-f", "a=b"}).out,
            "{\"items\":[1,2],\"next_page_token\":\"\"}\n");
}

TEST_F(Cli, TellsScriptsAboutARollout) {
  const auto status = [&](const char* state) {
    api.answer("GET /v1/rollouts/1", 200, std::string(R"({"id":"1","state":")") + state + "\"}");
    return flock({"rollouts", "status", "1"}).code;
  };
  EXPECT_EQ(status("COMPLETED"), 0);
  EXPECT_EQ(status("RUNNING"), 8);
  EXPECT_EQ(status("FAILED"), 9);
}

TEST_F(Cli, AnnotatesErrorsInGithubActions) {
  ::setenv("GITHUB_ACTIONS", "true", 1);
  const Result result = flock({"fleets", "show", "50%"});
  EXPECT_TRUE(result.err.ends_with("::error::no such /v1/fleets/50%2525\n")) << result.err;
  ::unsetenv("GITHUB_ACTIONS");
}

}  // namespace
}  // namespace flock::cli

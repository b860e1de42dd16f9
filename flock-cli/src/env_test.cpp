// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>

#include "base/error.h"
#include "cli_fixture.h"
#include "dotenv.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

TEST(Dotenv, ReadsWhatShellsAndDockerRead) {
  EXPECT_EQ(parse_dotenv("\xef\xbb\xbf# all\n"
                         "A=1\r\n"
                         "\n"
                         "  export B = two words  # not three\n"
                         "C=a#b\n"
                         "D='$A \\n # \"x\"' # literal\n"
                         "E=\"line\\n\\\"two\\\" \\$A\n"
                         "third\"\n"
                         "export=plain\n"
                         "F=\n"
                         "G"
                         "=last"),
            (Assignments{{"A", "1"},
                         {"B", "two words"},
                         {"C", "a#b"},
                         {"D", "$A \\n # \"x\""},
                         {"E", "line\n\"two\" $A\nthird"},
                         {"export", "plain"},
                         {"F", ""},
                         {"G", "last"}}));
  EXPECT_TRUE(parse_dotenv("").empty());
  EXPECT_TRUE(parse_dotenv("# nothing").empty());
}

TEST(Dotenv, NamesTheLineOfAFaultAndNotTheValue) {
  for (const auto& [text, line] :
       std::vector<std::pair<std::string, std::string>>{{"A=1\nhunter2\n", "line 2"},
                                                        {"A=1\n\nB=\"hunter2\n", "line 3"},
                                                        {"A='hunter2", "line 1"},
                                                        {"A='hunter2' more", "line 1"},
                                                        {"=hunter2", "line 1"},
                                                        {"A-B=hunter2", "line 1"}}) {
    try {
      parse_dotenv(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_TRUE(error.message().starts_with(line)) << error.message();
      EXPECT_EQ(error.describe().find("hunter2"), std::string::npos);
    }
  }
}

TEST(Dotenv, ReadsBackWhatItWrites) {
  for (const std::string value : {"", "plain-1.2/x", "two words", "a\nb\r\n", "\"q\" \\ $HOME 'x'",
                                  "# no comment", " edges ", "\\n", "æøå"})
    EXPECT_EQ(parse_dotenv(dotenv_line("A", value)), (Assignments{{"A", value}})) << value;
}

constexpr const char* kEnvironment = R"({"device_id":"d","services":[{"name":"web","variables":[
  {"name":"LOG_LEVEL","origin":"device","secret":false,"value":"debug","overrides":[
    {"origin":"fleet","secret":false,"value":"info"},{"origin":"release","secret":false,"value":"x"}]},
  {"name":"TOKEN","origin":"fleet","secret":true,"overrides":[]}]}]})";
constexpr const char* kVariables = R"({"items":[
  {"id":"1","level":"fleet","name":"TOKEN","secret":true,"updated_by":"ada"},
  {"id":"2","level":"fleet","name":"LOG_LEVEL","secret":false,"value":"two words","updated_by":"ada"},
  {"id":"3","level":"fleet","name":"PORT","service":"web","secret":false,"value":"80","updated_by":"ada"},
  {"id":"4","level":"fleet","name":"ONLY","secret":false,"value":"here","updated_by":"ada"}],
  "next_page_token":""})";

class Env : public Cli {};

TEST_F(Env, ShowsWhereAValueOfADeviceComesFrom) {
  api.answer("GET /v1/devices/gw-17/environment", 200, kEnvironment);
  EXPECT_EQ(flock({"env", "ls", "--device", "gw-17"}).out,
            "SERVICE\tNAME\tVALUE\tORIGIN\tOVERRIDES\n"
            "web\tLOG_LEVEL\tdebug\tdevice\tfleet, release\n"
            "web\tTOKEN\t(secret)\tfleet\t\n");
  EXPECT_EQ(bj::parse(flock({"env", "--device", "gw-17", "-o", "json"}).out),
            bj::parse(kEnvironment));
}

TEST_F(Env, SetsOneOrManyAtEachLevel) {
  api.answer("PUT /v1/fleets/oslo/variables/LOG_LEVEL?service=web", 201, "{}");
  EXPECT_EQ(flock({"env", "set", "LOG_LEVEL", "a=b", "--fleet", "oslo", "--service", "web"}).code,
            0);
  EXPECT_EQ(bj::parse(api.last_body()), (bj::value{{"value", "a=b"}}));
  api.answer("PUT /v1/devices/gw-17/variables/TOKEN", 201, "{}");
  const Result set = flock({"env", "set", "TOKEN=x=y", "--secret", "--device", "gw-17"});
  EXPECT_EQ(set.code, 0);
  EXPECT_EQ(set.err, "TOKEN is set for the device gw-17.\n");
  EXPECT_EQ(bj::parse(api.last_body()), (bj::value{{"value", "x=y"}, {"secret", true}}));
  api.answer("GET /v1/whoami", 200, R"({"organization":{"id":"o-1","name":"Acme"}})");
  api.answer("POST /v1/organizations/o-1/actions/import-variables", 200, R"({"items":[]})");
  EXPECT_EQ(flock({"env", "set", "A=1", "B=", "--org-wide"}).err,
            "2 set for the organization Acme.\n");
  EXPECT_EQ(bj::parse(api.last_body()),
            bj::parse(R"({"variables":[{"name":"A","value":"1"},{"name":"B","value":""}]})"));
  api.answer("DELETE /v1/devices/gw-17/variables/TOKEN", 204, "");
  EXPECT_EQ(flock({"env", "unset", "TOKEN", "--device", "gw-17"}).code, 0);
}

TEST_F(Env, SaysWhatIsMissing) {
  EXPECT_NE(flock({"env", "ls"}).err.find("--org-wide, --fleet or --device"), std::string::npos);
  EXPECT_EQ(flock({"env", "ls", "--org-wide", "--fleet", "x"}).code, 2);
  EXPECT_EQ(flock({"env", "set", "A", "--no-input", "--fleet", "x"}).code, 2);
  EXPECT_EQ(flock({"env", "set", "A=1", "B", "--fleet", "x"}).code, 2);
}

TEST_F(Env, CarriesFilesInAndOut) {
  api.answer("POST /v1/fleets/oslo/actions/import-variables", 200, R"({"items":[]})");
  api.answer("GET /v1/fleets/oslo/variables?page_size=1000", 200, kVariables);
  const std::string file = dir.write(".env", "A=1\nA=2\nLOG_LEVEL=info\nTOKEN=x\n");
  EXPECT_EQ(flock({"env", "import", file, "--fleet", "oslo"}).code, 0);
  EXPECT_EQ(bj::parse(api.last_body()),
            bj::parse(R"({"variables":[{"name":"A","value":"2"},)"
                      R"({"name":"LOG_LEVEL","value":"info"},{"name":"TOKEN","value":"x"}]})"));
  EXPECT_EQ(flock({"env", "export", "--fleet", "oslo"}).out,
            "LOG_LEVEL=\"two words\"\nONLY=here\n# TOKEN is a secret\n");
  EXPECT_EQ(
      flock({"env", "diff", file, "--fleet", "oslo"}).out,
      "- LOG_LEVEL=\"two words\"\n+ LOG_LEVEL=info\n- ONLY=here\n? TOKEN is a secret\n+ A=2\n");
  const Result broken = flock({"env", "import", dir.write("bad", "x\n"), "--fleet", "oslo"});
  EXPECT_EQ(broken.code, 2);
  EXPECT_NE(broken.err.find("line 1 is not NAME=value"), std::string::npos) << broken.err;
}

}  // namespace
}  // namespace flock::cli

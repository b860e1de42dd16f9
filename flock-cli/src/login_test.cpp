// SPDX-License-Identifier: Apache-2.0
// Contexts, settings and signing in; the imposter is the identity provider too.
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>

#include "base/files.h"
#include "base/time.h"
#include "cli_fixture.h"
#include "commands/doctor.h"
#include "contexts.h"
#include "oidc.h"
#include "testing/run_task.h"
#include "toml.h"

namespace flock::cli {
namespace {

class Login : public Cli {
 protected:
  Login() {
    api.answer("GET /v1/auth/config", 200,
               R"({"oidc":{"issuer":")" + api.url() +
                   R"(","client_id":"flock-cli","audience":"https://api","scopes":"openid"}})");
    api.answer("GET /.well-known/openid-configuration", 200,
               R"({"issuer":")" + api.url() + R"(","device_authorization_endpoint":")" + api.url() +
                   R"(/device","token_endpoint":")" + api.url() +
                   R"(/token","revocation_endpoint":")" + api.url() + R"(/revoke"})");
    api.answer(
        "POST /device", 200,
        R"({"device_code":"dc","user_code":"ABCD-\u001b[31m","verification_uri":"https://id/device","interval":0,"expires_in":60})");
    api.answer(
        "GET /v1/whoami", 200,
        R"({"kind":"user","id":"u1","email":"ada@example.com","role":"admin","organization":{"name":"Acme","slug":"acme"}})");
  }
  void tokens(int expires_in) {
    api.answer("POST /token", 200,
               R"({"access_token":"at-1","refresh_token":"rt-1","expires_in":)" +
                   std::to_string(expires_in) + "}");
  }
};

TEST_F(Login, SignsInByDeviceFlowAndOutAgain) {
  tokens(3600);
  const Result in = flock({"login"});
  EXPECT_EQ(in.code, 0) << in.err;
  EXPECT_EQ(in.out, "");
  EXPECT_NE(in.err.find("enter the code  ABCD-\xef\xbf\xbd[31m\n"), std::string::npos) << in.err;
  EXPECT_NE(in.err.find("as ada@example.com of Acme, admin (context default)"), std::string::npos)
      << in.err;
  EXPECT_EQ(flock({"auth", "token"}).out, "at-1\n");
  EXPECT_EQ(api.last_token(), "Bearer at-1");
  struct stat info{};
  ASSERT_EQ(::stat(dir.file("credentials.json").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  api.answer("POST /revoke", 200, "");
  EXPECT_EQ(flock({"logout"}).code, 0);
  EXPECT_EQ(api.last_body(), "token=rt-1&token_type_hint=refresh_token&client_id=flock-cli");
  EXPECT_EQ(flock({"auth", "token"}).code, 4);
}

TEST_F(Login, RefreshesATokenThatIsAboutToExpire) {
  tokens(30);
  ASSERT_EQ(flock({"login"}).code, 0);
  api.answer("POST /token", 200, R"({"access_token":"at-2","expires_in":3600})");
  EXPECT_EQ(flock({"auth", "token"}).out, "at-2\n");
  EXPECT_EQ(api.last_body(),
            "grant_type=refresh_token&refresh_token=rt-1&client_id=flock-cli&resource=https%3A%2F%"
            "2Fapi");
  // It is stored: nobody is asked again.
  api.answer("POST /token", 400, R"({"error":"invalid_grant"})");
  EXPECT_EQ(flock({"auth", "token"}).out, "at-2\n");
}

TEST_F(Login, SaysWhatToRunWhenTheSignInHasEnded) {
  tokens(30);
  ASSERT_EQ(flock({"login"}).code, 0);
  api.answer("POST /token", 400, R"({"error":"invalid_grant"})");
  const Result result = flock({"whoami"});
  EXPECT_EQ(result.code, 4);
  EXPECT_NE(result.err.find("Try:   flock login --server " + api.url()), std::string::npos)
      << result.err;
}

TEST_F(Login, HasASentenceForEveryRefusal) {
  const std::pair<const char*, int> refusals[] = {
      {"access_denied", 4}, {"expired_token", 7}, {"invalid_client", 1}};
  for (const auto& [error, code] : refusals) {
    api.answer("POST /token", 400, std::string(R"({"error":")") + error + "\"}");
    EXPECT_EQ(flock({"login"}).code, code) << error;
  }
  DevicePoll poll(Duration(5000));
  EXPECT_FALSE(poll.done({400, {}, R"({"error":"authorization_pending"})"}));
  EXPECT_EQ(poll.interval(), Duration(5000));
  EXPECT_FALSE(poll.done({400, {}, R"({"error":"slow_down"})"}));
  EXPECT_EQ(poll.interval(), Duration(10'000));
  EXPECT_TRUE(poll.done({200, {}, "{}"}));
}

TEST_F(Login, MovesTheOldFilesIntoAContext) {
  ::unsetenv("FLOCK_SERVER");
  dir.write("config.json", R"({"server":")" + api.url() + R"(","ca_file":""})");
  dir.write("credentials.json", R"({"token":"flk_old"})");
  EXPECT_EQ(flock({"auth", "token"}).out, "flk_old\n");
  EXPECT_FALSE(std::filesystem::exists(dir.file("config.json")));
  EXPECT_EQ(read_file(dir.file("config.toml")),
            "current = \"default\"\n\n[contexts.default]\nserver = \"" + api.url() + "\"\n");
  EXPECT_EQ(flock({"auth", "token"}).out, "flk_old\n");
}

TEST_F(Login, SendsAStoredTokenOnlyToItsOwnServer) {
  ::unsetenv("FLOCK_SERVER");
  dir.write("config.toml",
            "current = \"home\"\n[contexts.home]\nserver = \"https://home.example\"\n");
  change_credentials([](Credentials& all) { all["home"].access_token = Secret("flk_home"); });
  EXPECT_EQ(flock({"auth", "token"}).out, "flk_home\n");
  EXPECT_EQ(flock({"auth", "token", "--server", api.url()}).code, 4);
  EXPECT_EQ(flock({"whoami", "--context", "hoem"}).code, 3);
}

TEST_F(Login, TightensCredentialsThatOthersCouldRead) {
  tokens(3600);
  ASSERT_EQ(flock({"login"}).code, 0);
  ASSERT_EQ(::chmod(dir.file("credentials.json").c_str(), 0644), 0);
  EXPECT_NE(flock({"auth", "token"}).err.find("it is 0600 now"), std::string::npos);
  EXPECT_EQ(flock({"auth", "token"}).err, "");
}

TEST_F(Login, ManagesContexts) {
  tokens(3600);
  ASSERT_EQ(flock({"login"}).code, 0);
  ASSERT_EQ(flock({"login", "--context", "test"}).code, 0);
  EXPECT_EQ(flock({"contexts", "--columns", "context,current", "--no-headers"}).out,
            "default\t\ntest\t*\n");
  EXPECT_EQ(flock({"contexts", "use", "default"}).code, 0);
  EXPECT_EQ(flock({"config", "set", "fleet", "demo"}).code, 0);
  EXPECT_EQ(flock({"config", "get", "fleet"}).out, "demo\n");
  EXPECT_EQ(flock({"config", "set", "server", "https://x.example"}).code, 2);
  EXPECT_EQ(flock({"contexts", "rm", "test", "--yes"}).code, 0);
  EXPECT_EQ(flock({"contexts", "use", "test"}).code, 3);
}

TEST_F(Login, ExaminesItsOwnSituation) {
  tokens(3600);
  ASSERT_EQ(flock({"login"}).code, 0);
  const Result good = flock({"doctor", "--columns", "check,state", "--no-headers"});
  EXPECT_EQ(good.code, 0) << good.out << good.err;
  EXPECT_NE(good.out.find("credential\tOK\n"), std::string::npos) << good.out;
  api.answer("GET /v1/whoami", 401, "{}");
  EXPECT_EQ(flock({"doctor"}).code, 1);
  EXPECT_EQ(flock({"doctor", "--server", "http://127.0.0.1:1"}).code, 1);
}

TEST_F(Login, TellsWhereEachValueComesFrom) {
  dir.write("config.toml", "current = \"home\"\n[contexts.home]\nserver = \"" + api.url() +
                               "\"\norganization = \"acme\"\nfleet = \"demo\"\n");
  ::setenv("FLOCK_FLEET", "other", 1);
  EXPECT_EQ(flock({"config", "explain", "--no-headers"}).out,
            "context\thome\tconfig.toml\nserver\t" + api.url() +
                "\tFLOCK_SERVER\norganization\tacme\tcontext home\nfleet\tother\tFLOCK_FLEET\n"
                "ca_file\t\tnot set\ncredential\t\tnot set\n");
  flock({"whoami"});
  EXPECT_EQ(api.last_organization(), "acme");
  flock({"whoami", "--org", "beta"});
  EXPECT_EQ(api.last_organization(), "beta");
  dir.write("config.toml", "current = \"home\"\nnonsense\n");
  const Result broken = flock({"whoami"});
  EXPECT_EQ(broken.code, 2);
  EXPECT_NE(broken.err.find("line 2: expected ="), std::string::npos) << broken.err;
}

TEST(Toml, ReadsTablesAndTexts) {
  const auto tables = toml::parse("a = \"x\\\"y\" # why\n\n[contexts.\"b.c\"]\nd = 'e'\n", "f");
  ASSERT_EQ(tables.size(), 2U);
  EXPECT_EQ(tables[0].entries[0].value, "x\"y");
  EXPECT_EQ(tables[1].path, (std::vector<std::string>{"contexts", "b.c"}));
  EXPECT_EQ(toml::write(tables), "a = \"x\\\"y\"\n\n[contexts.\"b.c\"]\nd = \"e\"\n");
  for (const char* bad : {"a = 1", "a", "[a", "a = \"x", "a = \"x\" y", "a=\"1\"\na=\"2\"",
                          "[a]\n[a]", "a = \"\"\"x\"\"\"", "a = \"\\q\""})
    EXPECT_EQ(testing::code_of([&] { toml::parse(bad, "f"); }), Code::kInvalidArgument) << bad;
}

TEST(Doctor, WarnsWhenTheClocksDisagree) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  EXPECT_EQ(check_clock("Sun, 06 Nov 1994 08:49:37 GMT", 784111777 + 30).state, "OK");
  EXPECT_EQ(check_clock("Sun, 06 Nov 1994 08:49:37 GMT", 784111777 - 31).state, "WARN");
  EXPECT_EQ(check_clock("yesterday", 0).state, "WARN");
}

}  // namespace
}  // namespace flock::cli

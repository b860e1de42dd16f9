// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <tuple>

#include "async/scope.h"
#include "base/bytes.h"
#include "crypto/keys.h"
#include "net/http_server.h"
#include "oci/registry_client.h"
#include "testing/run_task.h"

namespace flock::oci {
namespace {

using flock::testing::code_of;
using flock::testing::code_of_task;
using flock::testing::run_task;

TEST(Reference, FollowsTheUsualRules) {
  EXPECT_EQ(parse_reference("nginx").text(), "docker.io/library/nginx:latest");
  EXPECT_EQ(parse_reference("acme/web:1").text(), "docker.io/acme/web:1");
  EXPECT_EQ(parse_reference("127.0.0.1:5000/a/b:v1").registry, "127.0.0.1:5000");
  EXPECT_EQ(parse_reference("localhost/a").registry, "localhost");
  EXPECT_EQ(parse_reference("[::1]:5000/a").registry, "[::1]:5000");
  EXPECT_EQ(parse_reference("r.example/a__b/c-d/e--f.g:V1_.-x").tag, "V1_.-x");
  EXPECT_EQ(parse_reference("library/nginx").text(), "docker.io/library/nginx:latest");
  EXPECT_EQ(code_of([] { parse_reference(std::string(600, 'a')); }), Code::kInvalidArgument);
  EXPECT_EQ(code_of([] { parse_reference("a:" + std::string(129, 'a')); }), Code::kInvalidArgument);
  const std::string digest = "sha256:" + std::string(64, 'a');
  EXPECT_EQ(parse_reference("r.example/a@" + digest).tag, "");
  EXPECT_EQ(parse_reference("r.example/a:1@" + digest).digest, digest);
  for (const char* bad : {"",
                          "A",
                          "a b",
                          "a:",
                          "a:-x",
                          "r.example/",
                          "r.example//a",
                          "a@sha256:1",
                          "a@md5:1",
                          "/a",
                          "a/",
                          "r.ex$/a",
                          "a..b",
                          "a._b",
                          "a___b",
                          "a/../b",
                          "a.",
                          "-a",
                          "r.example:/a",
                          "r.example:x/a",
                          "r.example:123456/a",
                          "[::1/a",
                          "[]:1/a",
                          ":5000/a",
                          "a:b:c",
                          "a@",
                          "a@sha256:",
                          "r.example/A",
                          "http://r.example/a",
                          "a:1@sha256:1",
                          "a\nb",
                          "r.example/a%2fb"}) {
    EXPECT_EQ(code_of([&] { parse_reference(bad); }), Code::kInvalidArgument) << bad;
  }
}

// A registry of files behind a token; "raw:" bodies are sent as they are, headers and all.
struct Imposter {
  std::map<std::string, std::string> files;  // path -> body
  std::string base, token_answer = R"({"token":"good"})", realm_query;
  int token_status = 200, token_calls = 0;

  std::string put(const std::string& kind, const std::string& body) {
    const std::string digest = "sha256:" + to_hex(crypto::sha256(body));
    files["/v2/acme/web/" + kind + "/" + digest] = body;
    return digest;
  }
  void tag(const std::string& name, const std::string& body) {
    files["/v2/acme/web/manifests/" + name] = body;
  }

  Task<net::Reply> answer(net::Request request) {
    net::Reply reply;
    if (request.path() == "/token") {
      ++token_calls;
      reply.response.status = token_status;
      reply.response.body = token_answer;
    } else if (request.headers.get("Authorization") != "Bearer good") {
      reply.response.status = 401;
      reply.response.headers.add(
          "WWW-Authenticate",
          "Bearer realm=\"" + base + "/token" + realm_query + "\",service=\"s\",scope=\"x\"");
    } else if (const auto found = files.find(request.path()); found != files.end()) {
      reply.response.body = found->second;
    } else if (request.path().ends_with("slow")) {
      co_await sleep_for(Duration(60'000));
    } else {
      reply.response.status = request.path().ends_with("broken") ? 500 : 404;
    }
    co_return reply;
  }
};

// Runs `body` against an imposter that serves on loopback.
void with_registry(std::function<Task<void>(Imposter&, RegistryClient&)> body) {
  run_task([&]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Imposter imposter;
    const auto handler = [&](net::Request request) { return imposter.answer(std::move(request)); };
    net::HttpServer server(executor, handler, [](const net::Request&, std::exception_ptr) {
      return net::Response{500, {}, ""};
    });
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    imposter.base = "http://127.0.0.1:" + std::to_string(listener->port());
    server.listen(std::move(listener));
    net::ClientOptions limits;
    limits.body_bytes = 64 * 1024;
    net::HttpClient http(executor, limits);
    RegistryClient client(
        http, {{{"r.example", imposter.base}, {"away.example", "http://127.0.0.1:1"}}, {}});
    co_await body(imposter, client);
    co_await server.stop();
  });
}

Task<void> resolves(RegistryClient& client, std::string text) {
  co_await client.resolve(parse_reference(text));
}

const std::string one_digest = "sha256:" + std::string(64, '1');
const std::string two_digest = "sha256:" + std::string(64, '2');

TEST(RegistryClient, ResolvesIndexesAndSingleManifestsAndTellsFaultsApart) {
  with_registry([](Imposter& imposter, RegistryClient& client) -> Task<void> {
    const std::string config =
        imposter.put("blobs", R"({"architecture":"arm","variant":"v7","os":"linux"})");
    const std::string single = R"({"config":{"digest":")" + config + R"("},"layers":[]})";
    imposter.tag("single", single);
    imposter.tag(
        "many",
        R"({"manifests":[{"digest":")" + one_digest +
            R"(","platform":{"os":"linux","architecture":"amd64"}},{"digest":")" + two_digest +
            R"(","platform":{"os":"linux","architecture":"arm64","variant":"v8"}},{"digest":"sha256:attestation","platform":{"os":"unknown","architecture":"unknown"}}]})");
    imposter.tag("nonsense", "<html>");
    imposter.tag("sha256:" + std::string(64, 'b'), single);
    const auto resolve = [&](const std::string& text) {
      return client.resolve(parse_reference(text));
    };
    const Resolved one = co_await resolve("r.example/acme/web:single");
    EXPECT_EQ(one.platforms, (std::map<std::string, std::string>{{"linux/arm/v7", one.digest}}));
    const Resolved many = co_await resolve("r.example/acme/web:many");
    EXPECT_EQ(many.platforms, (std::map<std::string, std::string>{{"linux/amd64", one_digest},
                                                                  {"linux/arm64", two_digest}}));

    const auto fails = [&](std::string text) -> Task<void> { co_await resolve(text); };
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:missing")), Code::kNotFound);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:broken")), Code::kUnavailable);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:nonsense")), Code::kProtocol);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web@sha256:" + std::string(64, 'b'))),
              Code::kProtocol);
    EXPECT_EQ(co_await code_of_task(fails("away.example/acme/web:1")), Code::kUnavailable);
  });
}

// What a registry says is foreign input: nothing but a digest may end in a release.
TEST(RegistryClient, TakesNoDigestThatIsNone) {
  with_registry([](Imposter& imposter, RegistryClient& client) -> Task<void> {
    const auto index = [](const std::string& entry) {
      return R"({"manifests":[{)" + entry +
             R"("platform":{"os":"linux","architecture":"amd64"}}]})";
    };
    const std::string upper = "sha256:" + std::string(64, 'A');
    imposter.tag("missing-digest", index(""));
    imposter.tag("number-digest", index(R"("digest":5,)"));
    imposter.tag("short-digest", index(R"("digest":"sha256:12",)"));
    imposter.tag("upper-digest", index(R"("digest":")" + upper + R"(",)"));
    imposter.tag("path-digest", R"({"config":{"digest":"../../other/blobs/x"}})");
    imposter.tag("no-config-digest", R"({"config":{}})");
    for (const char* tag : {"missing-digest", "number-digest", "short-digest", "upper-digest",
                            "path-digest", "no-config-digest"}) {
      EXPECT_EQ(co_await code_of_task(resolves(client, "r.example/acme/web:" + std::string(tag))),
                Code::kProtocol)
          << tag;
    }
  });
}

TEST(RegistryClient, RefusesManifestsThatAreCutForgedOrHuge) {
  with_registry([](Imposter& imposter, RegistryClient& client) -> Task<void> {
    const std::string config = imposter.put("blobs", R"({"architecture":"amd64","os":"linux"})");
    const std::string good = R"({"config":{"digest":")" + config + R"("},"layers":[]})";
    imposter.tag("cut", good.substr(0, good.size() - 5));
    imposter.tag("empty", "");
    imposter.tag("list", "[]");
    imposter.tag("deep", std::string(1000, '['));
    imposter.tag("huge", std::string(100 * 1024, ' ') + good);
    imposter.tag("no-config", "{}");
    const std::string forged = "sha256:" + std::string(64, 'c');
    imposter.files["/v2/acme/web/blobs/" + forged] = R"({"architecture":"amd64","os":"linux"})";
    imposter.tag("forged-config", R"({"config":{"digest":")" + forged + R"("}})");
    for (const char* tag : {"cut", "empty", "list", "deep", "huge", "no-config", "forged-config"}) {
      EXPECT_EQ(co_await code_of_task(resolves(client, "r.example/acme/web:" + std::string(tag))),
                Code::kProtocol)
          << tag;
    }
    // No device could run these.
    imposter.tag("none", R"({"manifests":[]})");
    imposter.tag("odd", R"({"manifests":[5,{},{"platform":{}},{"platform":{"os":"linux"}}]})");
    const std::string bare = imposter.put("blobs", "{}");
    imposter.tag("bare", R"({"config":{"digest":")" + bare + R"("}})");
    for (const char* tag : {"none", "odd", "bare"}) {
      EXPECT_EQ(co_await code_of_task(resolves(client, "r.example/acme/web:" + std::string(tag))),
                Code::kUnprocessable)
          << tag;
    }
  });
}

TEST(RegistryClient, GoesByTheRegistrysOwnChallenge) {
  with_registry([](Imposter& imposter, RegistryClient& client) -> Task<void> {
    const std::string config = imposter.put("blobs", R"({"architecture":"amd64","os":"linux"})");
    imposter.tag("1", R"({"config":{"digest":")" + config + R"("}})");
    imposter.token_answer = R"({"access_token":"good"})";  // OAuth's name for it
    imposter.realm_query = "?account=x";
    co_await resolves(client, "r.example/acme/web:1");
    EXPECT_GE(imposter.token_calls, 1);
    for (const auto& [status, answer, code] :
         {std::tuple{200, R"({"token":"wrong"})", Code::kForbidden},
          std::tuple{200, "{}", Code::kForbidden}, std::tuple{403, "", Code::kForbidden},
          std::tuple{200, "<html>", Code::kProtocol}, std::tuple{200, "[]", Code::kProtocol}}) {
      imposter.token_status = status;
      imposter.token_answer = answer;
      EXPECT_EQ(co_await code_of_task(resolves(client, "r.example/acme/web:1")), code) << answer;
    }
  });
}

TEST(RegistryClient, StaysCancellable) {
  with_registry([](Imposter&, RegistryClient& client) -> Task<void> {
    EXPECT_EQ(co_await code_of_task(with_deadline(resolves(client, "r.example/acme/web:slow"),
                                                  Duration(50), "resolving")),
              Code::kTimeout);
    Code seen = Code::kInternal;
    const auto waits = [&]() -> Task<void> {
      seen = co_await code_of_task(resolves(client, "r.example/acme/web:slow"));
    };
    TaskScope scope(co_await asio::this_coro::executor);
    scope.spawn("waits", waits());
    co_await sleep_for(Duration(50));
    scope.cancel();
    co_await scope.join();
    EXPECT_EQ(seen, Code::kCancelled);
  });
}

}  // namespace
}  // namespace flock::oci

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

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
  const std::string digest = "sha256:" + std::string(64, 'a');
  EXPECT_EQ(parse_reference("r.example/a@" + digest).tag, "");
  EXPECT_EQ(parse_reference("r.example/a:1@" + digest).digest, digest);
  for (const char* bad : {"", "A", "a b", "a:", "a:-x", "r.example/", "r.example//a", "a@sha256:1",
                          "a@md5:1", "/a", "a/", "r.ex$/a"}) {
    EXPECT_EQ(code_of([&] { parse_reference(bad); }), Code::kInvalidArgument) << bad;
  }
}

// A registry of one image, behind a token.
struct Imposter {
  std::map<std::string, std::string> files;  // path -> body
  std::string put(const std::string& kind, const std::string& body) {
    const std::string digest = "sha256:" + to_hex(crypto::sha256(body));
    files["/v2/acme/web/" + kind + "/" + digest] = body;
    return digest;
  }
};

TEST(RegistryClient, ResolvesIndexesAndSingleManifestsAndTellsFaultsApart) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    Imposter imposter;
    const std::string config =
        imposter.put("blobs", R"({"architecture":"arm","variant":"v7","os":"linux"})");
    const std::string single = R"({"config":{"digest":")" + config + R"("},"layers":[]})";
    imposter.files["/v2/acme/web/manifests/single"] = single;
    imposter.files["/v2/acme/web/manifests/many"] =
        R"({"manifests":[{"digest":"sha256:1","platform":{"os":"linux","architecture":"amd64"}},{"digest":"sha256:2","platform":{"os":"linux","architecture":"arm64","variant":"v8"}},{"digest":"sha256:3","platform":{"os":"unknown","architecture":"unknown"}}]})";
    imposter.files["/v2/acme/web/manifests/nonsense"] = "<html>";
    imposter.files["/v2/acme/web/manifests/sha256:" + std::string(64, 'b')] = single;
    std::string base;
    const auto handler = [&](net::Request request) -> Task<net::Reply> {
      net::Reply reply;
      if (request.path() == "/token") {
        reply.response.body = R"({"token":"good"})";
      } else if (request.headers.get("Authorization") != "Bearer good") {
        reply.response.status = 401;
        reply.response.headers.add("WWW-Authenticate",
                                   "Bearer realm=\"" + base + "/token\",service=\"s\",scope=\"x\"");
      } else if (const auto found = imposter.files.find(request.path());
                 found != imposter.files.end()) {
        reply.response.body = found->second;
      } else {
        reply.response.status = request.path().ends_with("broken") ? 500 : 404;
      }
      co_return reply;
    };
    net::HttpServer server(executor, handler, [](const net::Request&, std::exception_ptr) {
      return net::Response{500, {}, ""};
    });
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    base = "http://127.0.0.1:" + std::to_string(listener->port());
    server.listen(std::move(listener));

    net::HttpClient http(executor, {});
    RegistryClient client(http,
                          {{{"r.example", base}, {"away.example", "http://127.0.0.1:1"}}, {}});
    const auto resolve = [&](const std::string& text) {
      return client.resolve(parse_reference(text));
    };
    const Resolved one = co_await resolve("r.example/acme/web:single");
    EXPECT_EQ(one.platforms, (std::map<std::string, std::string>{{"linux/arm/v7", one.digest}}));
    const Resolved many = co_await resolve("r.example/acme/web:many");
    EXPECT_EQ(many.platforms, (std::map<std::string, std::string>{{"linux/amd64", "sha256:1"},
                                                                  {"linux/arm64", "sha256:2"}}));

    const auto fails = [&](std::string text) -> Task<void> { co_await resolve(text); };
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:missing")), Code::kNotFound);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:broken")), Code::kUnavailable);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web:nonsense")), Code::kProtocol);
    EXPECT_EQ(co_await code_of_task(fails("r.example/acme/web@sha256:" + std::string(64, 'b'))),
              Code::kProtocol);
    EXPECT_EQ(co_await code_of_task(fails("away.example/acme/web:1")), Code::kUnavailable);
    co_await server.stop();
  });
}

}  // namespace
}  // namespace flock::oci

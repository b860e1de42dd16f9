// SPDX-License-Identifier: Apache-2.0
// OidcVerifier against the real development provider, and against one in this program that
// misbehaves on demand.
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "async/loop.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "crypto/jwt.h"
#include "net/http_server.h"
#include "stores/identity/oidc.h"
#include "testing/run_task.h"
#include "testing/servers.h"

namespace flock {
namespace {

using flock::testing::code_of;
using flock::testing::code_of_task;
using flock::testing::OidcProvider;
using flock::testing::run_task;
using identity::Identity;
using identity::OidcOptions;
using identity::OidcVerifier;
namespace bj = boost::json;

TimePoint now() { return system_clock().now(); }

OidcOptions options_for(const std::string& issuer) {
  OidcOptions options;
  options.issuer = issuer;
  options.audiences = {OidcProvider::audience()};
  return options;
}

Task<Code> refusal(OidcVerifier& verifier, std::string token, TimePoint when = now()) {
  const auto body = [&]() -> Task<void> { co_await verifier.verify(token, when); };
  co_return co_await code_of_task(body());
}

TEST(RealProvider, ItsTokensSayWhoSignedIn) {
  if (!flock::testing::require({"node"})) GTEST_SKIP() << "node is not installed";
  OidcProvider provider;
  provider.start();
  const std::string alice = provider.access_token("alice"),
                    bob = provider.access_token("bob@firm.example");
  const auto body = [&]() -> Task<void> {
    OidcOptions options = options_for(provider.issuer());
    options.retry_every = Duration(0);
    OidcVerifier verifier(co_await asio::this_coro::executor, options);
    const Identity who = co_await verifier.verify(alice, now());
    EXPECT_EQ(who.issuer, provider.issuer());
    EXPECT_EQ(who.subject, "alice");
    EXPECT_EQ(who.email, "alice@example.test");
    EXPECT_TRUE(who.email_verified);
    EXPECT_EQ(who.name, "alice");
    EXPECT_GT(who.expires, now() + Duration(3'000'000));
    EXPECT_EQ((co_await verifier.verify(bob, now())).email, "bob@firm.example");
    EXPECT_EQ(verifier.counters().fetches, 1u);

    EXPECT_EQ(co_await refusal(verifier, alice.substr(0, alice.size() - 4) + "AAAA"),
              Code::kUnauthenticated);
    EXPECT_EQ(co_await refusal(verifier, alice, now() + Duration(3'700'000)),
              Code::kUnauthenticated);
    OidcOptions elsewhere = options;
    elsewhere.audiences = {"https://other.example"};
    OidcVerifier other(co_await asio::this_coro::executor, elsewhere);
    EXPECT_EQ(co_await refusal(other, alice), Code::kUnauthenticated);

    // Away: what is known goes on working.
    provider.stop();
    EXPECT_EQ((co_await verifier.verify(alice, now())).subject, "alice");
    OidcVerifier late(co_await asio::this_coro::executor, options);
    EXPECT_EQ(co_await refusal(late, alice), Code::kUnavailable);

    // Back with its keys, then with others: the new key is found, the old token ends.
    provider.start();
    EXPECT_EQ((co_await late.verify(alice, now())).subject, "alice");
    provider.stop();
    provider.forget_keys();
    provider.start();
    const std::string fresh = provider.access_token("alice");
    EXPECT_EQ((co_await late.verify(fresh, now())).subject, "alice");
    EXPECT_EQ(co_await refusal(late, alice), Code::kUnauthenticated);
    co_await verifier.stop();
    co_await other.stop();
    co_await late.stop();
  };
  run_task(body, Duration(60'000));
}

// A provider whose every answer a test can choose.
class FakeProvider {
 public:
  explicit FakeProvider(Executor executor)
      : server_(
            executor, [this](net::Request r) { return answer(std::move(r)); },
            [](const net::Request&, std::exception_ptr) { return net::Response{.status = 500}; }) {
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    issuer = "http://127.0.0.1:" + std::to_string(listener->port());
    jwks_uri = issuer + "/keys";
    named_issuer = issuer;
    server_.listen(std::move(listener));
    keys.add(key);
  }
  Task<void> stop() { co_await server_.stop(); }

  std::string token(bj::object changes = {}, const crypto::Key* with = nullptr) const {
    const std::int64_t seconds = to_unix_ms(now()) / 1000;
    bj::object claims{{"iss", issuer},
                      {"sub", "u1"},
                      {"aud", OidcProvider::audience()},
                      {"iat", seconds},
                      {"exp", seconds + 600}};
    for (auto& [name, value] : changes) claims[name] = value;
    return crypto::sign_jwt(with ? *with : key, claims);
  }

  crypto::Key key = crypto::Key::generate(crypto::Key::Kind::kRsa);
  crypto::JwkSet keys;
  std::string issuer, named_issuer, jwks_uri, body;
  int status = 200, requests = 0;

 private:
  Task<net::Reply> answer(net::Request request) {
    ++requests;
    net::Reply reply;
    reply.response.status = status;
    if (!body.empty()) {
      reply.response.body = body;
    } else if (request.path() == "/keys") {
      reply.response.body = keys.to_json();
    } else {
      reply.response.body =
          bj::serialize(bj::object{{"issuer", named_issuer}, {"jwks_uri", jwks_uri}});
    }
    co_return reply;
  }
  net::HttpServer server_;
};

// `body` gets a provider and options for it; both end with the test.
void with_fake(std::function<Task<void>(FakeProvider&, OidcOptions)> body) {
  const auto whole = [&]() -> Task<void> {
    FakeProvider provider(co_await asio::this_coro::executor);
    co_await body(provider, options_for(provider.issuer));
    co_await provider.stop();
  };
  run_task(whole, Duration(20'000));
}

TEST(Verifier, CallersShareOneFetchAndTokensAreRemembered) {
  with_fake([](FakeProvider& provider, OidcOptions options) -> Task<void> {
    options.cached_tokens = 2;
    const Executor executor = co_await asio::this_coro::executor;
    OidcVerifier verifier(executor, options);
    const std::string token = provider.token();
    int good = 0;
    TaskScope scope(executor);
    const auto one = [&]() -> Task<void> {
      const Identity who = co_await verifier.verify(token, now());
      good += who.subject == "u1";
    };
    for (int i = 0; i < 50; ++i) scope.spawn("verify", one());
    co_await scope.join();
    EXPECT_EQ(good, 50);
    EXPECT_EQ(provider.requests, 2);  // discovery and keys, once
    const auto hits = verifier.counters().cache_hits;
    co_await verifier.verify(token, now());
    EXPECT_EQ(verifier.counters().cache_hits, hits + 1);
    // Not past its end, and not without bound.
    EXPECT_EQ(co_await refusal(verifier, token, now() + Duration(700'000)), Code::kUnauthenticated);
    for (const char* subject : {"a", "b", "c", "d"})
      co_await verifier.verify(provider.token({{"sub", subject}}), now());
    EXPECT_EQ(verifier.counters().cached, 2u);
    co_await verifier.stop();
  });
}

TEST(Verifier, RefusesWhatIsNotForFlock) {
  with_fake([](FakeProvider& provider, OidcOptions options) -> Task<void> {
    OidcVerifier verifier(co_await asio::this_coro::executor, options);
    const std::int64_t seconds = to_unix_ms(now()) / 1000;
    EXPECT_EQ((co_await verifier.verify(provider.token({{"aud", {"x", OidcProvider::audience()}}}),
                                        now()))
                  .subject,
              "u1");
    const bj::object bad[] = {{{"iss", provider.issuer + "/"}},
                              {{"aud", "flock-cli"}},
                              {{"aud", {"a", "b"}}},
                              {{"aud", nullptr}},
                              {{"exp", seconds - 31}},
                              {{"nbf", seconds + 60}},
                              {{"iat", seconds + 60}},
                              {{"sub", ""}},
                              {{"sub", 7}},
                              {{"sub", std::string(300, 'a')}}};
    for (const bj::object& changes : bad)
      EXPECT_EQ(co_await refusal(verifier, provider.token(changes)), Code::kUnauthenticated)
          << bj::serialize(changes);
    const std::string good = provider.token();
    const std::string payload = good.substr(good.find('.'));
    for (const std::string& token :
         {std::string(), std::string("x"), std::string("a.b.c"), std::string(20'000, 'a'),
          to_base64url(R"({"alg":"none","kid":")" + provider.key.thumbprint() + "\"}") +
              payload.substr(0, payload.rfind('.') + 1),
          good.substr(0, good.size() / 2)})
      EXPECT_EQ(co_await refusal(verifier, token), Code::kUnauthenticated) << token.substr(0, 40);
    const Identity who = co_await verifier.verify(
        provider.token({{"email", "a@b.example"}, {"email_verified", "true"}}), now());
    EXPECT_EQ(who.email, "a@b.example");
    EXPECT_FALSE(who.email_verified);  // a text is not the boolean
    EXPECT_EQ(provider.requests, 2);
    co_await verifier.stop();
  });
}

TEST(Verifier, AnUnknownKeyFetchesAtMostOnceInAWhile) {
  with_fake([](FakeProvider& provider, OidcOptions options) -> Task<void> {
    const crypto::Key next = crypto::Key::generate(crypto::Key::Kind::kP256);
    OidcVerifier verifier(co_await asio::this_coro::executor, options);
    co_await verifier.verify(provider.token(), now());
    for (int i = 0; i < 10; ++i)
      EXPECT_EQ(co_await refusal(verifier, provider.token({}, &next)), Code::kUnauthenticated);
    EXPECT_EQ(provider.requests, 2);
    co_await verifier.stop();

    options.retry_every = Duration(0);
    OidcVerifier quick(co_await asio::this_coro::executor, options);
    EXPECT_EQ(co_await refusal(quick, provider.token({}, &next)), Code::kUnauthenticated);
    provider.keys.add(next);
    EXPECT_EQ((co_await quick.verify(provider.token({}, &next), now())).subject, "u1");
    co_await quick.stop();
  });
}

TEST(Verifier, AProviderThatIsAwayStopsOnlyWhatNeedsIt) {
  with_fake([](FakeProvider& provider, OidcOptions options) -> Task<void> {
    provider.status = 503;
    OidcVerifier cold(co_await asio::this_coro::executor, options);
    for (int i = 0; i < 10; ++i)
      EXPECT_EQ(co_await refusal(cold, provider.token()), Code::kUnavailable);
    // That it is for somebody else can be said without the provider.
    EXPECT_EQ(co_await refusal(cold, provider.token({{"iss", "https://other.example"}})),
              Code::kUnauthenticated);
    EXPECT_EQ(provider.requests, 1);  // failures count too
    EXPECT_EQ(cold.counters().failed_fetches, 1u);
    co_await cold.stop();

    provider.status = 200;
    options.retry_every = options.refresh_every = Duration(0);
    OidcVerifier warm(co_await asio::this_coro::executor, options);
    co_await warm.verify(provider.token(), now());
    provider.status = 503;
    const crypto::Key other = crypto::Key::generate(crypto::Key::Kind::kP256);
    EXPECT_EQ((co_await warm.verify(provider.token({{"sub", "u2"}}), now())).subject, "u2");
    EXPECT_EQ(co_await refusal(warm, provider.token({}, &other)), Code::kUnavailable);
    // Answers that cannot be are the same as none, and the known keys stay.
    provider.status = 200;
    for (const std::string& body : {std::string("x"), std::string("[]"), std::string("{}"),
                                    std::string(300 * 1024, ' ') + "{}"}) {
      provider.body = body;
      EXPECT_EQ(co_await refusal(warm, provider.token({}, &other)), Code::kUnavailable);
      EXPECT_EQ((co_await warm.verify(provider.token({{"sub", "u3"}}), now())).subject, "u3");
    }
    provider.body.clear();
    provider.named_issuer = "https://evil.example";
    EXPECT_EQ(co_await refusal(warm, provider.token({}, &other)), Code::kUnavailable);
    provider.named_issuer = provider.issuer;
    provider.jwks_uri = "http://evil.example/keys";  // no TLS outside loopback
    EXPECT_EQ(co_await refusal(warm, provider.token({}, &other)), Code::kUnavailable);
    co_await warm.stop();
  });
}

TEST(Verifier, ForgetsTokensOfAKeyThatWasTakenBack) {
  with_fake([](FakeProvider& provider, OidcOptions options) -> Task<void> {
    options.retry_every = options.refresh_every = Duration(0);
    OidcVerifier verifier(co_await asio::this_coro::executor, options);
    const std::string token = provider.token();
    co_await verifier.verify(token, now());
    const crypto::Key next = crypto::Key::generate(crypto::Key::Kind::kP256);
    provider.keys = {};
    provider.keys.add(next);
    EXPECT_EQ((co_await verifier.verify(provider.token({}, &next), now())).subject, "u1");
    EXPECT_EQ(co_await refusal(verifier, token), Code::kUnauthenticated);
    co_await verifier.stop();
  });
}

TEST(Verifier, ItsOptionsAreChecked) {
  Loop loop;
  for (const char* issuer :
       {"", "x", "http://login.example", "ftp://login.example", "http://127.0.0.1.example",
        "https://a@login.example", "https://login.example/?a", "https://login.example/#a"})
    EXPECT_EQ(code_of([&] { identity::check_issuer(issuer); }), Code::kInvalidArgument) << issuer;
  for (const char* issuer : {"https://login.example", "https://login.example/realms/a",
                             "http://127.0.0.1:13000", "http://localhost:1", "http://[::1]:1"})
    EXPECT_NO_THROW(identity::check_issuer(issuer)) << issuer;
  OidcOptions options = options_for("https://login.example");
  options.audiences = {""};
  EXPECT_EQ(code_of([&] { OidcVerifier(loop.executor(), options); }), Code::kInvalidArgument);
}

}  // namespace
}  // namespace flock

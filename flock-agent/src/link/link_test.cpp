// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>

#include "async/scope.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/id.h"
#include "base/json.h"
#include "link/desired_store.h"
#include "link/identity.h"
#include "net/http_server.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

using flock::testing::code_of_task;
using flock::testing::run_task;
using flock::testing::TempDir;

TEST(DesiredStore, ComesBackAndSurvivesDamage) {
  const TempDir dir;
  DesiredStore store(dir.file("desired"));
  EXPECT_EQ(store.load().version(), 0);
  device::v1::DesiredState desired;
  desired.set_version(7);
  desired.add_services()->set_name("web");
  store.save(desired);
  EXPECT_EQ(DesiredStore(dir.file("desired")).load().services(0).name(), "web");
  std::string content = *read_file(dir.file("desired"));
  content.back() ^= 1;
  dir.write("desired", content);
  EXPECT_EQ(store.load().version(), 0);
  EXPECT_TRUE(std::filesystem::exists(dir.file("desired.corrupt")));
  dir.write("desired", "x");
  EXPECT_EQ(store.load().version(), 0);
}

// Answers registration and renewal as flock-api does, or refuses.
struct Imposter {
  explicit Imposter(Executor executor)
      : server(
            executor, [this](net::Request request) { return answer(std::move(request)); },
            [](const net::Request&, std::exception_ptr) { return net::Response{500, {}, ""}; }) {
    auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
    url = "http://127.0.0.1:" + std::to_string(listener->port());
    server.listen(std::move(listener));
  }
  Task<net::Reply> answer(net::Request request) {
    paths.push_back(request.path());
    net::Reply reply;
    reply.response.status = status;
    if (!date.empty()) {
      reply.response.headers.add("Date", date);
      const auto body = json::parse(request.body);
      const std::string assertion(body.as_object().at("assertion").as_string());
      const std::size_t first = assertion.find('.') + 1;
      const auto claims = json::parse(
          from_base64url(assertion.substr(first, assertion.rfind('.') - first)).value_or("{}"));
      issued_at = claims.as_object().at("iat").to_number<std::int64_t>();
      if (issued_at != 0 && issued_at < 4'000'000'000) reply.response.status = 401;
      if (reply.response.status == 401) co_return reply;
    }
    if (status == 200) {
      const TimePoint now =
          system_clock().now() + Duration(3'600'000);  // the device's clock is an hour behind
      reply.response.body = boost::json::serialize(boost::json::object{
          {"device_id", id},
          {"token", "token-" + std::to_string(paths.size())},
          {"server_time", to_rfc3339(now)},
          {"token_expires_at", to_rfc3339(now + life)},
          {"mqtt", {{"urls", boost::json::array{"mqtt://127.0.0.1:1"}}, {"ca_certificates", ""}}}});
    } else if (status == 202) {
      reply.response.body = R"({"state":"PENDING","device_request_id":"01a2","retry_after":"30s"})";
    } else {
      reply.response.body = R"({"detail":"provisioning_key_expired: x","hint":"make another"})";
    }
    co_return reply;
  }
  net::HttpServer server;
  std::string url, id = new_uuid();
  std::vector<std::string> paths;
  std::string date;  // set: assertions from before the year 2096 are refused
  std::int64_t issued_at = 0;
  int status = 200;
  Duration life{600'000};
};

TEST(Identity, RegistersOnceRenewsAndTellsRefusals) {
  run_task([]() -> Task<void> {
    const Executor executor = co_await asio::this_coro::executor;
    const TempDir dir;
    Imposter imposter(executor);
    IdentityOptions options;
    options.server = imposter.url;
    options.data_dir = dir.file("data");
    options.provisioning_key_file = dir.write("key", "flp_x\n");
    const auto ask = [](Identity& identity) -> Task<void> { co_await identity.token(); };
    {
      Identity identity(options);
      identity.load();
      imposter.status = 403;
      EXPECT_EQ(co_await code_of_task(ask(identity)), Code::kForbidden);
      imposter.status = 200;
      EXPECT_EQ(co_await identity.token(), "token-2");
      EXPECT_EQ(co_await identity.token(), "token-2");  // still good
      EXPECT_GT(identity.renew_at(), std::chrono::steady_clock::now() + Duration(300'000));
      identity.forget_token();
      co_await identity.token();
      EXPECT_EQ(imposter.paths.back(), "/v1/devices/token");
    }
    const std::string key = *read_file(dir.file("data/device.key"));
    dir.write("data/identity.json", "{broken");
    Identity again(options);
    again.load();
    EXPECT_FALSE(again.registered());
    co_await again.token();
    EXPECT_EQ(imposter.paths.back(), "/v1/devices/register");
    EXPECT_EQ(*read_file(dir.file("data/device.key")), key);
    imposter.status = 500;
    again.forget_token();
    EXPECT_EQ(co_await code_of_task(ask(again)), Code::kUnavailable);
    co_await imposter.server.stop();
  });
}

struct Registered {
  explicit Registered(Executor executor) : imposter(executor) {
    options.server = imposter.url;
    options.data_dir = dir.file("data");
    options.provisioning_key_file = dir.write("key", "flp_x\n");
  }
  TempDir dir;
  Imposter imposter;
  IdentityOptions options;
};

TEST(Identity, KeepsTheOldTokenWhileItCannotGetANewOne) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    Identity identity(device.options);
    identity.load();
    const std::string first = co_await identity.token();
    device.imposter.status = 503;
    EXPECT_EQ(co_await code_of_task(identity.renew()), Code::kUnavailable);
    EXPECT_EQ(co_await identity.token(), first);
    device.imposter.status = 200;
    co_await identity.renew();
    EXPECT_NE(co_await identity.token(), first);
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, WaitsForAnApprovalAndComesInWhenItIsThere) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    Identity identity(device.options);
    identity.load();
    device.imposter.status = 202;
    for (int i = 0; i < 2; ++i) {
      try {
        co_await identity.token();
        ADD_FAILURE() << "there is no token yet";
      } catch (const Error& error) {
        // What the agent tries again like a server that is away, and says.
        EXPECT_EQ(error.code(), Code::kUnavailable);
        EXPECT_NE(error.describe().find("waits for an administrator"), std::string::npos);
        EXPECT_EQ(error.hint(), "flock device-requests approve 01a2");
      }
    }
    EXPECT_FALSE(identity.registered());
    EXPECT_EQ(device.imposter.paths.back(), "/v1/devices/register");
    device.imposter.status = 200;
    EXPECT_EQ(co_await identity.token(), "token-3");
    EXPECT_TRUE(identity.registered());
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, TakesTheServersTimeWhenItsOwnClockIsRefused) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    device.imposter.date = "Fri, 31 Dec 2100 23:59:59 GMT";
    Identity identity(device.options);
    identity.load();
    co_await identity.token();
    EXPECT_EQ(device.imposter.paths.size(), 2u);
    EXPECT_NEAR(static_cast<double>(device.imposter.issued_at), 4'133'980'799.0, 30);
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, TellsTheRefusalWhenThereIsNoProvisioningKeyAnyMore) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    Identity identity(device.options);
    identity.load();
    co_await identity.token();
    std::filesystem::remove(device.options.provisioning_key_file);
    device.imposter.status = 401;
    EXPECT_EQ(co_await code_of_task(identity.renew()), Code::kUnauthenticated);
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, KeysArePrivateAndOnDiskBeforeTheServerHearsOfThem) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    Identity identity(device.options);
    identity.load();
    EXPECT_TRUE(device.imposter.paths.empty());
    using std::filesystem::perms;
    for (const char* file : {"/device.key", "/wireguard.key"}) {
      const auto status = std::filesystem::status(device.options.data_dir + file);
      EXPECT_EQ(status.permissions(), perms::owner_read | perms::owner_write);
    }
    EXPECT_EQ(std::filesystem::status(device.options.data_dir).permissions(), perms::owner_all);
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, AKeyFileThatCannotBeReadIsNoReasonToBecomeSomebodyElse) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    std::filesystem::create_directories(device.options.data_dir + "/device.key");  // read() fails
    Identity identity(device.options);
    EXPECT_EQ(flock::testing::code_of([&] { identity.load(); }), Code::kUnavailable);
    EXPECT_TRUE(std::filesystem::is_directory(device.options.data_dir + "/device.key"));
    co_await device.imposter.server.stop();
  });
}

TEST(Identity, AFullDiskDoesNotKeepItFromWorkingAndIsMadeUpForLater) {
  run_task([]() -> Task<void> {
    Registered device(co_await asio::this_coro::executor);
    const std::string file = device.options.data_dir + "/identity.json";
    Identity identity(device.options);
    identity.load();
    std::filesystem::create_directories(file + ".new");  // the write cannot begin
    const std::string token = co_await identity.token();
    EXPECT_FALSE(token.empty());
    EXPECT_FALSE(std::filesystem::exists(file));
    std::filesystem::remove(file + ".new");
    co_await identity.renew();
    EXPECT_TRUE(std::filesystem::exists(file));
    co_await device.imposter.server.stop();
  });
}

}  // namespace
}  // namespace flock::agent

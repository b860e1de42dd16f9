// SPDX-License-Identifier: Apache-2.0
// The document and the server say the same: routes, security, and a document that holds together.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "async/loop.h"
#include "targets/api/call.h"
#include "targets/api/openapi.h"

namespace flock::targets::api {
namespace {

// The api target's routes without any server behind them.
struct Routes {
  Loop loop;
  Settings settings;
  postgres::Database db{loop.executor(), {}};
  std::unique_ptr<stores::LiveState> live = stores::make_memory_live_state();
  std::unique_ptr<stores::TimeSeries> time_series = stores::make_memory_time_series();
  mqtt::Client bus{loop.executor(), {}};
  Context context{Parts{loop.executor(), settings, db, *live, *time_series, bus,
                        crypto::Key::generate(crypto::Key::Kind::kP256)}};
  Routes() { add_routes(context); }
};

// Calls `visit` with every object of the document.
void walk(const bj::value& value, const std::function<void(const bj::object&)>& visit) {
  if (const bj::object* object = value.if_object()) {
    visit(*object);
    for (const auto& item : *object) walk(item.value(), visit);
  } else if (const bj::array* array = value.if_array()) {
    for (const bj::value& item : *array) walk(item, visit);
  }
}

const std::set<std::string_view> kMethods{"get", "put", "post", "delete", "patch"};

TEST(OpenApi, NamesExactlyTheRoutesOfTheServer) {
  const Routes routes;
  std::set<std::string> served, documented;
  for (const auto& route : routes.context.router.routes()) {
    EXPECT_TRUE(served.insert(route.method + " " + route.pattern).second)
        << "registered twice: " << route.method << " " << route.pattern;
  }
  const bj::value document = json::parse(openapi_json());
  for (const auto& path : document.at("paths").as_object()) {
    for (const auto& operation : path.value().as_object()) {
      if (!kMethods.contains(operation.key())) continue;
      std::string method(operation.key());
      std::transform(method.begin(), method.end(), method.begin(), ::toupper);
      documented.insert(method + " " + std::string(path.key()));
    }
  }
  EXPECT_EQ(served, documented);
}

TEST(OpenApi, CallsEachOperationWhatTheServerAndTheAuditLogCallIt) {
  const Routes routes;
  const bj::value document = json::parse(openapi_json());
  for (const auto& operation : routes.context.operations()) {
    std::string method = operation->method;
    std::transform(method.begin(), method.end(), method.begin(), ::tolower);
    const bj::object& path = document.at("paths").at(operation->pattern).as_object();
    ASSERT_TRUE(path.contains(method)) << operation->id;
    EXPECT_EQ(path.at(method).at("operationId").as_string(), operation->id);
  }
}

bool takes(const bj::object& operation, std::string_view parameter) {
  const bj::value* list = operation.if_contains("parameters");
  return list != nullptr &&
         bj::serialize(*list).find("/parameters/" + std::string(parameter)) != std::string::npos;
}

TEST(OpenApi, SaysOfEveryChangeThatItCanBeTriedAndOfEveryPostThatItHappensOnce) {
  const Routes routes;
  const bj::value document = json::parse(openapi_json());
  for (const auto& operation : routes.context.operations()) {
    if (operation->method == "GET" || operation->access == Operation::Access::kPublic) continue;
    std::string method = operation->method;
    std::transform(method.begin(), method.end(), method.begin(), ::tolower);
    const bj::object& described =
        document.at("paths").at(operation->pattern).at(method).as_object();
    EXPECT_TRUE(takes(described, "validate_only")) << operation->id;
    const bool only_looks = operation->pattern.ends_with(":plan");  // it may happen twice
    EXPECT_EQ(takes(described, "idempotency_key"), method == "post" && !only_looks)
        << operation->id;
  }
}

const bj::object& described(const bj::value& document, const Operation& operation) {
  std::string method = operation.method;
  std::transform(method.begin(), method.end(), method.begin(), ::tolower);
  return document.at("paths").at(operation.pattern).at(method).as_object();
}
bool agree_on_deprecation(const bj::object& described, const Operation& operation) {
  const bj::value* says = described.if_contains("deprecated");
  return (says != nullptr && *says == bj::value(true)) == operation.deprecation.has_value();
}

const Operation::Deprecation kOld{.since = from_unix_ms(1'688'169'599'000),
                                  .sunset = from_unix_ms(1'793'491'199'000),
                                  .link = "https://flock.example/docs/old"};

TEST(OpenApi, SaysWhatIsDeprecatedAsTheServerDoes) {
  const Routes routes;
  const bj::value document = json::parse(openapi_json());
  for (const auto& operation : routes.context.operations())
    EXPECT_TRUE(agree_on_deprecation(described(document, *operation), *operation)) << operation->id;
  const Operation present = open_to_all("x", "GET", "/x"), old = deprecated(present, kOld);
  EXPECT_TRUE(agree_on_deprecation({{"deprecated", true}}, old));
  EXPECT_FALSE(agree_on_deprecation({{"deprecated", true}}, present));
  EXPECT_FALSE(agree_on_deprecation({}, old));
  EXPECT_FALSE(agree_on_deprecation({{"deprecated", false}}, old));
}

TEST(Context, TellsThatARouteIsDeprecated) {
  Routes routes;
  const auto hello = [](Call&) -> Task<net::Reply> { co_return json_reply(200, bj::object{}); };
  routes.context.add(deprecated(open_to_all("old", "GET", "/v1/old"), kOld), hello);
  routes.context.add(open_to_all("new", "GET", "/v1/new"), hello);
  routes.loop.run([](Routes& r) -> Task<void> {
    net::Request request;
    request.method = "GET";
    request.target = "/v1/old";
    const net::Headers headers = (co_await r.context.handle(request)).response.headers;
    EXPECT_EQ(headers.get("Deprecation"), "@1688169599");
    EXPECT_EQ(headers.get("Sunset"), "Sat, 31 Oct 2026 23:59:59 GMT");
    EXPECT_EQ(headers.get("Link"), "<https://flock.example/docs/old>; rel=\"deprecation\"");
    request.target = "/v1/new";
    const net::Headers others = (co_await r.context.handle(request)).response.headers;
    EXPECT_FALSE(others.get("Deprecation") || others.get("Sunset") || others.get("Link"));
  }(routes));
}

TEST(OpenApi, DescribesEveryOperationWhole) {
  const bj::value document = json::parse(openapi_json());
  std::set<std::string> ids, tags, used;
  for (const bj::value& tag : document.at("tags").as_array())
    tags.insert(std::string(tag.at("name").as_string()));
  for (const auto& path : document.at("paths").as_object()) {
    const bj::object& item = path.value().as_object();
    for (const auto& entry : item) {
      if (!kMethods.contains(entry.key())) continue;
      const std::string place = std::string(entry.key()) + " " + std::string(path.key());
      const bj::object& operation = entry.value().as_object();
      ASSERT_TRUE(operation.contains("operationId") && operation.contains("summary")) << place;
      EXPECT_TRUE(ids.insert(std::string(operation.at("operationId").as_string())).second) << place;
      for (const bj::value& tag : operation.at("tags").as_array()) {
        EXPECT_TRUE(tags.contains(std::string(tag.as_string()))) << place;
        used.insert(std::string(tag.as_string()));
      }
      const bj::object& responses = operation.at("responses").as_object();
      EXPECT_TRUE(responses.contains("default")) << place << " does not say how it fails";
      EXPECT_TRUE(std::any_of(responses.begin(), responses.end(), [](const auto& r) {
        return r.key().starts_with("2");
      })) << place;
      if (const bj::value* body = operation.if_contains("requestBody"))
        EXPECT_TRUE(body->at_pointer("/content/application~1json").as_object().contains("example"))
            << place;
      EXPECT_EQ(path.key().find('{') != std::string_view::npos, item.contains("parameters"))
          << place;
    }
  }
  EXPECT_EQ(used, tags);
}

TEST(OpenApi, PointsOnlyToWhatIsThere) {
  const bj::value document = json::parse(openapi_json());
  std::set<std::string> named;
  walk(document, [&](const bj::object& object) {
    const bj::value* target = object.if_contains("$ref");
    if (target == nullptr) return;
    const std::string reference(target->as_string());
    ASSERT_TRUE(reference.starts_with("#/")) << reference;
    boost::system::error_code error;
    EXPECT_NE(document.find_pointer(reference.substr(1), error), nullptr) << reference;
    named.insert(reference.substr(reference.rfind('/') + 1));
  });
  // Events are named in the text of the stream only.
  named.insert("RolloutEnd");
  named.insert("ResourceEvent");
  for (const auto& schema : document.at("components").at("schemas").as_object())
    EXPECT_TRUE(named.contains(std::string(schema.key()))) << schema.key() << " is used nowhere";
}

// What needs no API key must say so, and nothing else may.
TEST(OpenApi, TellsWhichRoutesArePublic) {
  Routes routes;
  const bj::value document = json::parse(openapi_json());
  routes.loop.run([](Routes& r, const bj::value& doc) -> Task<void> {
    for (const auto& route : r.context.router.routes()) {
      std::string method = route.method;
      std::transform(method.begin(), method.end(), method.begin(), ::tolower);
      const bj::object& operation = doc.at("paths").at(route.pattern).at(method).as_object();
      net::Request request;
      request.method = route.method;
      request.target = route.pattern;
      bool wants_key = false;
      try {
        co_await r.context.handle(request);
      } catch (const Error& error) {
        wants_key = error.code() == Code::kUnauthenticated &&
                    error.message().find("API key") != std::string::npos;
      }
      EXPECT_EQ(wants_key, !operation.contains("security")) << route.method << " " << route.pattern;
    }
  }(routes, document));
}

}  // namespace
}  // namespace flock::targets::api

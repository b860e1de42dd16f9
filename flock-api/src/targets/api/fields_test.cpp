// SPDX-License-Identifier: Apache-2.0
#include "targets/api/fields.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/json.h"
#include "targets/api/openapi.h"

namespace flock::targets::api {
namespace {

namespace bj = boost::json;

const FieldTree& device() {
  static const bj::value document = json::parse(openapi_json(), {.bytes = 8 << 20});
  static const FieldTree tree =
      fields_of(document, document.at("paths").at("/v1/devices").at("get"));
  return tree;
}

std::vector<std::string> read(const std::string& fields) {
  net::Request request;
  request.method = "GET";
  request.target = "/v1/devices?fields=" + url_encode(fields);
  return read_fields(request, device());
}

// The answer to a request for these fields.
std::string kept(const std::string& fields, const std::string& body) {
  net::Response response;
  response.status = 200;
  response.body = body;
  keep_fields(read(fields), response);
  return response.body;
}

std::string refused(const std::string& fields) {
  try {
    read(fields);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kInvalidArgument);
    EXPECT_EQ(error.problems().at(0).pointer, "?fields");
    return error.problems().at(0).code + ": " + error.problems().at(0).detail;
  }
  ADD_FAILURE() << fields << " was taken";
  return "";
}

constexpr const char* kDevice =
    R"({"id":"1","name":"gw","labels":{"site":"oslo","topology.io/zone":"a","topology":"b"},)"
    R"("hardware":{"os":"Debian","cpus":4}})";

TEST(Fields, AreLeftOfAResourceAndOfEachItem) {
  EXPECT_EQ(kept("id", kDevice), R"({"id":"1"})");
  EXPECT_EQ(kept("hardware.os,id", kDevice), R"({"id":"1","hardware":{"os":"Debian"}})");
  EXPECT_EQ(kept("labels.site", kDevice), R"({"labels":{"site":"oslo"}})");
  EXPECT_EQ(kept("labels.topology.io/zone", kDevice), R"({"labels":{"topology.io/zone":"a"}})");
  EXPECT_EQ(kept("labels.none", kDevice), R"({"labels":{}})");
  EXPECT_EQ(kept("labels.site,labels,labels.site", kDevice),
            R"({"labels":{"site":"oslo","topology.io/zone":"a","topology":"b"}})");
  EXPECT_EQ(kept("labels.site.x", kDevice), R"({"labels":{}})") << "there is nothing below a text";
  const std::string list = R"({"items":[)" + std::string(kDevice) + R"(],"next_page_token":"t"})";
  EXPECT_EQ(kept("hardware.cpus", list),
            R"({"items":[{"hardware":{"cpus":4}}],"next_page_token":"t"})");
  EXPECT_EQ(kept("", kDevice), kDevice);
}

TEST(Fields, ThatAreUnknownAreRefusedWithThoseThatAreKnown) {
  const std::string top = refused("id,label.site");
  EXPECT_NE(top.find("unknown_field: there is no field label; known are "), std::string::npos)
      << top;
  EXPECT_NE(top.find("labels, "), std::string::npos) << top;
  const std::string below = refused("fleet.colour");
  EXPECT_NE(below.find("there is no field fleet.colour; fleet has "), std::string::npos) << below;
  EXPECT_EQ(refused("id.x"), "unknown_field: id has no fields");
  EXPECT_TRUE(refused("items").starts_with("unknown_field")) << "fields are of the items";
}

TEST(Fields, HaveLimits) {
  EXPECT_EQ(refused("id,,name"), "syntax: is a list such as id,labels.site");
  EXPECT_EQ(refused("id,"), "syntax: is a list such as id,labels.site");
  EXPECT_EQ(refused("labels."), "syntax: is a list such as id,labels.site");
  EXPECT_EQ(refused("labels.a.b.c.d.e.f.g.h"), "limit: a path has at most 8 names");
  std::string many = "id";
  for (int i = 0; i < 49; ++i) many += ",id";
  EXPECT_EQ(read(many).size(), 50u);
  EXPECT_EQ(refused(many + ",id"), "limit: names at most 50 fields");
  EXPECT_EQ(refused("labels." + std::string(5000, 'a')), "limit: has at most 4096 bytes");
}

// Whatever an answer is, its schema was understood: most are closed.
TEST(Fields, AreKnownOfEveryOperationThatReads) {
  const bj::value document = json::parse(openapi_json(), {.bytes = 8 << 20});
  int closed = 0;
  for (const auto& path : document.at("paths").as_object()) {
    const bj::value* get = path.value().as_object().if_contains("get");
    if (get == nullptr) continue;
    const FieldTree tree = fields_of(document, *get);
    EXPECT_TRUE(tree.open || !tree.members.empty()) << path.key();
    closed += tree.open ? 0 : 1;
  }
  EXPECT_GT(closed, 20);
}

}  // namespace
}  // namespace flock::targets::api

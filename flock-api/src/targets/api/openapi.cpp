// SPDX-License-Identifier: Apache-2.0
// The committed OpenAPI document, turned from YAML into the JSON that is served.
#include "targets/api/openapi.h"

#include <yaml-cpp/yaml.h>

#include <charconv>

#include "targets/api/call.h"

namespace flock::targets::api {

std::string_view openapi_yaml();  // generated from flock-api/openapi/openapi.yaml

namespace {

// The core schema of YAML 1.2 as far as the document uses it; a quoted scalar is text.
bj::value scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() == "!") return bj::value(text);
  if (text == "true" || text == "false") return text == "true";
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return number;
  return bj::value(text);
}

bj::value to_json(const YAML::Node& node) {
  if (node.IsMap()) {
    bj::object out;
    for (const auto& item : node) out[item.first.Scalar()] = to_json(item.second);
    return out;
  }
  if (node.IsSequence()) {
    bj::array out;
    for (const auto& item : node) out.push_back(to_json(item));
    return out;
  }
  return node.IsScalar() ? scalar(node) : bj::value(nullptr);
}

}  // namespace

std::string openapi_json() {
  try {
    return bj::serialize(to_json(YAML::Load(std::string(openapi_yaml()))));
  } catch (const YAML::Exception& error) {
    throw Error(Code::kInternal, "the embedded OpenAPI document cannot be read")
        .with("reason", error.what());
  }
}

// The last to be added: the document speaks of all the others.
void add_openapi_route(Context& c) {
  const auto text = std::make_shared<const std::string>(openapi_json());
  c.add(open_to_all("getOpenApi", "GET", "/v1/openapi.json"), [text](Call&) -> Task<net::Reply> {
    net::Reply reply;
    reply.response.headers.add("Content-Type", "application/json");
    reply.response.body = *text;
    co_return reply;
  });
  c.learn_fields(json::parse(*text));
}

void add_routes(Context& c) {
  add_account_routes(c);
  add_organization_routes(c);
  add_member_routes(c);
  add_token_routes(c);
  add_fleet_routes(c);
  add_device_routes(c);
  add_operation_routes(c);
  add_provisioning_routes(c);
  add_provisioning_key_routes(c);
  add_device_request_routes(c);
  add_subscription_routes(c);
  add_release_routes(c);
  add_deployment_routes(c);
  add_deployment_plan_routes(c);
  add_rollout_routes(c);
  add_event_routes(c);
  add_command_routes(c);
  add_metric_routes(c);
  add_log_routes(c);
  add_variable_routes(c);
  add_audit_routes(c);
  add_openapi_route(c);
}

}  // namespace flock::targets::api

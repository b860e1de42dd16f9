// SPDX-License-Identifier: Apache-2.0
#include "targets/itest_document.h"

#include <algorithm>
#include <regex>

#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "base/time.h"
#include "net/router.h"
#include "targets/api/openapi.h"
#include "targets/itest_stack.h"

namespace flock::targets::itest {
namespace {

bool is_type(const bj::value& value, std::string_view type) {
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_int64() || value.is_uint64();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_bool();
  if (type == "array") return value.is_array();
  if (type == "null") return value.is_null();
  return type == "object" && value.is_object();
}

bool is_one_of(const bj::value& value, const bj::value& types) {
  if (types.is_string()) return is_type(value, std::string_view(types.get_string()));
  return std::ranges::any_of(types.as_array(), [&](const bj::value& type) {
    return is_type(value, std::string_view(type.as_string()));
  });
}

bool is_format(const std::string& text, std::string_view format) {
  if (format == "uuid") return is_uuid(text);
  if (format != "date-time") return true;
  try {
    parse_rfc3339(text);
    return text.ends_with('Z');
  } catch (const Error&) {
    return false;
  }
}

// The part of JSON Schema that the document uses.
class Checker {
 public:
  explicit Checker(bool of_request) : of_request_(of_request) {}

  void check(const bj::value& named, const bj::value& value, const std::string& at) {
    const bj::object& schema = resolve(named).as_object();
    const bj::value* type = schema.if_contains("type");
    if (type == nullptr) return;  // any JSON
    if (!is_one_of(value, *type)) return fault(at, "is no " + bj::serialize(*type));
    if (const bj::value* allowed = schema.if_contains("enum");
        allowed && std::ranges::find(allowed->as_array(), value) == allowed->as_array().end())
      fault(at, "is not one of the enum: " + bj::serialize(value));
    if (const bj::string* text = value.if_string()) check_text(schema, std::string(*text), at);
    if (value.is_number()) within(schema, "minimum", "maximum", value.to_number<double>(), at);
    if (const bj::array* items = value.if_array()) check_items(schema, *items, at);
    if (const bj::object* object = value.if_object()) check_members(schema, *object, at);
  }

  std::vector<std::string> faults;

 private:
  void fault(const std::string& at, const std::string& what) { faults.push_back(at + " " + what); }

  void within(const bj::object& schema, const char* least, const char* most, double number,
              const std::string& at) {
    if (const bj::value* limit = schema.if_contains(least);
        limit && number < limit->to_number<double>())
      fault(at, std::string("is below ") + least);
    if (const bj::value* limit = schema.if_contains(most);
        limit && number > limit->to_number<double>())
      fault(at, std::string("is above ") + most);
  }

  void check_text(const bj::object& schema, const std::string& text, const std::string& at) {
    // The document counts bytes, as the server does.
    within(schema, "minLength", "maxLength", static_cast<double>(text.size()), at);
    if (const bj::value* format = schema.if_contains("format");
        format && !is_format(text, std::string_view(format->as_string())))
      fault(at, "is no " + std::string(format->as_string()));
    if (const bj::value* pattern = schema.if_contains("pattern");
        pattern && text.size() < 1000 &&
        !std::regex_search(text, std::regex(std::string(pattern->as_string()))))
      fault(at, "is not of the pattern");
  }

  void check_items(const bj::object& schema, const bj::array& items, const std::string& at) {
    within(schema, "minItems", "maxItems", static_cast<double>(items.size()), at);
    for (std::size_t i = 0; i < items.size(); ++i)
      check(schema.at("items"), items[i], at + "/" + std::to_string(i));
  }

  bool is_absent(const bj::value& schema, const bj::value& value) const {
    if (!of_request_ || !value.is_null()) return false;
    const bj::value* type = resolve(schema).as_object().if_contains("type");
    return type != nullptr && !is_one_of(value, *type);
  }

  void check_members(const bj::object& schema, const bj::object& object, const std::string& at) {
    within(schema, "minProperties", "maxProperties", static_cast<double>(object.size()), at);
    if (const bj::value* required = schema.if_contains("required")) {
      for (const bj::value& key : required->as_array()) {
        const bj::value* there = object.if_contains(key.as_string());
        if (there == nullptr || (of_request_ && there->is_null()))
          fault(at + "/" + std::string(key.as_string()), "is missing");
      }
    }
    const bj::value* properties = schema.if_contains("properties");
    const bj::value* others = schema.if_contains("additionalProperties");
    for (const auto& [name, value] : object) {
      const std::string place = at + "/" + std::string(name);
      const bj::value* known = properties ? properties->as_object().if_contains(name) : nullptr;
      if (known == nullptr && others != nullptr && others->is_object()) known = others;
      if (known == nullptr && others == nullptr)
        fault(place, "is not in the document");
      else if (known != nullptr && !is_absent(*known, value))
        check(*known, value, place);
    }
  }

  const bool of_request_;
};

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(), ::toupper);
  return text;
}

Operation operation_of(const std::string& pattern, const std::string& method,
                       const bj::object& path, const bj::object& described) {
  Operation out{std::string(described.at("operationId").as_string()), upper(method), pattern,
                &described};
  for (const bj::object* holder : {&path, &described}) {
    const bj::value* list = holder->if_contains("parameters");
    if (list == nullptr) continue;
    for (const bj::value& each : list->as_array())
      out.parameters.push_back(&resolve(each).as_object());
  }
  if (const bj::value* body = described.if_contains("requestBody")) {
    out.body = &body->at_pointer("/content/application~1json").as_object();
    out.body_required = body->at("required").as_bool();
  }
  return out;
}

Task<net::Reply> nothing(net::Request, net::Parameters) { co_return net::Reply(); }

const Operation* operation_for(const std::string& method, const std::string& target) {
  static const net::Router router = [] {
    net::Router out;
    for (const Operation& operation : operations())
      out.add(operation.method, operation.pattern, nothing);
    return out;
  }();
  const auto match = router.match(method, target.substr(0, target.find('?')));
  if (match.route == nullptr) return nullptr;
  const auto found = std::ranges::find_if(operations(), [&](const Operation& each) {
    return each.method == method && each.pattern == match.route->pattern;
  });
  return found == operations().end() ? nullptr : &*found;
}

std::vector<std::string> body_faults(const bj::value* media, const net::Response& response,
                                     bool whole) {
  bj::value body;
  try {
    body = json::parse(response.body, {.bytes = 64 << 20});
  } catch (const Error& error) {
    return {"the body is no JSON: " + error.describe()};
  }
  std::vector<std::string> faults;
  if (media == nullptr)
    faults = schema_faults("Problem", body);
  else if (whole)
    faults = faults_of(media->at("schema"), body);
  if (response.status < 400 || !faults.empty()) return faults;
  if (body.at("status") != response.status) faults.push_back("/status is not the status");
  // What never became a request has no id.
  const bool no_request =
      response.status == 400 || response.status == 413 || response.status == 431;
  const auto id = response.headers.get("X-Request-Id");
  const bj::value* told = body.as_object().if_contains("request_id");
  if ((!id || told == nullptr || *told != bj::value(*id)) && (id || told != nullptr || !no_request))
    faults.push_back("/request_id is not that of the header");
  return faults;
}

}  // namespace

const bj::value& document() {
  static const bj::value value = json::parse(api::openapi_json());
  return value;
}

const bj::value& resolve(const bj::value& value) {
  const bj::value* target = value.as_object().if_contains("$ref");
  if (target == nullptr) return value;
  const std::string reference(target->as_string());
  return resolve(document().at_pointer(reference.substr(1)));
}

const std::vector<Operation>& operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> out;
    for (const auto& [pattern, path] : document().at("paths").as_object()) {
      for (const auto& [method, item] : path.as_object()) {
        const bj::object* described = item.if_object();
        if (described != nullptr && described->contains("operationId"))
          out.push_back(operation_of(pattern, method, path.as_object(), *described));
      }
    }
    return out;
  }();
  return all;
}

std::vector<std::string> faults_of(const bj::value& schema, const bj::value& value) {
  Checker checker(false);
  checker.check(schema, value, "");
  return std::move(checker.faults);
}

std::vector<std::string> request_faults(const bj::value& schema, const bj::value& value) {
  Checker checker(true);
  checker.check(schema, value, "");
  return std::move(checker.faults);
}

std::vector<std::string> schema_faults(const std::string& schema, const bj::value& value) {
  return faults_of(document().at("components").at("schemas").at(schema), value);
}

std::vector<std::string> answer_faults(const std::string& method, const std::string& target,
                                       const net::Response& response) {
  const Operation* operation = operation_for(method, target);
  const std::string type(response.headers.get("Content-Type").value_or("")),
      status = std::to_string(response.status);
  const bj::value* media = nullptr;
  std::vector<std::string> faults;
  if (operation != nullptr) {
    const bj::object& responses = operation->described->at("responses").as_object();
    const bj::value* by_status = responses.if_contains(status);
    if (by_status != nullptr) Api::answered().insert(operation->id);
    if (by_status == nullptr && response.status < 400) {
      faults.push_back("is not in the document");
    } else {
      const bj::value& described = by_status != nullptr ? *by_status : responses.at("default");
      const bj::value* content = resolve(described).as_object().if_contains("content");
      if (content != nullptr) media = content->as_object().if_contains(type);
      if (content == nullptr && !response.body.empty()) faults.push_back("has a body");
      if (content != nullptr && media == nullptr) faults.push_back("answers with " + type);
      if (content == nullptr) return faults;
    }
  }
  const bool is_json = type == "application/json" || type == "application/problem+json";
  const bool whole = target.find("fields=") == std::string::npos || response.status >= 400;
  if (faults.empty() && (is_json || operation == nullptr))
    faults = body_faults(media, response, whole);
  for (std::string& fault : faults)
    fault = method + " " + target.substr(0, 200) + " " + status + ": " + fault;
  return faults;
}

}  // namespace flock::targets::itest

// SPDX-License-Identifier: Apache-2.0
#include "targets/api/fields.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace flock::targets::api {
namespace {

namespace bj = boost::json;

constexpr std::size_t kMostPaths = 50, kMostBytes = 4096;
constexpr int kMostDepth = 8;  // names of a path; schemas are followed as far

// --- The schema

const bj::value& resolve(const bj::value& document, const bj::value& schema) {
  const bj::object* object = schema.if_object();
  const bj::value* reference = object != nullptr ? object->if_contains("$ref") : nullptr;
  if (reference == nullptr) return schema;
  return resolve(document, document.at_pointer(std::string_view(reference->as_string()).substr(1)));
}

FieldTree tree_of(const bj::value& document, const bj::value& named, int depth) {
  const bj::object* schema = resolve(document, named).if_object();
  if (schema == nullptr || depth > kMostDepth) return {{}, true};
  if (const bj::value* items = schema->if_contains("items"))
    return tree_of(document, *items, depth);
  FieldTree tree;
  const bj::value *members = schema->if_contains("properties"),
                  *others = schema->if_contains("additionalProperties"),
                  *type = schema->if_contains("type");
  const bool object = type == nullptr || *type == "object";
  tree.open = others != nullptr ? *others != bj::value(false) : object && members == nullptr;
  if (members == nullptr) return tree;
  for (const auto& member : members->as_object())
    tree.members.emplace(member.key(), tree_of(document, member.value(), depth + 1));
  return tree;
}

// --- The request

std::string names_of(const FieldTree& tree) {
  std::string out;
  for (const auto& [name, below] : tree.members) out += (out.empty() ? "" : ", ") + name;
  return out;
}

// Why `path` is none of the fields; "" when it is.
std::string fault_of(const FieldTree& known, std::string_view path) {
  const FieldTree* at = &known;
  std::string above;
  while (!path.empty() && !at->open) {
    const std::string_view name = path.substr(0, path.find('.'));
    const auto found = at->members.find(name);
    const std::string whole = above + (above.empty() ? "" : ".") + std::string(name);
    if (at->members.empty()) return above + " has no fields";
    if (found == at->members.end())
      return "there is no field " + whole + "; " +
             (above.empty() ? "known are " : above + " has ") + names_of(*at);
    at = &found->second;
    above = whole;
    path.remove_prefix(std::min(path.size(), name.size() + 1));
  }
  return "";
}

// --- The answer

// Whether `path` is `key` ("") or goes on behind it (what is left); nothing when it is another.
std::optional<std::string_view> behind(std::string_view path, std::string_view key) {
  if (!path.starts_with(key)) return std::nullopt;
  path.remove_prefix(key.size());
  if (path.empty()) return path;
  return path.front() == '.' ? std::optional(path.substr(1)) : std::nullopt;
}

void keep(bj::value& value, const std::vector<std::string_view>& paths) {
  if (bj::array* array = value.if_array()) {
    for (bj::value& item : *array) keep(item, paths);
    return;
  }
  bj::object* object = value.if_object();
  if (object == nullptr) return;
  bj::object kept;
  for (auto& member : *object) {
    std::vector<std::string_view> below;
    bool whole = false;
    for (const std::string_view path : paths) {
      const auto left = behind(path, member.key());
      if (!left) continue;
      whole = whole || left->empty();
      below.push_back(*left);
    }
    const bool holds = member.value().is_object() || member.value().is_array();
    if (!whole && (below.empty() || !holds)) continue;
    if (!whole) keep(member.value(), below);
    kept[member.key()] = std::move(member.value());
  }
  *object = std::move(kept);
}

}  // namespace

FieldTree fields_of(const bj::value& document, const bj::value& operation) {
  boost::system::error_code none;
  const bj::value* schema =
      operation.find_pointer("/responses/200/content/application~1json/schema", none);
  if (schema == nullptr) return {{}, true};
  FieldTree tree = tree_of(document, *schema, 0);
  const auto items = tree.members.find("items");
  return items == tree.members.end() ? tree : FieldTree(std::move(items->second));
}

std::vector<std::string> read_fields(const net::Request& request, const FieldTree& known) {
  const std::string text = request.query("fields").value_or("");
  std::vector<std::string> paths;
  std::vector<Problem> problems;
  if (text.size() > kMostBytes)
    problems.push_back(
        {"?fields", "limit", "has at most " + std::to_string(kMostBytes) + " bytes"});
  for (std::size_t start = 0; problems.empty() && !text.empty() && start <= text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    std::string path = text.substr(start, end - start);
    start = end + 1;
    if (path.empty() || path.front() == '.' || path.back() == '.') {
      problems.push_back({"?fields", "syntax", "is a list such as id,labels.site"});
    } else if (std::count(path.begin(), path.end(), '.') >= kMostDepth) {
      problems.push_back(
          {"?fields", "limit", "a path has at most " + std::to_string(kMostDepth) + " names"});
    } else if (std::string fault = fault_of(known, path); !fault.empty()) {
      problems.push_back({"?fields", "unknown_field", std::move(fault)});
    } else if (paths.size() == kMostPaths) {
      problems.push_back(
          {"?fields", "limit", "names at most " + std::to_string(kMostPaths) + " fields"});
    } else {
      paths.push_back(std::move(path));
    }
  }
  if (!problems.empty())
    throw Error(Code::kInvalidArgument, "fields cannot be").problems(std::move(problems));
  return paths;
}

void keep_fields(const std::vector<std::string>& paths, net::Response& response) {
  if (paths.empty() || response.status != 200) return;
  bj::value body = json::parse(response.body, {.bytes = 64 << 20});
  bj::object* object = body.if_object();
  if (object == nullptr) return;
  bj::value* items = object->if_contains("items");
  keep(items != nullptr ? *items : body, {paths.begin(), paths.end()});
  response.body = bj::serialize(body);
}

}  // namespace flock::targets::api

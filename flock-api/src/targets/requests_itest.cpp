// SPDX-License-Identifier: Apache-2.0
#include "targets/itest_requests.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/id.h"

namespace flock::targets::itest {
namespace {

struct Value {
  const char* what;
  std::string json;  // as it is sent; not always JSON
};

std::string quoted(const std::string& text) { return bj::serialize(bj::value(text)); }

// What stands in the place of any member.
std::vector<Value> odd_values(Chance& chance) {
  const std::string deep(24, '['), end(24, ']'), too_deep(200, '[');
  return {
      {"null", "null"},
      {"true", "true"},
      {"a number", std::to_string(chance.below(100'000))},
      {"zero", "0"},
      {"a negative number", "-1"},
      {"a fraction", "0.5"},
      {"the least number", "-9223372036854775808"},
      {"more than 64 bits", "99999999999999999999999"},
      {"more than a double", "1e999"},
      {"an empty string", "\"\""},
      {"a space", "\" \""},
      {"a long string", quoted(chance.letters(5000))},
      {"a huge string", quoted(std::string(300'000, 'x'))},
      {"an empty array", "[]"},
      {"an array", "[17,null,[\"x\"],{}]"},
      {"an empty object", "{}"},
      {"an object", "{\"a\":{\"b\":[1]}}"},
      {"deep nesting", deep + end},
      {"nesting beyond the limit", too_deep + std::string(200, ']')},
      {"SQL", quoted("'; DROP TABLE devices; --")},
      {"more SQL", quoted("x' OR 1=1) /*\\")},
      {"HTML", quoted("<script>alert(1)</script>&amp;\"'>")},
      {"a path upwards", quoted("../../../../etc/passwd")},
      {"a line of the log", quoted("x\n{\"level\":\"error\",\"msg\":\"forged\"}\r\n")},
      {"a template", quoted("${jndi:ldap://x/a}{{7*7}}%s%n$(id)`id`")},
      {"a NUL", "\"a\\u0000b\""},
      {"control characters", "\"\\u0001\\u001b[31m\\u007f\""},
      {"a raw control character", "\"a\x01z\""},
      {"invalid UTF-8", "\"\xff\xfe\""},
      {"overlong UTF-8", "\"\xc0\xaf\""},
      {"a surrogate in UTF-8", "\"\xed\xa0\x80\""},
      {"a lone surrogate", "\"\\ud800\""},
      {"surrogates turned round", "\"\\udc00\\ud800\""},
      {"faraway characters", "\"\\ud83d\\ude80\\u202e\\ufffe\xf0\x9f\x91\xa9\""},
  };
}

// What stands in the place of any parameter, before it is escaped.
const std::vector<Value>& odd_texts() {
  static const std::vector<Value> all = {
      {"nothing", ""},
      {"a space", " "},
      {"zero", "0"},
      {"a negative number", "-1"},
      {"a fraction", "1.5"},
      {"a big number", "1001"},
      {"more than 64 bits", "99999999999999999999999"},
      {"a word", "nonsense"},
      {"an id", new_uuid()},
      {"SQL", "'; DROP TABLE devices; --"},
      {"HTML", "<script>alert(1)</script>"},
      {"a path upwards", "../../etc/passwd"},
      {"a line of the log", "x\n{\"level\":\"error\"}"},
      {"a template", "${jndi:ldap://x}{{7*7}}%s%n"},
      {"a NUL", std::string("a\0b", 3)},
      {"invalid UTF-8", "\xff\xfe"},
      {"faraway characters", "\xf0\x9f\x9a\x80"},
      {"a long text", std::string(3000, 'x')},
      {"a token of another list", to_base64url("zzz")},
      {"a token of bytes", to_base64url("\xff\xfe")},
      {"a token that is JSON", to_base64url(R"({"v":1,"k":[null,{}]})")},
  };
  return all;
}

const std::vector<Value>& odd_filters() {
  static const std::vector<Value> all = {
      {"an unknown field", "colour = red"},
      {"a wrong type", "cpus = \"many\""},
      {"a time that is none", "last_seen > yesterday"},
      {"an operator that does not fit", "online > true"},
      {"no end of a string", "name = \"x"},
      {"only an operator", "AND AND"},
      {"SQL in a string", R"(name = "x' OR '1'='1")"},
      {"SQL in a field", R"(labels.a'||(select 1)||' = x)"},
      {"deep nesting", std::string(400, '(') + "name = x" + std::string(400, ')')},
      {"no closing", std::string(50, '(') + "name = x"},
      {"many terms",
       [] {
         std::string out = "name = x";
         for (int i = 0; i < 120; ++i) out += " OR name = x";
         return out;
       }()},
      {"a good one", "id != \"x\" AND NOT (state = FINAL)"},
      {"a good one of devices", "name = gw* AND labels.site = oslo OR online = false"},
      {"an order", "id desc"},
      {"two orders", "name desc, name"},
      {"an empty order", ","},
      {"a NUL in a string", std::string("name = \"a\0b\"", 12)},
  };
  return all;
}

std::string pointer_part(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~')
      out += "~0";
    else if (c == '/')
      out += "~1";
    else
      out += c;
  }
  return out;
}

// `body` with `json` in the place of `pointer`.
std::string with(const bj::value& body, const std::string& pointer, const std::string& json) {
  static const std::string kMark = "@the-place@";
  bj::value copy = body;
  copy.at_pointer(pointer) = kMark;
  std::string out = bj::serialize(copy);
  const std::string quoted_mark = quoted(kMark);
  return out.replace(out.find(quoted_mark), quoted_mark.size(), json);
}

std::int64_t number_of(const bj::object& schema, const char* key, std::int64_t fallback) {
  const bj::value* found = schema.if_contains(key);
  return found ? found->to_number<std::int64_t>() : fallback;
}

std::string name_of(const bj::object& parameter, const char* key) {
  return std::string(parameter.at(key).as_string());
}

}  // namespace

std::string Chance::letters(std::size_t length) {
  std::string out(length, ' ');
  for (char& c : out) c = static_cast<char>('a' + below(26));
  return out;
}

std::string percent_encode(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.') {
      out += c;
    } else {
      out += '%';
      out += to_hex(std::string_view(&c, 1));
    }
  }
  return out;
}

// --- Such as the document allows
// -------------------------------------------------------------------------

std::string Requests::text(const bj::object& schema) {
  if (const bj::value* format = schema.if_contains("format"))
    return *format == "uuid" ? new_uuid() : "2026-11-24T10:00:00.250Z";
  const auto least = static_cast<std::size_t>(number_of(schema, "minLength", 0)),
             most = static_cast<std::size_t>(number_of(schema, "maxLength", 5000));
  const std::size_t lengths[] = {least, most, std::min(most, std::max<std::size_t>(least, 12))};
  return chance_.letters(lengths[chance_.one_in(4) ? chance_.below(2) : 2]);
}

namespace {
// Whether what is known under a name is something else here: a deployment's kind is no gate's.
bool forbids(const bj::object& schema, const std::vector<bj::value>& known) {
  const bj::value* allowed = schema.if_contains("enum");
  return allowed != nullptr &&
         std::ranges::find(allowed->as_array(), known.front()) == allowed->as_array().end();
}
}  // namespace

bj::object Requests::object(const bj::object& schema, bool whole) {
  bj::object out;
  const bj::value* required = schema.if_contains("required");
  const auto must = [&](std::string_view name) {
    return required &&
           std::ranges::find(required->as_array(), bj::value(name)) != required->as_array().end();
  };
  if (const bj::value* properties = schema.if_contains("properties")) {
    for (const auto& [name, each] : properties->as_object()) {
      if (whole || must(name) || chance_.one_in(2))
        out[name] = sample(each, std::string(name), whole);
    }
  }
  const bj::value* others = schema.if_contains("additionalProperties");
  if (others != nullptr && others->is_object() && (whole || chance_.one_in(2)))
    out[chance_.letters(5)] = sample(*others, "", whole);
  return out;
}

bj::value Requests::sample(const bj::value& named, const std::string& name, bool whole) {
  const bj::object& schema = resolve(named).as_object();
  const bj::value* pattern = schema.if_contains("pattern");
  if (pattern != nullptr && pattern->as_string().find(":[0-5][0-9]") != bj::string::npos)
    return name == "from" ? "22:30" : "04:00";  // a time of day
  if (const auto found = known_.find(name);
      found != known_.end() && !forbids(schema, found->second))
    return chance_.of(found->second);
  if (const bj::value* reference = named.as_object().if_contains("$ref");
      reference && reference->as_string().ends_with("/Duration"))
    return bj::value(std::to_string(1 + chance_.below(23)) + "h");
  if (const bj::value* allowed = schema.if_contains("enum")) return chance_.of(allowed->as_array());
  const bj::value* types = schema.if_contains("type");
  if (types == nullptr) return nullptr;
  const bj::value& type = types->is_array() ? types->get_array().front() : *types;
  if (type == "string") return bj::value(text(schema));
  if (type == "boolean") return chance_.one_in(2);
  if (type == "number") return 0.5;
  if (type == "integer") {
    const std::int64_t least = number_of(schema, "minimum", 0),
                       most = number_of(schema, "maximum", INT64_MAX);
    return std::min(most, least + static_cast<std::int64_t>(chance_.below(50)));
  }
  if (type == "object") return object(schema, whole);
  bj::array items;
  const auto count = static_cast<std::size_t>(number_of(schema, "minItems", 1));
  for (std::size_t i = 0; i < std::max<std::size_t>(count, 1); ++i)
    items.push_back(sample(schema.at("items"), name + "[]", whole));
  return items;
}

bj::value Requests::body_for(const Operation& operation, bool whole) {
  if (const auto found = bodies.find(operation.id); found != bodies.end())
    return chance_.of(found->second);
  bj::value body = sample(operation.body->at("schema"), "", whole);
  // One of both.
  const auto drop = [&](const char* pointer, const char* one, const char* other) {
    boost::system::error_code none;
    bj::value* place = body.find_pointer(pointer, none);
    if (place == nullptr || !place->is_object()) return;
    bj::object& object = place->get_object();
    if (object.contains(one) && object.contains(other))
      object.erase(chance_.one_in(2) ? one : other);
  };
  drop("", "filter", "device_ids");
  drop("", "public_key", "thumbprint");
  drop("/target", "fleet_id", "device_ids");
  return body;
}

Trial Requests::as_documented(const Operation& operation) {
  Trial out;
  out.operation = &operation;
  out.what = "as documented";
  out.as_documented = true;
  for (const bj::object* parameter : operation.parameters) {
    const std::string name = name_of(*parameter, "name");
    const bj::value* required = parameter->if_contains("required");
    const bool must = required != nullptr && required->as_bool();
    if (name_of(*parameter, "in") != "query" || (!must && !chance_.one_in(3))) continue;
    const bj::value value = sample(parameter->at("schema"), name, false);
    out.query.emplace_back(name, percent_encode(value.is_string() ? std::string(value.get_string())
                                                                  : bj::serialize(value)));
  }
  if (operation.body != nullptr && (operation.body_required || chance_.one_in(2)))
    out.body = bj::serialize(body_for(operation, chance_.one_in(2)));
  return out;
}

// --- Such as break it
// -----------------------------------------------------------------------------

void Requests::break_parameters(const Operation& operation, std::vector<Trial>& out) {
  for (const bj::object* parameter : operation.parameters) {
    const std::string name = name_of(*parameter, "name"), where = name_of(*parameter, "in");
    std::vector<Value> values = odd_texts();
    if (name == "filter" || name == "order_by")
      values.insert(values.end(), odd_filters().begin(), odd_filters().end());
    if (where == "header")
      values = {{"another", "\"0000000000000000\""},
                {"nothing", ""},
                {"a list", "\"a\", W/\"b\",,"},
                {"bytes", "\xff\x01"},
                {"spaces", "a b"},
                {"long", std::string(300, 'k')}};
    for (const Value& value : values) {
      Trial trial = as_documented(operation);
      trial.what = "the " + where + "'s " + name + ": " + value.what;
      trial.as_documented = false;
      if (where == "header") trial.headers.emplace_back(name, value.json);
      if (where == "path") trial.path[name] = percent_encode(value.json);
      if (where == "query") {
        std::erase_if(trial.query, [&](const auto& each) { return each.first == name; });
        trial.query.emplace_back(name, percent_encode(value.json));
        trial.pointer = "?" + name;
      }
      out.push_back(std::move(trial));
    }
    if (where != "query") continue;
    Trial twice = as_documented(operation);
    twice.what = "the query's " + name + ": twice";
    twice.as_documented = false;
    twice.query.insert(twice.query.end(), {{name, "a%2Fb"}, {name, "+"}});
    out.push_back(std::move(twice));
  }
  Trial unknown = as_documented(operation);
  unknown.what = "the query: an unknown parameter";
  unknown.as_documented = false;
  unknown.query.emplace_back("unknown'parameter", "1");
  unknown.pointer = "?unknown'parameter";
  out.push_back(std::move(unknown));
}

void Requests::break_members(const Trial& base, const bj::value& body, const std::string& at,
                             const bj::value& place, std::vector<Trial>& out) {
  const auto add = [&](const std::string& pointer, const std::string& what, std::string sent) {
    Trial trial = base;
    trial.what = "the body's " + pointer + ": " + what;
    trial.body = std::move(sent);
    trial.pointer = pointer;
    out.push_back(std::move(trial));
  };
  const auto each = [&](const std::string& pointer, const bj::value& inner) {
    for (const Value& value : odd_values(chance_))
      add(pointer, value.what, with(body, pointer, value.json));
    break_members(base, body, pointer, inner, out);
  };
  if (const bj::array* items = place.if_array(); items != nullptr && !items->empty())
    each(at + "/0", items->front());
  const bj::object* members = place.if_object();
  if (members == nullptr) return;
  for (const auto& [name, inner] : *members) {
    const std::string pointer = at + "/" + pointer_part(name);
    each(pointer, inner);
    bj::value without = body;
    without.at_pointer(at).as_object().erase(name);
    add(pointer, "missing", bj::serialize(without));
    std::string twice = bj::serialize(*members);
    twice.insert(1, bj::serialize(bj::value(name)) + ":[],");
    add(pointer, "there twice", at.empty() ? twice : with(body, at, twice));
  }
  bj::value more = body;
  more.at_pointer(at).as_object()["unknown'field~/<b>"] = 1;
  add(at + "/" + pointer_part("unknown'field~/<b>"), "unknown", bj::serialize(more));
}

void Requests::break_whole_body(const Trial& base, std::vector<Trial>& out) {
  const std::string good = base.body;
  const std::pair<const char*, std::string> odd[] = {
      {"nothing", ""},
      {"null", "null"},
      {"an array", "[" + good + "]"},
      {"a string", quoted(good)},
      {"a number", "1e308"},
      {"cut off", good.substr(0, chance_.below(good.size()))},
      {"cut off at its end", good.substr(0, good.size() - 1)},
      {"something after it", good + "x"},
      {"two of it", good + good},
      {"a byte order mark", "\xef\xbb\xbf" + good},
      {"UTF-16", std::string("{\0}\0", 4)},
      {"a form", "name=x&value=y"},
      {"a comment", "/* x */" + good},
      {"single quotes", "{'name':'x'}"},
      {"very deep", std::string(100'000, '[')},
      {"deep objects",
       [] {
         std::string deep;
         for (int i = 0; i < 5000; ++i) deep += "{\"a\":";
         return deep;
       }()},
      {"more than a megabyte", "\"" + std::string(2 << 20, 'x') + "\""},
      {"many members",
       [] {
         std::string many = "{";
         for (int i = 0; i < 20'000; ++i) many += "\"k" + std::to_string(i) + "\":1,";
         return many + "\"z\":1}";
       }()},
      {"zeros", std::string(64, '\0')},
  };
  for (const auto& [what, body] : odd) {
    Trial trial = base;
    trial.what = std::string("the body: ") + what;
    trial.body = body;
    out.push_back(std::move(trial));
  }
  for (const char* type : {"text/plain", "application/xml", "multipart/form-data; boundary=x",
                           "application/json; charset=utf-16", "\xff", ""}) {
    Trial trial = base;
    trial.what = std::string("the body: sent as ") + type;
    trial.headers.emplace_back("Content-Type", type);
    out.push_back(std::move(trial));
  }
}

void Requests::break_body(const Operation& operation, std::vector<Trial>& out) {
  Trial base = as_documented(operation);
  const bj::value body = body_for(operation, true);
  base.as_documented = false;
  base.body = bj::serialize(body);
  break_whole_body(base, out);
  break_members(base, body, "", body, out);
}

std::vector<Trial> Requests::broken(const Operation& operation) {
  std::vector<Trial> out;
  break_parameters(operation, out);
  if (operation.body != nullptr) break_body(operation, out);
  for (const char* method : {"PUT", "PATCH", "DELETE", "POST", "TRACE", "FLOCK"}) {
    const bool known = std::ranges::any_of(operations(), [&](const Operation& each) {
      return each.pattern == operation.pattern && each.method == method;
    });
    if (known) continue;
    Trial trial = as_documented(operation);
    trial.what = std::string("the method ") + method;
    trial.as_documented = false;
    trial.method = method;
    out.push_back(std::move(trial));
  }
  return out;
}

}  // namespace flock::targets::itest

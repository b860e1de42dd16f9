// SPDX-License-Identifier: Apache-2.0
#include "targets/api/call.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include "base/bytes.h"
#include "base/files.h"
#include "base/log.h"
#include "targets/api/trace_context.h"

namespace flock::targets::api {
namespace {

net::ClientOptions client_options() {
  net::ClientOptions options;
  options.body_bytes = 8 << 20;
  options.user_agent = "flock-api";
  return options;
}

std::vector<std::string> hosts_of(const Settings& settings) {
  if (!settings.registry_hosts.empty()) return settings.registry_hosts;
  const net::Url url = net::parse_url(settings.registry_url);
  return {url.host + ":" + url.port};
}

// Our own registry gets a token of ours; any other is asked by its own challenge.
oci::RegistryClient::Options registry_options(const Settings& settings,
                                              const services::DeviceTokens& tokens) {
  oci::RegistryClient::Options options;
  const auto hosts = hosts_of(settings);
  for (const std::string& host : hosts) options.urls[host] = settings.registry_url;
  options.token = [hosts, &tokens, service = settings.registry_service](
                      const std::string& registry, const std::string& repository) -> std::string {
    if (std::find(hosts.begin(), hosts.end(), registry) == hosts.end()) return "";
    return tokens.registry_token(service, "flock-api", {{repository, {"pull"}}},
                                 system_clock().now());
  };
  return options;
}

std::unique_ptr<identity::OidcVerifier> make_verifier(const Parts& parts) {
  if (parts.settings.oidc_issuer.empty()) return nullptr;
  identity::OidcOptions options;
  options.issuer = parts.settings.oidc_issuer;
  options.audiences = parts.settings.oidc_audience;
  return std::make_unique<identity::OidcVerifier>(parts.executor, std::move(options));
}

int status_of(const Error& error) {
  switch (error.code()) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnprocessable:
    case Code::kUnsupported:
      return 422;
    case Code::kUnauthenticated:
      return 401;
    case Code::kForbidden:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kConflict:
      return 409;
    case Code::kPreconditionFailed:
      return 412;
    case Code::kTooLarge:
      return 413;
    case Code::kRateLimited:
      return 429;
    case Code::kTimeout:
      return 504;
    case Code::kCancelled:
    case Code::kUnavailable:
      return 503;
    case Code::kProtocol:
      return 502;
    case Code::kCorrupt:
    case Code::kInternal:
      return 500;
  }
  return 500;
}

bool is_utf8(std::string_view text) {
  // append_quoted() turns exactly what is not UTF-8 into U+FFFD.
  if (std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; })) return true;
  static constexpr std::string_view kReplacement = "\xef\xbf\xbd";
  std::string quoted;
  json::append_quoted(quoted, text);
  const auto count = [](std::string_view in) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = in.find(kReplacement, at)) != std::string_view::npos; ++at)
      ++found;
    return found;
  };
  return count(quoted) == count(text);
}

// What no store and no JSON document can hold is refused before a handler sees it.
void check_text(std::string_view text, const char* where) {
  if (text.find('\0') != std::string_view::npos)
    throw Error(Code::kInvalidArgument, std::string(where) + " holds a NUL character");
  if (!is_utf8(text))
    throw Error(Code::kInvalidArgument, std::string(where) + " is not valid UTF-8");
}

// RFC 9745, RFC 8594.
void tell_deprecation(const Operation& operation, net::Headers& headers) {
  if (!operation.deprecation) return;
  const auto& [since, sunset, link] = *operation.deprecation;
  const std::time_t end = to_unix_ms(sunset) / 1000;
  std::tm parts{};
  ::gmtime_r(&end, &parts);
  char date[40];
  std::strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  headers.add("Deprecation", "@" + std::to_string(to_unix_ms(since) / 1000));
  headers.add("Sunset", date);
  headers.add("Link", "<" + link + ">; rel=\"deprecation\"");
}

void authorize(const Operation& operation, const Principal& who) {
  if (operation.access != Operation::Access::kPermission) return;
  if (who.org.empty())
    throw Error(Code::kForbidden, "you are in no organization here").hint(who.no_org_hint);
  if (who.permissions.has(operation.permission)) return;
  const std::string wanted(to_string(operation.permission));
  throw Error(Code::kForbidden, "this needs the permission " + wanted)
      .hint(who.kind == Principal::Kind::kApiKey
                ? "the API key has not this scope; make another: flock tokens create"
                : "your role is " + std::string(to_string(*who.role)) +
                      (who.fleets ? ", limited to some fleets" : "") +
                      "; an admin or owner can change it: flock members");
}

// Who calls, and whether he may.
Task<Principals::Quota> let_in(Call& call) {
  Context& context = call.context;
  call.who = co_await context.principals.authenticate(call.request);
  const auto quota = context.principals.admit(call.who, context.parts.settings.api_rate_limit);
  authorize(call.operation, call.who);
  co_return quota;
}

void add_headers(const Call& call, const Principals::Quota& quota, net::Headers& headers) {
  headers.add("X-Request-Id", call.id);
  tell_deprecation(call.operation, headers);
  if (quota.limit == 0) return;
  headers.add("RateLimit-Policy", "\"default\";q=" + std::to_string(quota.limit) + ";w=60");
  headers.add("RateLimit", "\"default\";r=" + std::to_string(quota.remaining) +
                               ";t=" + std::to_string(quota.reset_s));
}

// The call stands beside the frame: one of over 1 kB is slow to get.
Task<net::Reply> answer_call(std::unique_ptr<Call> call, const Context::Route& route) {
  const Operation& operation = call->operation;
  Principals::Quota quota;
  if (operation.access != Operation::Access::kPublic) quota = co_await let_in(*call);
  std::vector<std::string> fields;
  if (operation.method == "GET")
    fields = read_fields(call->request, operation.fields);
  else
    allow_query(call->request, {"validate_only", operation.query});
  net::Reply reply = co_await route(*call);
  if (!reply.stream) keep_fields(fields, reply.response);
  add_headers(*call, quota, reply.response.headers);
  co_return reply;
}

Task<net::Reply> ready(net::Reply reply) { co_return reply; }

// The names of constraints and the places of servers are in the log, not in an answer.
bool is_internal(const Error& error) {
  for (const auto& [key, value] : error.context()) {
    if (key == "sqlstate") return true;
  }
  return status_of(error) >= 500;
}

// With the caller's trace, when the request belongs to one.
void log_failure(const net::Request& request, const std::string& id, log::Level level,
                 const Error& error) {
  const std::string trace = trace_id(request), path = request.path();
  if (trace.empty())
    log::write(level, "request failed", error,
               {{"request_id", id}, {"method", request.method}, {"path", path}});
  else
    log::write(
        level, "request failed", error,
        {{"request_id", id}, {"trace_id", trace}, {"method", request.method}, {"path", path}});
}

}  // namespace

Context::Context(Parts p)
    : parts(std::move(p)),
      http(parts.executor, client_options()),
      tokens(parts.signing_key, parts.settings.public_url, parts.settings.device_token_lifetime,
             parts.settings.longest_device_token()),
      audit(parts.bus),
      registry(http, registry_options(parts.settings, tokens)),
      people(make_verifier(parts)),
      principals(parts.db, people.get()),
      devices(parts.executor, parts.db, parts.live),
      events(parts),
      commands(parts.executor, parts.db, parts.bus) {
  if (!parts.settings.mqtt_ca_file.empty())
    broker_ca_ = read_file(parts.settings.mqtt_ca_file).value_or("");
}

std::vector<std::string> Context::device_urls() const {
  return parts.settings.mqtt_device_urls.empty() ? std::vector{parts.settings.mqtt_url}
                                                 : parts.settings.mqtt_device_urls;
}
std::vector<std::string> Context::registry_hosts() const { return hosts_of(parts.settings); }

void Context::add(Operation operation, Route route) {
  const Operation& kept =
      *operations_.emplace_back(std::make_unique<Operation>(std::move(operation)));
  auto handler = [this, &kept, route = std::move(route)](net::Request request,
                                                         net::Parameters parameters) {
    return serve(kept, route, std::move(request), std::move(parameters));
  };
  router.add(kept.method, kept.pattern, std::move(handler));
}

void Context::learn_fields(const bj::value& document) {
  for (const auto& operation : operations_) {
    if (operation->method != "GET") continue;
    const bj::value& path = document.at("paths").at(operation->pattern);
    operation->fields = fields_of(document, path.at("get"));
  }
}

Task<Principal> Context::admit(const Operation& operation, const net::Request& request) {
  Principal who = co_await principals.authenticate(request);
  authorize(operation, who);
  co_return who;
}

Task<net::Reply> Context::serve(const Operation& operation, const Route& route,
                                net::Request request, net::Parameters parameters) {
  const SteadyPoint began = std::chrono::steady_clock::now();
  in_flight_.add(1);
  std::exception_ptr failure;
  net::Reply reply;
  int status = 500;
  try {
    reply = co_await answer(operation, route, std::move(request), std::move(parameters));
    status = reply.response.status;
  } catch (const Error& error) {
    failure = std::current_exception();
    status = status_of(error);
  } catch (...) {
    failure = std::current_exception();
  }
  in_flight_.add(-1);
  measure(operation, status, began);
  if (failure) std::rethrow_exception(failure);
  co_return reply;
}

// Of a stream: until its first byte.
void Context::measure(const Operation& operation, int status, SteadyPoint began) {
  const std::pair key(&operation, status / 100);
  auto at = durations_.find(key);
  if (at == durations_.end())
    at = durations_
             .try_emplace(key, "flock_http_request_duration_seconds",
                          "How long requests took, by route and kind of status.",
                          metrics::Labels{{"target", "api"},
                                          {"method", operation.method},
                                          {"route", operation.pattern},
                                          {"status_class", std::to_string(key.second) + "xx"}})
             .first;
  at->second.observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
}

Task<net::Reply> Context::answer(const Operation& operation, const Route& route,
                                 net::Request request, net::Parameters parameters) {
  return answer_call(
      std::make_unique<Call>(*this, operation, std::move(request), std::move(parameters)), route);
}

// No coroutine of its own: whatever it throws, the server awaits it in the same place.
Task<net::Reply> Context::handle(net::Request request) {
  const bool plain = request.raw_path().find('%') == std::string_view::npos;
  if (plain)
    check_text(request.raw_path(), "the path");
  else
    check_text(request.path(), "the path");
  for (const auto& [key, value] : request.query_items()) {
    check_text(key, "the query");
    check_text(value, "the query");
  }
  net::Router::Match match = router.match(request.method, request.raw_path());
  if (match.route == nullptr && !match.allowed.empty()) {
    net::Reply reply;
    std::string allowed;
    for (const std::string& method : match.allowed)
      allowed += (allowed.empty() ? "" : ", ") + method;
    reply.response.status = 405;
    reply.response.headers.add("Allow", allowed);
    finish_problem(request, request_id(request), reply.response,
                   {{"code", "method_not_allowed"}, {"detail", "allowed here: " + allowed}});
    return ready(std::move(reply));
  }
  if (match.route == nullptr)
    throw Error(Code::kNotFound, "there is no such path")
        .with("path", request.path())
        .hint("GET /v1/openapi.json lists them all");
  return match.route->handler(std::move(request), std::move(match.parameters));
}

std::string request_id(const net::Request& request) {
  const auto given = request.headers.get("X-Request-Id");
  const bool safe = given && !given->empty() && given->size() <= 64 &&
                    given->find_first_not_of(
                        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
                        std::string_view::npos;
  return safe ? std::string(*given) : new_uuid();
}

Operation allowed(std::string id, std::string method, std::string pattern, Permission permission) {
  return {std::move(id), std::move(method), std::move(pattern), Operation::Access::kPermission,
          permission};
}
Operation signed_in(std::string id, std::string method, std::string pattern) {
  return {std::move(id), std::move(method), std::move(pattern), Operation::Access::kSignedIn};
}
Operation open_to_all(std::string id, std::string method, std::string pattern) {
  return {std::move(id), std::move(method), std::move(pattern), Operation::Access::kPublic};
}

Operation deprecated(Operation operation, Operation::Deprecation deprecation) {
  operation.deprecation = std::move(deprecation);
  return operation;
}

net::Reply json_reply(int status, const bj::value& value) {
  net::Reply reply;
  reply.response.status = status;
  reply.response.headers.add("Content-Type", "application/json");
  reply.response.headers.add("Cache-Control", "no-store");
  if (status != 204) reply.response.body = bj::serialize(value);
  return reply;
}

void finish_problem(const net::Request& request, const std::string& id, net::Response& response,
                    bj::object body) {
  body["type"] = "about:blank";
  body["title"] = net::reason_phrase(response.status);
  body["status"] = response.status;
  const std::string path = request.path();
  body["instance"] = is_utf8(path) ? path : std::string(request.raw_path());
  body["request_id"] = id;
  response.headers.add("Content-Type", "application/problem+json");
  response.headers.add("X-Request-Id", id);
  if (response.status == 401) response.headers.add("WWW-Authenticate", "Bearer");
  if (response.status == 429) response.headers.add("Retry-After", "1");
  if (response.status == 503) response.headers.add("Retry-After", "2");
  response.body = bj::serialize(body);
}

// RFC 9457. What went wrong inside stays in the log; the caller gets the request id to name it by.
net::Response problem(const net::Request& request, std::exception_ptr failure) {
  net::Response response;
  const std::string id = request_id(request);
  bj::object body;
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    response.status = status_of(error);
    const bool internal = is_internal(error), ours = response.status == 500;
    if (internal) log_failure(request, id, ours ? log::Level::kError : log::Level::kWarn, error);
    body["code"] = to_string(error.code());
    body["detail"] = ours ? "something failed inside; the log has the request id"
                     : internal && response.status == 409
                         ? "this clashes with what is there or was just changed"
                         : error.message();
    if (!error.hint().empty()) body["hint"] = error.hint();
    bj::array errors;
    for (const Problem& fault : error.problems())
      errors.push_back(
          bj::object{{"pointer", fault.pointer}, {"code", fault.code}, {"detail", fault.detail}});
    if (!errors.empty()) body["errors"] = std::move(errors);
    if (!internal && !error.context().empty()) {
      bj::object context;
      for (const auto& [key, value] : error.context()) context[key] = value;
      body["context"] = std::move(context);
    }
  } catch (const std::exception& error) {
    response.status = 500;
    log_failure(request, id, log::Level::kError, Error(Code::kInternal, error.what()));
    body["code"] = "internal";
    body["detail"] = "something failed inside; the log has the request id";
  }
  finish_problem(request, id, response, std::move(body));
  return response;
}

bj::value read_body(const net::Request& request) {
  if (request.body.empty())
    throw Error(Code::kInvalidArgument, "the request has no body").hint("send a JSON object");
  return json::parse(request.body);
}

void allow_query(const net::Request& request, std::initializer_list<std::string_view> names) {
  std::vector<Problem> problems;
  for (const auto& [key, value] : request.query_items()) {
    if (key == "fields" && request.method == "GET") continue;
    if (std::find(names.begin(), names.end(), key) == names.end())
      problems.push_back({"?" + key, "unknown_parameter", "is not a parameter of this path"});
  }
  if (!problems.empty())
    throw Error(Code::kInvalidArgument, "a query parameter is not known")
        .problems(std::move(problems));
}

Error bad_parameter(std::string_view name, std::string detail) {
  return Error(Code::kInvalidArgument, "a query parameter cannot be")
      .problems({{"?" + std::string(name), "invalid", std::move(detail)}});
}

std::int64_t read_page_size(const net::Request& request) {
  const auto text = request.query("page_size");
  if (!text) return 50;
  std::int64_t size = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), size);
  if (error != std::errc() || end != text->data() + text->size() || size < 1 || size > 1000)
    throw bad_parameter("page_size", "must be a whole number from 1 to 1000");
  return size;
}

Page read_page(const net::Request& request) {
  Page page{read_page_size(request), ""};
  if (const auto token = request.query("page_token"); token && !token->empty()) {
    const auto key = from_base64url(*token);
    if (!key || key->size() > 100 || key->find('\0') != std::string::npos || !is_utf8(*key))
      throw bad_parameter("page_token", "it is not one of ours");
    page.after = *key;
  }
  return page;
}

std::int64_t number_after(const Page& page) {
  const bool is_key =
      page.after.size() <= 18 && page.after.find_first_not_of("0123456789") == std::string::npos;
  if (!is_key) throw bad_parameter("page_token", "it is not one of ours");
  return page.after.empty() ? 0 : std::stoll(page.after);
}

net::Reply list_reply(bj::array items, const Page& page, std::string_view key) {
  std::string next;
  if (static_cast<std::int64_t>(items.size()) > page.size) {
    items.resize(static_cast<std::size_t>(page.size));
    next = to_base64url(std::string(items.back().as_object().at(key).as_string()));
  }
  return json_reply(200, bj::object{{"items", std::move(items)}, {"next_page_token", next}});
}

std::string slug_of(std::string_view name) {
  std::string slug;
  for (const char c : name) {
    const char low = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const bool plain = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9');
    if (plain)
      slug += low;
    else if (!slug.empty() && slug.back() != '-')
      slug += '-';
  }
  while (!slug.empty() && slug.back() == '-') slug.pop_back();
  return slug.substr(0, 63);
}

std::string read_slug(json::Reader& in, std::string_view name) {
  std::string slug = in.optional_string("slug", {.min = 1, .max = 63}).value_or(slug_of(name));
  if (slug.empty() || slug != slug_of(slug) || is_uuid(slug))
    in.problem("slug", "invalid", "must be lower-case letters, digits and single dashes");
  return slug;
}

std::optional<TimePoint> read_expiry(json::Reader& in, const char* key, Duration most) {
  const auto life = in.optional_string(key);
  if (!life) return std::nullopt;
  try {
    const Duration lasts = parse_duration(*life);
    if (lasts.count() > 0 && lasts <= most) return system_clock().now() + lasts;
    in.problem(key, "out_of_range", "must be above 0 and at most " + to_string(most));
  } catch (const Error& error) {
    in.problem(key, "invalid", error.hint());
  }
  return std::nullopt;
}

void item_problem(json::Reader& in, const char* key, const std::string& item, std::string detail) {
  const bj::value any(bj::object_kind);
  json::Reader items(any, in.pointer(key), in);
  items.problem(item, "invalid", std::move(detail));
}

void set_time(bj::object& out, const char* key, const std::optional<TimePoint>& time) {
  if (time) out[key] = to_rfc3339(*time);
}

}  // namespace flock::targets::api

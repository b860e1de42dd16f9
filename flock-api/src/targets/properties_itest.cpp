// SPDX-License-Identifier: Apache-2.0
// Whatever is sent to the API, it answers as its document says, and what it refuses changes
// nothing. Requests are made by chance from the document; FLOCK_SEED repeats a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "base/bytes.h"
#include "base/json.h"
#include "base/log.h"
#include "targets/api_itest.h"
#include "targets/itest_world.h"

namespace flock::targets::itest {
namespace {

// Requests as documented, of each operation; more until one succeeds.
constexpr std::size_t kDocumented = 6, kMostDocumented = 600;
constexpr std::size_t kLookAtRows = 6;  // at one in so many

// What is done once, and what only a person may do.
const std::set<std::string_view> kNeverSucceed{"setUp", "createOrganization", "acceptInvitation"};

// Goes on for as long as somebody reads; Events.* and Logs.* follow them.
bool is_stream(const Operation& operation) {
  boost::system::error_code none;
  return bj::value(*operation.described)
             .find_pointer("/responses/200/content/text~1event-stream", none) != nullptr;
}

std::uint64_t seed() {
  const char* given = std::getenv("FLOCK_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
}

// A busy machine tries less; FLOCK_SECONDS gives a run more time, or less.
Duration time_to_try() {
  const char* given = std::getenv("FLOCK_SECONDS");
  return Duration(1000 * (given != nullptr ? std::strtoll(given, nullptr, 10) : 45));
}

std::string shown(std::string text) {
  if (text.size() > 300) text = text.substr(0, 300) + "... (" + std::to_string(text.size()) + ")";
  std::string out;
  json::append_quoted(out, text);
  return out;
}

class Properties : public StackTest {
 protected:
  void TearDown() override { log::set_level(log::Level::kInfo); }
};

class Trying {
 public:
  Trying(Backend& backend, Api& api, std::uint64_t seed)
      : backend_(backend),
        chance_(seed),
        world_(backend, api, chance_),
        http_(backend.executor, {}),
        owner_(api.token) {}

  Task<void> open() {
    co_await world_.open();
    const std::vector<std::string> fleets{world_.fleet()};
    tokens_ = {owner_, co_await backend_.make_key(owner_, "viewer"),
               co_await backend_.make_key(owner_, "developer"),
               co_await backend_.make_key(owner_, "admin", {}, fleets)};
  }

  Task<void> go() {
    const SteadyPoint end = std::chrono::steady_clock::now() + time_to_try();
    Requests requests(chance_, world_.known());
    requests.bodies = world_.bodies();
    std::vector<Trial> trials;
    for (const Operation& operation : operations()) {
      if (is_stream(operation)) continue;
      const bool never = kNeverSucceed.contains(operation.id);
      for (std::size_t i = 0; i < kMostDocumented; ++i) {
        if (i >= kDocumented && (never || succeeded_.contains(operation.id))) break;
        requests.bodies = world_.bodies();
        co_await documented(requests.as_documented(operation));
      }
      for (Trial& trial : requests.broken(operation)) trials.push_back(std::move(trial));
    }
    std::shuffle(trials.begin(), trials.end(), chance_.engine());
    made_ = trials.size();
    for (Trial& trial : trials) {
      if (std::chrono::steady_clock::now() > end) break;
      if (chance_.one_in(8)) trial.caller = 1 + static_cast<int>(chance_.below(3));
      co_await attempt(trial);
    }
  }

  void report(std::uint64_t seed) const {
    std::printf(
        "properties: seed %llu, %zu operations, %zu ways to break them, %zu requests; rows looked "
        "at %zu times where nothing may change, changed by %zu others\n",
        static_cast<unsigned long long>(seed), operations().size(), made_, tried_, looked_,
        changed_);
    EXPECT_GT(changed_, 0u) << "a look at the rows sees no change";
    for (const auto& [status, count] : statuses_) std::printf("  %d: %zu\n", status, count);
    for (const auto& [key, fault] : faults_)
      ADD_FAILURE() << key << " (" << fault.count << " times), first by\n" << fault.example;
    for (const Operation& operation : operations()) {
      if (!kNeverSucceed.contains(operation.id) && !is_stream(operation))
        EXPECT_TRUE(succeeded_.contains(operation.id)) << operation.id << " never succeeded";
    }
  }

 private:
  struct Fault {
    std::size_t count = 0;
    std::string example;
  };

  // As the document says, and then in its ways of asking again.
  Task<void> documented(Trial trial) {
    std::erase_if(trial.query, [](const auto& each) { return each.first == "validate_only"; });
    const bool posts = takes(*trial.operation, "Idempotency-Key"),
               dry = takes(*trial.operation, "validate_only");
    if (dry && chance_.one_in(3)) {
      trial.query.emplace_back("validate_only", "true");
    } else if (posts && chance_.one_in(2)) {
      trial.headers.emplace_back("Idempotency-Key", new_uuid());
      co_return co_await repeat(std::move(trial));
    }
    const net::Response first = co_await attempt(trial);
    if (first.status == 400) check_document(trial, first);
    const auto tag = first.headers.get("ETag");
    if (trial.operation->method != "GET" || !tag) co_return;
    trial.headers.emplace_back("If-None-Match", std::string(*tag));
    trial.what += ", with the ETag";
    co_await attempt(trial);
  }

  // The same key and request again get the same answer and change nothing; another request with it
  // is refused.
  Task<void> repeat(Trial trial) {
    const std::string path = co_await world_.path_for(*trial.operation, trial.path);
    const net::Response first = co_await attempt(trial, path);
    if (first.status >= 300) co_return;
    const std::string before = co_await world_.rows();
    trial.what += ", again with its key";
    const net::Response second = co_await attempt(trial, path);
    if (second.status != first.status || second.body != first.body)
      fault(trial, "another answer to the same Idempotency-Key", second);
    if (co_await world_.rows() != before) fault(trial, "a repeated request changed rows", second);
    trial.what += ", for another request";
    trial.query.emplace_back("validate_only", "false");
    const net::Response third = co_await attempt(trial, path);
    if (third.status != 422) fault(trial, "took an Idempotency-Key for another request", third);
  }

  static bool takes(const Operation& operation, const char* parameter) {
    return std::ranges::any_of(operation.parameters, [&](const bj::object* each) {
      return each->at("name") == parameter;
    });
  }

  static std::string target_of(const Trial& trial, std::string path) {
    char mark = '?';
    for (const auto& [name, value] : trial.query) {
      path += mark + percent_encode(name) + "=" + value;
      mark = '&';
    }
    return path;
  }

  Task<net::Response> attempt(const Trial& trial, std::string path = "") {
    if (path.empty()) path = co_await world_.path_for(*trial.operation, trial.path);
    const std::string target = target_of(trial, path),
                      method = trial.method.empty() ? trial.operation->method : trial.method;
    const bool look = chance_.one_in(kLookAtRows);
    const std::string before = look ? co_await world_.rows() : "";
    const net::Response answer = co_await send(trial, method, target);
    if (answer.status == 0) co_return answer;
    judge(trial, method, target, answer);
    const bool done = answer.status < 300,
               changes = done && method != "GET" &&
                         target.find("validate_only=true") == std::string::npos;
    if (look) compare(trial, answer, changes, before, co_await world_.rows());
    if (done && trial.caller == 0) succeeded_.insert(trial.operation->id);
    if (changes) world_.used(*trial.operation);
    co_return answer;
  }

  // The status is 0 when there was no answer.
  Task<net::Response> send(const Trial& trial, std::string method, std::string target) {
    net::Headers headers;
    const std::string& token = tokens_.at(static_cast<std::size_t>(trial.caller));
    if (trial.operation->id == "getRegistryToken")
      headers.add("Authorization", "Basic " + to_base64("flock:" + token));
    else
      headers.add("Authorization", "Bearer " + token);
    for (const auto& [name, value] : trial.headers) headers.add(name, value);
    ++tried_;
    net::Response answer;
    try {
      answer = co_await http_.send(method, backend_.stack.url(target), headers, trial.body);
      ++statuses_[answer.status];
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      answer.status = 0;
      fault(trial, "no answer: " + error.describe(), answer);
    }
    co_return answer;
  }

  void judge(const Trial& trial, const std::string& method, const std::string& target,
             const net::Response& answer) {
    for (const std::string& each : answer_faults(method, target, answer))
      fault(trial, each.substr(each.rfind(": ") + 2), answer);
    if (answer.status >= 500) fault(trial, "fails", answer);
    if (answer.status < 300) check_accepted(trial, answer);
    if (answer.status < 300 && is_another_tag(trial)) fault(trial, "ignores If-Match", answer);
    if (answer.status == 400) check_pointer(trial, answer);
  }

  void compare(const Trial& trial, const net::Response& answer, bool may_change,
               const std::string& before, const std::string& after) {
    if (!may_change) ++looked_;
    if (before == after) return;
    if (may_change)
      ++changed_;
    else
      fault(trial, "changed rows: " + difference(before, after), answer);
  }

  static bool is_another_tag(const Trial& trial) {
    return std::ranges::any_of(trial.headers, [](const auto& each) {
      return each.first == "If-Match" && each.second == "\"0000000000000000\"";
    });
  }

  // What was accepted is what the document allows.
  void check_accepted(const Trial& trial, const net::Response& answer) {
    if (!trial.method.empty()) return fault(trial, "takes another method", answer);
    if (trial.operation->body != nullptr && !trial.body.empty()) {
      try {
        const bj::value body = json::parse(trial.body);
        for (const auto& each : request_faults(trial.operation->body->at("schema"), body))
          fault(trial, "accepts what the document does not: " + each, answer);
      } catch (const Error& error) {
        fault(trial, "accepts what is no JSON: " + error.describe(), answer);
      }
    }
    std::set<std::string> seen;  // the first of a name counts
    for (const auto& [name, value] : trial.query) {
      if (!seen.insert(name).second) continue;
      for (const bj::object* parameter : trial.operation->parameters) {
        if (parameter->at("name") != bj::value(name) || parameter->at("in") != "query") continue;
        for (const auto& each : query_faults(*parameter, net::percent_decode(value)))
          fault(trial, "accepts what the document does not: ?" + name + each, answer);
      }
    }
  }

  // An empty parameter is as none.
  static std::vector<std::string> query_faults(const bj::object& parameter, std::string value) {
    const bj::value& schema = parameter.at("schema");
    const bj::value* type = resolve(schema).as_object().if_contains("type");
    if (value.empty()) return {};
    if (type != nullptr && *type != "string") {
      try {
        return faults_of(schema, json::parse(value));
      } catch (const Error&) {
        return {" is no " + bj::serialize(*type)};
      }
    }
    return faults_of(schema, bj::value(value));
  }

  // A fault in one place is named by this place.
  void check_pointer(const Trial& trial, const net::Response& answer) {
    if (trial.pointer.empty()) return;
    const bj::value problem = json::parse(answer.body);
    if (!problem.is_object()) return;
    const bj::value* errors = problem.get_object().if_contains("errors");
    const std::string detail(problem.at("detail").as_string());
    if (errors == nullptr) {
      const bool of_text = detail.starts_with("not valid JSON") || detail.starts_with("the query ");
      if (!of_text) fault(trial, "names no place: " + detail, answer);
      return;
    }
    const std::string& at = trial.pointer;
    const bool named = std::ranges::any_of(errors->as_array(), [&](const bj::value& each) {
      const std::string pointer(each.at("pointer").as_string());
      return pointer.starts_with(at) || at.starts_with(pointer);
    });
    if (!named && is_wrong(trial)) fault(trial, "names another place", answer);
  }

  // Whether the document forbids what stands at the trial's pointer.
  static bool is_wrong(const Trial& trial) {
    if (!trial.pointer.starts_with('/')) return false;
    const auto faults =
        request_faults(trial.operation->body->at("schema"), json::parse(trial.body));
    return std::ranges::any_of(faults,
                               [&](const auto& each) { return each.starts_with(trial.pointer); });
  }

  // Limits that are not in the document.
  void check_document(const Trial& trial, const net::Response& answer) {
    const bj::value problem = json::parse(answer.body);
    const bj::value* errors = problem.as_object().if_contains("errors");
    if (errors == nullptr) return;
    for (const bj::value& each : errors->as_array()) {
      for (const char* code : {"too_long", "too_short", "too_many", "out_of_range", "wrong_type"}) {
        if (each.at("code") == code)
          fault(trial, "refuses what the document allows: " + text(each, "pointer"), answer);
      }
    }
  }

  static std::string difference(const std::string& before, const std::string& after) {
    std::string out;
    for (std::size_t at = 0; at < after.size();) {
      const std::size_t end = after.find('\n', at);
      const std::string line = after.substr(at, end - at);
      if (before.find(line + "\n") == std::string::npos)
        out += line.substr(0, line.find(' ')) + " ";
      at = end + 1;
    }
    return out;
  }

  void fault(const Trial& trial, std::string what, const net::Response& answer) {
    Fault& found = faults_[trial.operation->id + ": " + what];
    if (++found.count > 1) return;
    found.example = trial.what + "\n" + target_of(trial, trial.operation->pattern) + "\n" +
                    shown(trial.body) + "\n" + std::to_string(answer.status) + " " +
                    shown(answer.body);
  }

  Backend& backend_;
  Chance chance_;
  World world_;
  net::HttpClient http_;
  std::string owner_;
  std::vector<std::string> tokens_;
  std::size_t tried_ = 0, made_ = 0, looked_ = 0, changed_ = 0;
  std::map<int, std::size_t> statuses_;
  std::map<std::string, Fault> faults_;
  std::set<std::string> succeeded_;
};

TEST_F(Properties, WhateverIsSentTheDocumentHolds) {
  log::set_level(log::Level::kError);
  const std::uint64_t from = seed();
  flock::testing::run_task(
      [&]() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *stack);
        co_await backend.start();
        Api api(backend.executor, *stack, co_await backend.make_tenant("chance"));
        const auto body = [&]() -> Task<void> {
          Trying run(backend, api, from);
          co_await run.open();
          co_await run.go();
          run.report(from);
          co_await api.call("GET", "/v1/whoami");
          EXPECT_EQ(api.last.status, 200) << "it lives";
        };
        co_await stop_after(backend, body());
      },
      time_to_try() + Duration(90'000));
}

}  // namespace
}  // namespace flock::targets::itest

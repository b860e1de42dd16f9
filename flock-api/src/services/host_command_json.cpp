// SPDX-License-Identifier: Apache-2.0
#include "services/host_command_json.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <cctype>
#include <map>

#include "base/error.h"
#include "base/time.h"
#include "services/gate_json.h"

namespace flock::services {
namespace {

namespace bj = boost::json;
using device::v1::HostCommand;

constexpr std::size_t kCommandBytes = 8 << 10, kScriptBytes = 64 << 10, kPathBytes = 4096;
constexpr std::size_t kCodes = 32, kVariables = 64, kUserBytes = 32;
constexpr Duration kTimeout{600'000}, kShortest{1'000}, kLongest{24LL * 3600 * 1000};
constexpr std::int64_t kOutput = 64 << 10, kLeastOutput = 1 << 10, kMostOutput = 256 << 10;
constexpr std::pair<HostCommand::Reboot, const char*> kReboots[] = {
    {HostCommand::NEVER, "never"},
    {HostCommand::AFTER_SUCCESS, "after_success"},
    {HostCommand::EXPECTED, "expected"}};

std::string read_text(json::Reader& in, const char* key, std::size_t most) {
  return in.optional_string(key, {.min = 1, .max = most}).value_or("");
}

std::string read_path(json::Reader& in, const char* key) {
  std::string path = read_text(in, key, kPathBytes);
  if (!path.empty() && path.front() != '/') in.problem(key, "invalid", "must be an absolute path");
  return path;
}

Duration read_timeout(json::Reader& in) {
  const Duration value = read_time(in, "timeout", kTimeout, kLongest);
  if (value < kShortest)
    in.problem("timeout", "out_of_range", "must be at least " + to_string(kShortest));
  return value;
}

void read_codes(json::Reader& in, HostCommand& out) {
  const bj::array* given = in.optional_array("expected_exit_codes");
  if (given == nullptr) return;
  const auto is_code = [](const bj::value& item) {
    return item.is_int64() && item.get_int64() >= 0 && item.get_int64() <= 255;
  };
  if (given->empty() || given->size() > kCodes ||
      !std::all_of(given->begin(), given->end(), is_code))
    return in.problem("expected_exit_codes", "invalid",
                      "must be 1 to " + std::to_string(kCodes) + " numbers between 0 and 255");
  for (const bj::value& item : *given)
    out.add_expected_exit_codes(static_cast<std::int32_t>(item.get_int64()));
}

// POSIX.1-2017, 3.437: what a shell takes for the name of a user.
bool is_user(const std::string& name) {
  return !name.empty() && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
         });
}
bool is_variable(const std::string& name) {
  return !name.empty() && std::isdigit(static_cast<unsigned char>(name.front())) == 0 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
}

void read_environment(json::Reader& in, HostCommand& out) {
  const bj::object* given = in.optional_object("environment");
  if (given == nullptr) return;
  if (given->size() > kVariables)
    return in.problem("environment", "too_many",
                      "there may be " + std::to_string(kVariables) + " at most");
  const bj::value copy(*given);
  json::Reader inner(copy, in.pointer("environment"), in);
  for (const auto& [key, unused] : *given) {
    const std::string name(key);
    if (!is_variable(name))
      inner.problem(name, "invalid", "is no name of a variable: letters, digits and _ only");
    (*out.mutable_environment())[name] = inner.string(name, {.min = 0, .max = kPathBytes});
  }
  inner.finish();
}

void read_reboot(json::Reader& in, HostCommand& out) {
  out.set_reboot(HostCommand::NEVER);
  const auto given = in.optional_string("reboot");
  if (!given) return;
  for (const auto& [value, name] : kReboots) {
    if (*given == name) return out.set_reboot(value);
  }
  in.problem("reboot", "invalid", "is none of never, after_success, expected");
}

}  // namespace

HostCommand read_host_command(json::Reader& in) {
  HostCommand out;
  out.set_command(read_text(in, "command", kCommandBytes));
  out.set_script(read_text(in, "script", kScriptBytes));
  if (out.command().empty() == out.script().empty())
    in.problem("command", "invalid", "say either command or script");
  out.set_interpreter(read_path(in, "interpreter"));
  if (!out.interpreter().empty() && out.script().empty())
    in.problem("interpreter", "invalid", "is for a script; a command is run by /bin/sh");
  out.set_timeout_ms(read_timeout(in).count());
  read_codes(in, out);
  out.set_verify_command(read_text(in, "verify_command", kCommandBytes));
  out.set_rollback_command(read_text(in, "rollback_command", kCommandBytes));
  out.set_run_as(read_text(in, "run_as", kUserBytes));
  if (!out.run_as().empty() && !is_user(out.run_as()))
    in.problem("run_as", "invalid", "is no name of a user");
  out.set_working_directory(read_path(in, "working_directory"));
  read_environment(in, out);
  read_reboot(in, out);
  out.set_output_limit_bytes(
      in.optional_integer("output_limit_bytes", {kLeastOutput, kMostOutput}).value_or(kOutput));
  out.set_idempotent(in.optional_boolean("idempotent").value_or(false));
  in.finish();
  return out;
}

HostCommand stored_host_command(const std::string& text) {
  try {
    const bj::value value = json::parse(text);
    json::Reader in(value);
    return read_host_command(in);
  } catch (const Error& error) {
    throw Error(Code::kCorrupt, "a stored host command cannot be read: " + error.message());
  }
}

bj::object host_command_json(const HostCommand& command) {
  bj::object out;
  for (const auto& [key, text] :
       {std::pair("command", &command.command()), std::pair("script", &command.script()),
        std::pair("interpreter", &command.interpreter()),
        std::pair("verify_command", &command.verify_command()),
        std::pair("rollback_command", &command.rollback_command()),
        std::pair("run_as", &command.run_as()),
        std::pair("working_directory", &command.working_directory())})
    if (!text->empty()) out[key] = *text;
  out["timeout"] = to_string(Duration(command.timeout_ms()));
  if (!command.expected_exit_codes().empty()) {
    bj::array codes;
    for (const std::int32_t code : command.expected_exit_codes()) codes.emplace_back(code);
    out["expected_exit_codes"] = std::move(codes);
  }
  if (!command.environment().empty()) {
    bj::object environment;
    const std::map<std::string, std::string> sorted(command.environment().begin(),
                                                    command.environment().end());
    for (const auto& [name, value] : sorted) environment[name] = value;
    out["environment"] = std::move(environment);
  }
  for (const auto& [value, name] : kReboots)
    if (command.reboot() == value) out["reboot"] = name;
  out["output_limit_bytes"] = command.output_limit_bytes();
  out["idempotent"] = command.idempotent();
  return out;
}

std::string host_command_id(const std::string& deployment, std::int64_t attempt) {
  return attempt == 0 ? deployment : deployment + "/" + std::to_string(attempt);
}

}  // namespace flock::services

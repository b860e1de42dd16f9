// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"
#include "runtime/process.h"

namespace {

using namespace flock;

constexpr const char* kUsage =
    "flock-api: Flock's backend, one program with many targets\n\n"
    "usage: flock-api [--config FILE] [--target api,ingester,...|all] [--KEY=VALUE ...]\n"
    "       flock-api --list-targets | --print-config | --check-config | --version | --help\n"
    "       flock-api generate-keys DIR | rotate-keys DIR\n\n"
    "Every key can also be set in the file, or in the environment as FLOCK_KEY (dots become "
    "underscores):\n";

// Takes `flag` out of the arguments; true when it was there.
bool take_flag(std::vector<std::string>& arguments, const std::string& flag) {
  return std::erase(arguments, flag) > 0;
}

std::string take_value(std::vector<std::string>& arguments, const std::string& flag) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].starts_with(flag + "=")) {
      const std::string value = arguments[i].substr(flag.size() + 1);
      arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(i));
      return value;
    }
    if (arguments[i] == flag && i + 1 < arguments.size()) {
      const std::string value = arguments[i + 1];
      const auto at = arguments.begin() + static_cast<std::ptrdiff_t>(i);
      arguments.erase(at, at + 2);
      return value;
    }
  }
  return "";
}

int list_targets() {
  for (const auto& entry : runtime::known_targets())
    std::printf("%-14s %s\n", std::string(entry.name).c_str(), std::string(entry.does).c_str());
  std::printf("%-14s every target above, in this process\n", "all");
  return 0;
}

int run(std::vector<std::string> arguments) {
  if (take_flag(arguments, "--version")) {
    std::puts("flock-api 0.1.0");
    return 0;
  }
  if (take_flag(arguments, "--list-targets")) return list_targets();
  if (arguments.size() == 2 && arguments[0] == "generate-keys") {
    runtime::generate_keys(arguments[1]);
    return 0;
  }
  if (arguments.size() == 2 && arguments[0] == "rotate-keys") {
    std::printf(
        "secrets are sealed with the new key %s once every replica was started again;\n"
        "older keys still open what they sealed\n",
        runtime::add_sealing_key(arguments[1]).c_str());
    return 0;
  }
  targets::Settings settings;
  config::Schema schema("FLOCK_");
  settings.bind(schema);
  if (take_flag(arguments, "--help") || take_flag(arguments, "-h")) {
    std::fputs((kUsage + schema.help()).c_str(), stdout);
    return 0;
  }
  const bool print = take_flag(arguments, "--print-config"),
             check = take_flag(arguments, "--check-config");
  config::Sources sources;
  sources.file = take_value(arguments, "--config");
  sources.environment = config::environment_with_prefix("FLOCK_");
  for (const char* other :
       {"FLOCK_REPLICA", "FLOCK_HOME", "FLOCK_CONFIG_HOME", "FLOCK_REQUIRE_SERVICES"})
    sources.environment.erase(other);
  sources.arguments = std::move(arguments);
  schema.load(sources);
  settings.validate();
  runtime::plan(settings.target);
  if (print) std::fputs(schema.print().c_str(), stdout);
  if (check) std::puts("the configuration is valid");
  if (print || check) return 0;

  log::set_level(log::parse_level(settings.log_level));
  log::set_format(settings.log_format == "json"     ? log::Format::kJson
                  : settings.log_format == "pretty" ? log::Format::kPretty
                                                    : log::default_format());
  return runtime::run_process(settings, [&schema] { return schema.print(); });
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return run({argv + 1, argv + argc});
  } catch (const Error& error) {
    std::fprintf(stderr, "Error: %s\n", error.message().c_str());
    for (const auto& [key, value] : error.context())
      std::fprintf(stderr, "       %s: %s\n", key.c_str(), value.c_str());
    for (const auto& problem : error.problems())
      std::fprintf(stderr, "       %s: %s\n", problem.pointer.c_str(), problem.detail.c_str());
    if (!error.hint().empty()) std::fprintf(stderr, "Try:   %s\n", error.hint().c_str());
    return error.code() == Code::kInvalidArgument ? 2 : 1;
  }
}

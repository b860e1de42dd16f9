// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "complete.h"
#include "help.h"
#include "input.h"
#include "parse.h"

namespace flock::cli {
namespace {

Format parse_format(const std::string& text) {
  constexpr std::pair<const char*, Format> kFormats[] = {
      {"table", Format::kTable}, {"wide", Format::kWide}, {"json", Format::kJson},
      {"yaml", Format::kYaml},   {"csv", Format::kCsv},   {"name", Format::kName}};
  for (const auto& [name, format] : kFormats) {
    if (text == name) return format;
  }
  throw Error(Code::kInvalidArgument, "unknown output format " + text)
      .hint("-o table, wide, json, yaml, csv or name");
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool parse_color(const std::string& when, bool terminal) {
  if (when == "always") return true;
  if (when == "never") return false;
  if (when != "auto")
    throw Error(Code::kInvalidArgument, "unknown colour mode " + when)
        .hint("--color auto, always or never");
  if (!environment("NO_COLOR").empty()) return false;  // no-color.org
  if (const std::string force = environment("CLICOLOR_FORCE"); !force.empty() && force != "0")
    return true;
  return terminal && environment("TERM") != "dumb";
}

Output output_for(const Arguments& arguments) {
  Output output;
  output.terminal = ::isatty(STDOUT_FILENO) != 0;
  output.format = parse_format(arguments.value("output", arguments.has("json") ? "json" : "table"));
  output.headers = !arguments.has("no-headers");
  output.columns = split(arguments.value("columns"));
  output.fields = split(arguments.value("json"));
  const std::string when = environment("FLOCK_COLOR");
  output.color =
      parse_color(arguments.value("color", when.empty() ? "auto" : when), output.terminal);
  struct winsize size{};
  if (output.terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) output.width = size.ws_col;
  return output;
}

int print_help(const Line& line) {
  const std::string topic = line.command != nullptr        ? line.command->name
                            : line.arguments.words.empty() ? ""
                                                           : line.arguments.words[0];
  if (line.name == "help" && line.arguments.has("json")) {
    std::puts(json_text(command_tree()).c_str());
    return 0;
  }
  // A command first: a topic never hides one.
  if (const Command* command = find_command(topic))
    std::fputs(help_for(*command).c_str(), stdout);
  else if (const char* text = help_topic(topic))
    std::fputs(text, stdout);
  else if (topic.empty() || topic == "help" || topic == "version")
    std::fputs(overview().c_str(), stdout);
  else
    unknown_command(topic);
  return 0;
}

int dispatch(const std::vector<std::string>& words) {
  if (!words.empty() && words[0] == "__complete") return complete({words.begin() + 1, words.end()});
  if (words == std::vector<std::string>{"--version"}) return dispatch({"version"});
  const Line line = parse_line(words);
  if (line.name.empty() || line.name == "help" || line.arguments.has("help"))
    return print_help(line);
  if (line.command == nullptr) {
    std::printf("flock %s\n", kVersion);
    return 0;
  }
  const Arguments& arguments = line.arguments;
  const Output output = output_for(arguments);
  // These make contexts, or must work when the one that is named is gone.
  const bool may_be_new = line.command->name == "login" || line.command->name == "setup" ||
                          line.command->name == "contexts" || line.command->name == "doctor";
  Settings settings = load_settings({arguments.value("context"), arguments.value("server"),
                                     arguments.value("org"), arguments.value("fleet")},
                                    may_be_new);
  settings.debug = arguments.has("debug");
  Session session{Client(std::move(settings)), output, arguments};
  return line.verb->run(session);
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  try {
    return dispatch(arguments);
  } catch (const Error& error) {
    return report(error);
  } catch (const std::exception& error) {
    return report(Error(Code::kInternal, error.what()));
  }
}

}  // namespace flock::cli

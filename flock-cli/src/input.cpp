// SPDX-License-Identifier: Apache-2.0
#include "input.h"

#include <unistd.h>

#include <charconv>
#include <cstdio>

#include "base/files.h"

namespace flock::cli {
namespace {

void ask(const Session& session, const std::string& question) {
  if (session.arguments.has("no-input"))
    throw Error(Code::kInvalidArgument, "this asks first, and --no-input forbids it")
        .hint("add --yes");
  std::fprintf(stderr, "%s [y/N] ", printable(question).c_str());
  char answer[16] = "";
  if (std::fgets(answer, sizeof answer, stdin) == nullptr || (answer[0] != 'y' && answer[0] != 'Y'))
    throw Error(Code::kCancelled, "nothing was changed");
}

bool can_ask() { return ::isatty(STDIN_FILENO) != 0 && ::isatty(STDERR_FILENO) != 0; }

}  // namespace

std::string read_input(const std::string& path, std::size_t limit) {
  if (path != "-") {
    auto content = read_file(path, limit);
    if (!content) throw Error(Code::kNotFound, "no such file").with("file", path);
    return *content;
  }
  std::string text;
  char block[4096];
  while (const std::size_t got = std::fread(block, 1, sizeof block, stdin)) {
    text.append(block, got);
    if (text.size() > limit) throw Error(Code::kTooLarge, "standard input is too large");
  }
  return text;
}

std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
  return text;
}

void confirm(const Session& session, const std::string& question) {
  if (!session.arguments.has("yes") && can_ask()) ask(session, question);
}

void confirm_many(const Session& session, const std::string& what, std::size_t count) {
  if (session.arguments.has("yes")) return;
  const std::string question = what + " " + std::to_string(count) + " devices?";
  if (!can_ask())
    throw Error(Code::kInvalidArgument, "this changes " + std::to_string(count) + " devices")
        .hint("add --yes when that is what you want");
  ask(session, question);
}

std::int64_t number(const std::string& flag, const std::string& text, std::int64_t least) {
  std::int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < least)
    throw Error(Code::kInvalidArgument,
                "--" + flag + " must be a whole number from " + std::to_string(least));
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(separator, start), text.size());
    std::string part = trimmed(text.substr(start, end - start));
    part.erase(0, part.find_first_not_of(' '));
    if (!part.empty()) out.push_back(std::move(part));
    start = end + 1;
  }
  return out;
}

}  // namespace flock::cli

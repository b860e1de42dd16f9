// SPDX-License-Identifier: Apache-2.0
// A version as text that sorts by bytes. Each run of digits gets 20 digits; behind the numbers
// stands a mark: `!` before a pre-release, `#` when nothing follows, `$` before anything else, all
// of them less than the dot of a further number. Memory and SQL take the same steps.
#include <algorithm>

#include "domain/filter.h"

namespace flock::domain {
namespace {

constexpr std::size_t kWidth = 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The end of `12.4.0` in `12.4.0-rc1`.
std::size_t numbers_end(std::string_view text) {
  std::size_t end = 0, at = 0;
  while (at < text.size() && is_digit(text[at])) {
    while (at < text.size() && is_digit(text[at])) ++at;
    end = at;
    if (at < text.size() && text[at] == '.') ++at;
  }
  return end;
}

// 12.0.0 is 12.
std::string_view without_zeros(std::string_view numbers) {
  for (;;) {
    const std::size_t dot = numbers.rfind('.');
    if (dot == std::string_view::npos) return numbers;
    if (numbers.find_first_not_of('0', dot + 1) != std::string_view::npos) return numbers;
    numbers = numbers.substr(0, dot);
  }
}

std::string with_wide_numbers(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (!is_digit(text[at])) {
      out += text[at++];
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && is_digit(text[end])) ++end;
    std::string_view run = text.substr(at, end - at);
    if (run.size() > kWidth) run.remove_prefix(run.size() - kWidth);
    out.append(kWidth - run.size(), '0').append(run);
    at = end;
  }
  return out;
}

}  // namespace

std::optional<std::string> version_key(std::string_view version) {
  if (!version.empty() && (version[0] == 'v' || version[0] == 'V')) version.remove_prefix(1);
  if (version.empty() || !is_digit(version[0])) return std::nullopt;
  std::string text(version.substr(0, version.find('+')));
  std::erase(text, '#');
  const std::size_t end = numbers_end(text);
  std::string_view rest = std::string_view(text).substr(end);
  char mark = '#';
  if (!rest.empty()) mark = rest[0] == '-' || rest[0] == '~' ? '!' : '$';
  if (mark == '!') rest.remove_prefix(1);
  std::string key(without_zeros(std::string_view(text).substr(0, end)));
  return with_wide_numbers((key += mark) += rest);
}

std::string version_key_sql(std::string_view expression) {
  const std::string x = "(" + std::string(expression) + ")";
  const auto replace = [](std::string in, std::string pattern, std::string by) {
    return "regexp_replace(" + std::move(in) + ", '" + std::move(pattern) + "', '" + std::move(by);
  };
  std::string key = replace(x, "^[vV]", "')");
  key = "translate(" + replace(key, R"(\+.*$)", "')") + ", '#', '')";
  key = replace(key, R"(^[0-9]+(?:\.[0-9]+)*)", R"(\&#'))");
  key = replace(key, R"((?:\.0+)+#)", "#')");
  key = replace(key, "#[-~]", "!')");
  key = replace(key, "#(?=.)", "$')");
  key = replace(key, "([0-9]+)", std::string(kWidth, '0') + R"(\1', 'g'))");
  key = replace(key, "[0-9]*([0-9]{" + std::to_string(kWidth) + "})", R"(\1', 'g'))");
  return "(CASE WHEN " + x + " ~ '^[vV]?[0-9]' THEN " + key + " END)";
}

}  // namespace flock::domain

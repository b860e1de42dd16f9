// SPDX-License-Identifier: Apache-2.0
#include "dotenv.h"

#include <algorithm>

#include "base/error.h"

namespace flock::cli {
namespace {

constexpr std::string_view kBlank = " \t\r";

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  Assignments parse() {
    Assignments out;
    for (skip(); at_ < text_.size(); skip()) {
      std::string name = read_name();
      if (name == "export" && peek() != '=') {
        blanks();
        name = read_name();
      }
      blanks();
      if (name.empty() || peek() != '=') fail("is not NAME=value");
      ++at_;
      blanks();
      std::string value = peek() == '\'' ? single() : peek() == '"' ? quoted() : bare();
      out.emplace_back(std::move(name), std::move(value));
    }
    return out;
  }

 private:
  char peek() const { return at_ < text_.size() ? text_[at_] : '\n'; }
  void blanks() {
    while (at_ < text_.size() && kBlank.find(text_[at_]) != std::string_view::npos) ++at_;
  }
  // To the next assignment: over blank lines and comments.
  void skip() {
    for (blanks(); at_ < text_.size() && (peek() == '\n' || peek() == '#'); blanks()) {
      at_ = std::min(text_.find('\n', at_), text_.size());
      if (at_ < text_.size()) ++at_;
    }
  }
  std::string read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  std::string bare() {
    const std::size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view value = text_.substr(at_, end - at_);
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (value[i] == '#' && (i == 0 || kBlank.find(value[i - 1]) != std::string_view::npos))
        value = value.substr(0, i);
    }
    at_ = end;
    const std::size_t last = value.find_last_not_of(kBlank);
    return std::string(value.substr(0, last == std::string_view::npos ? 0 : last + 1));
  }
  std::string single() {
    const std::size_t end = text_.find('\'', at_ + 1);
    if (end == std::string_view::npos) fail("has a quote that does not end");
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    end_of_line();
    return value;
  }
  std::string quoted() {
    const std::size_t begin = at_;
    std::string value;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] != '\\' || at_ + 1 == text_.size()) {
        value += text_[at_];
        continue;
      }
      const char c = text_[++at_];
      if (c == 'n')
        value += '\n';
      else if (c == 'r')
        value += '\r';
      else if (c == 't')
        value += '\t';
      else if (c == '"' || c == '\\' || c == '$')
        value += c;
      else
        value += std::string("\\") + c;
    }
    if (at_ == text_.size()) {
      at_ = begin;
      fail("has a quote that does not end");
    }
    ++at_;
    end_of_line();
    return value;
  }
  void end_of_line() {
    blanks();
    if (peek() != '\n' && peek() != '#') fail("goes on behind the quotes");
  }
  [[noreturn]] void fail(const char* what) const {
    const auto line =
        std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n') + 1;
    throw Error(Code::kInvalidArgument, "line " + std::to_string(line) + " " + what);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

Assignments parse_dotenv(std::string_view text) { return Parser(text).parse(); }

std::string dotenv_line(const std::string& name, const std::string& value) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,@%+=";
  if (value.find_first_not_of(kPlain) == std::string::npos) return name + "=" + value + "\n";
  std::string out = name + "=\"";
  for (const char c : value) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '"' || c == '\\' || c == '$')
      out += std::string("\\") + c;
    else
      out += c;
  }
  return out + "\"\n";
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include "toml.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace flock::cli::toml {
namespace {

bool is_bare(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}

class Line {
 public:
  Line(std::string_view text, const std::string& file, int number)
      : rest_(text), file_(file), number_(number) {}

  [[noreturn]] void fail(const std::string& message) const {
    throw Error(Code::kInvalidArgument,
                file_ + ", line " + std::to_string(number_) + ": " + message)
        .hint("only [tables] and key = \"text\" are read");
  }
  bool take(char c) {
    skip_space();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(std::string("expected ") + c);
  }
  bool at_end() {
    skip_space();
    return rest_.empty() || rest_.front() == '#';
  }
  std::string key() {
    skip_space();
    if (rest_.starts_with('"') || rest_.starts_with('\'')) return string();
    const auto end = std::find_if_not(rest_.begin(), rest_.end(), is_bare);
    const std::string name(rest_.begin(), end);
    if (name.empty()) fail("expected a key");
    rest_.remove_prefix(name.size());
    return name;
  }
  std::string string() {
    skip_space();
    if (rest_.empty() || (rest_.front() != '"' && rest_.front() != '\''))
      fail("a value is a text in quotation marks");
    const char quote = rest_.front();
    if (rest_.starts_with(std::string(3, quote))) fail("texts of several lines are not read");
    rest_.remove_prefix(1);
    std::string out;
    while (!rest_.empty() && rest_.front() != quote) {
      char c = next();
      if (c == '\\' && quote == '"') c = escaped();
      out += c;
    }
    if (rest_.empty()) fail("the closing quotation mark is missing");
    rest_.remove_prefix(1);
    return out;
  }

 private:
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }
  char next() {
    const char c = rest_.front();
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte == 0x7f) fail("a control character in a text");
    rest_.remove_prefix(1);
    return c;
  }
  char escaped() {
    const char c = rest_.empty() ? '\0' : next();
    switch (c) {
      case '"':
      case '\\':
        return c;
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      default:
        fail("only \\\" \\\\ \\n \\t and \\r are read after a backslash");
    }
  }

  std::string_view rest_;
  const std::string& file_;
  int number_;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c == '\n' || c == '\r' || c == '\t')
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    else
      out += c;
  }
  return out + "\"";
}

std::string key_text(const std::string& key) {
  return !key.empty() && std::all_of(key.begin(), key.end(), is_bare) ? key : quoted(key);
}

}  // namespace

std::vector<Table> parse(std::string_view text, const std::string& file) {
  if (!json::is_utf8(text)) throw Error(Code::kInvalidArgument, file + " is not UTF-8");
  std::vector<Table> out(1);
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (row.ends_with('\r')) row.remove_suffix(1);
    Line line(row, file, number);
    if (line.at_end()) continue;
    if (line.take('[')) {
      Table table{{line.key()}, {}, number};
      while (line.take('.')) table.path.push_back(line.key());
      line.expect(']');
      for (const Table& other : out) {
        if (other.path == table.path)
          line.fail("this table stands in line " + std::to_string(other.line) + " already");
      }
      out.push_back(std::move(table));
    } else {
      Entry entry{line.key(), "", number};
      line.expect('=');
      entry.value = line.string();
      for (const Entry& other : out.back().entries) {
        if (other.key == entry.key)
          line.fail("`" + entry.key + "` stands in line " + std::to_string(other.line) +
                    " already");
      }
      out.back().entries.push_back(std::move(entry));
    }
    if (!line.at_end()) line.fail("unexpected text at its end");
  }
  return out;
}

std::string write(const std::vector<Table>& tables) {
  std::string out;
  for (const Table& table : tables) {
    if (!table.path.empty()) {
      out += out.empty() ? "[" : "\n[";
      for (std::size_t i = 0; i < table.path.size(); ++i)
        out += (i ? "." : "") + key_text(table.path[i]);
      out += "]\n";
    }
    for (const Entry& entry : table.entries)
      out += key_text(entry.key) + " = " + quoted(entry.value) + "\n";
  }
  return out;
}

}  // namespace flock::cli::toml

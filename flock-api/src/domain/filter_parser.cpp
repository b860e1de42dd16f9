// SPDX-License-Identifier: Apache-2.0
// Text -> syntax tree, typed by the table of fields:
//   expression = factor {AND factor}      factor = term {OR term}      (OR binds tighter, AIP-160)
//   term = [NOT | -] (restriction | "(" expression ")")
//   restriction = member operator value
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "domain/filter.h"

namespace flock::domain {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr Duration kMaxOffset = std::chrono::days(36'500);

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool is_segment_char(char c) { return is_name_char(c) || c == '-'; }
// After an operator nothing but a value can stand, so that times and paths need no quotes.
bool is_word_char(char c) {
  return is_segment_char(c) || std::string_view(".:/+@~%").find(c) != std::string_view::npos ||
         static_cast<unsigned char>(c) >= 0x80;
}

struct Written {
  std::string text;
  bool quoted = false;
  std::size_t at = 0;
};

template <typename Number>
std::optional<Number> number_in(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<double> real_in(std::string_view text) {
  const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
  if (digits.empty() || !((digits[0] >= '0' && digits[0] <= '9') || digits[0] == '.'))
    return std::nullopt;  // no "inf"
  const auto number = number_in<double>(text);
  if (!number || !std::isfinite(*number)) return std::nullopt;
  return *number + 0.0;  // -0.0 becomes 0.0
}

// A whole number is an integer however it is written, so that 5 and 5.0 are one literal.
std::optional<Literal> json_number_in(std::string_view text) {
  if (const auto whole = number_in<std::int64_t>(text)) return *whole;
  const auto real = real_in(text);
  if (!real) return std::nullopt;
  if (std::abs(*real) < 9e18 && std::trunc(*real) == *real) return static_cast<std::int64_t>(*real);
  return *real;
}

std::optional<std::string> uuid_in(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  if (!is_uuid(out)) return std::nullopt;
  return out;
}

std::optional<Literal> time_in(std::string_view text) {
  try {
    if (text.starts_with('-') || text.starts_with('+')) {
      const Duration offset = parse_duration(text.substr(1));
      if (offset > kMaxOffset) return std::nullopt;
      return RelativeTime{text[0] == '-' ? -offset : offset};
    }
    const TimePoint time = parse_rfc3339(text);
    // Inside what every reader of times can hold, with room for the next millisecond.
    using namespace std::chrono;
    if (time < sys_days(year(1900) / 1 / 1) || time > sys_days(year(9999) / 1 / 1))
      return std::nullopt;
    return time;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// The start of what a caller wrote, for a message.
std::string excerpt(std::string_view text) {
  if (text.size() <= 64) return std::string(text);
  std::size_t end = 64;
  while ((text[end] & 0xc0) == 0x80) --end;  // not inside a character
  return std::string(text.substr(0, end)) + "...";
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

class Parser {
 public:
  Parser(std::string_view text, const FieldTable& fields, FilterLimits limits)
      : text_(text), fields_(fields), limits_(limits) {}

  Filter parse() {
    if (text_.size() > limits_.bytes)
      fail(0, "limit",
           "expected at most " + std::to_string(limits_.bytes) + " bytes, found " +
               std::to_string(text_.size()));
    if (!json::is_utf8(text_)) fail(0, "syntax", "expected UTF-8");
    if (const auto nul = text_.find('\0'); nul != std::string_view::npos)
      fail(nul, "syntax", "expected no NUL character");
    skip_space();
    if (at_ == text_.size()) return {};
    Filter filter = expression(0);
    if (at_ < text_.size())
      fail(at_, "syntax",
           text_[at_] == ')' ? "expected AND, OR or the end, found a ) that closes nothing"
                             : "expected AND, OR or the end, found " + found());
    return filter;
  }

 private:
  [[noreturn]] void fail(std::size_t at, std::string code, const std::string& what) const {
    const auto column = 1 + std::count_if(text_.begin(), text_.begin() + static_cast<long>(at),
                                          [](char c) { return (c & 0xc0) != 0x80; });
    std::string detail = "column " + std::to_string(column) + ": " + what;
    throw Error(Code::kInvalidArgument, "the filter is not valid: " + detail)
        .problems({{"?filter", std::move(code), detail}});
  }

  void skip_space() { at_ = std::min(text_.find_first_not_of(kSpace, at_), text_.size()); }

  // What stands here, for a message.
  std::string found() const {
    if (at_ == text_.size()) return "the end";
    std::size_t end = at_;
    while (end < text_.size() && end < at_ + 40 && is_word_char(text_[end])) ++end;
    // Not in the middle of a character.
    while (end < text_.size() && (text_[end] & 0xc0) == 0x80) ++end;
    return std::string(text_.substr(at_, std::max<std::size_t>(end - at_, 1)));
  }

  bool take(std::string_view symbol) {
    if (!text_.substr(at_).starts_with(symbol)) return false;
    at_ += symbol.size();
    return true;
  }

  bool take_keyword(std::string_view keyword) {
    const std::size_t end = at_ + keyword.size();
    if (!text_.substr(at_).starts_with(keyword)) return false;
    if (end < text_.size() && is_word_char(text_[end])) return false;
    at_ = end;
    return true;
  }

  Filter expression(std::size_t depth) {
    return chain(Filter::Kind::kAnd, "AND",
                 [&] { return chain(Filter::Kind::kOr, "OR", [&] { return term(depth); }); });
  }

  template <typename Part>
  Filter chain(Filter::Kind kind, std::string_view keyword, Part part) {
    Filter out{kind, {}, {}};
    do {
      skip_space();
      Filter next = part();
      if (next.kind == kind) {
        std::move(next.parts.begin(), next.parts.end(), std::back_inserter(out.parts));
      } else {
        out.parts.push_back(std::move(next));
      }
      skip_space();
    } while (take_keyword(keyword));
    if (out.parts.size() > 1) return out;
    Filter only = std::move(out.parts.front());
    return only;
  }

  Filter term(std::size_t depth) {
    const bool negated = take("-") || take_keyword("NOT");
    skip_space();
    Filter inner = take("(") ? group(depth + 1) : restriction();
    if (!negated) return inner;
    Filter out{Filter::Kind::kNot, {}, {}};
    out.parts.push_back(std::move(inner));
    return out;
  }

  Filter group(std::size_t depth) {
    const std::size_t opened = at_ - 1;
    if (depth > limits_.depth)
      fail(opened, "limit",
           "expected at most " + std::to_string(limits_.depth) + " nested parentheses");
    Filter inner = expression(depth);
    if (!take(")")) fail(at_, "syntax", "expected AND, OR or ), found " + found());
    return inner;
  }

  Filter restriction() {
    const std::size_t start = at_;
    if (++terms_ > limits_.terms)
      fail(start, "limit", "expected at most " + std::to_string(limits_.terms) + " comparisons");
    Filter out{Filter::Kind::kTerm, {}, {}};
    const Field& field = member(out.term);
    skip_space();
    const std::size_t operator_at = at_;
    out.term.op = comparison(text_.substr(start, at_ - start));
    skip_space();
    if (out.term.op == Operator::kContains && take("*")) {
      out.term.op = Operator::kPresent;
      need_key(field, out.term, start);
      return out;
    }
    const Written value = written();
    const bool map = field.type == FieldType::kLabels || field.type == FieldType::kAttributes;
    if (map && out.term.key.empty() && out.term.op == Operator::kContains) {
      out.term.op = Operator::kPresent;  // labels:site
      out.term.key = value.text;
    }
    need_key(field, out.term, start);
    if (out.term.op == Operator::kPresent) return out;
    if (out.term.op == Operator::kContains && field.type != FieldType::kText)
      out.term.op = Operator::kEqual;
    out.term.value = literal(field, value);
    check_order(field, out.term, operator_at);
    return out;
  }

  void need_key(const Field& field, const Term& term, std::size_t at) const {
    const bool map = field.type == FieldType::kLabels || field.type == FieldType::kAttributes;
    if (map && term.key.empty())
      fail(at, "wrong_type",
           "expected a key, as in " + field.name + ".site; " + field.name + " is " +
               std::string(describe(field.type)));
  }

  // labels.site, labels."topology/zone", os.version
  const Field& member(Term& term) {
    const std::size_t start = at_;
    std::vector<Written> path;
    do {
      if (!path.empty() && at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
        path.push_back(quoted());
        if (path.back().text.empty()) fail(path.back().at, "syntax", "expected a key, found \"\"");
        continue;
      }
      std::size_t end = at_;
      while (end < text_.size() && is_segment_char(text_[end])) ++end;
      if (end == at_)
        fail(at_, "syntax",
             std::string("expected ") + (path.empty() ? "a field" : "a name") + ", found " +
                 found());
      path.push_back({std::string(text_.substr(at_, end - at_)), false, at_});
      at_ = end;
    } while (take("."));
    const std::string_view whole = text_.substr(start, at_ - start);
    if (path.size() == 1 && (whole == "AND" || whole == "OR" || whole == "NOT"))
      fail(start, "syntax", "expected a field, found " + std::string(whole));
    return resolve(path, whole, term);
  }

  // The longest known name; what follows a map's name is the key.
  const Field& resolve(const std::vector<Written>& path, std::string_view whole, Term& term) {
    std::string name;
    const Field* best = nullptr;
    std::size_t used = 0;
    for (std::size_t i = 0; i < path.size() && !path[i].quoted; ++i) {
      name += (i == 0 ? "" : ".") + path[i].text;
      if (const Field* field = find_field(fields_, name)) best = field, used = i + 1;
    }
    if (best == nullptr)
      fail(path.front().at, "unknown_field",
           "there is no field " + excerpt(whole) + suggest_fields(fields_, whole));
    const bool map = best->type == FieldType::kLabels || best->type == FieldType::kAttributes;
    if (!map && used < path.size())
      fail(path.front().at, "unknown_field",
           "there is no field " + excerpt(whole) + "; " + best->name + " is " +
               std::string(describe(best->type)) + suggest_fields(fields_, whole));
    term.field = best->name;
    for (std::size_t i = used; i < path.size(); ++i)
      term.key += (i == used ? "" : ".") + path[i].text;
    return *best;
  }

  Operator comparison(std::string_view left) {
    if (take("!=")) return Operator::kNotEqual;
    if (take("<=")) return Operator::kLessEqual;
    if (take(">=")) return Operator::kGreaterEqual;
    if (take("=")) return Operator::kEqual;
    if (take("<")) return Operator::kLess;
    if (take(">")) return Operator::kGreater;
    if (take(":")) return Operator::kContains;
    left = left.substr(0, left.find_last_not_of(kSpace) + 1);
    fail(at_, "syntax",
         "expected one of = != < <= > >= : after " + excerpt(left) + ", found " + found());
  }

  Written written() {
    const std::size_t start = at_;
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) return quoted();
    while (at_ < text_.size() && is_word_char(text_[at_])) ++at_;
    std::string word(text_.substr(start, at_ - start));
    if (word.empty()) fail(start, "syntax", "expected a value, found " + found());
    if (word == "AND" || word == "OR" || word == "NOT")
      fail(start, "syntax",
           "expected a value, found " + word + "; write \"" + word + "\" when it is text");
    if (at_ < text_.size() && (kSpace.find(text_[at_]) == std::string_view::npos) &&
        text_[at_] != ')')
      fail(at_, "syntax",
           "expected a space or ), found " + found() +
               "; put quotes around a value that has other characters");
    return {std::move(word), false, start};
  }

  Written quoted() {
    Written out{"", true, at_};
    const char quote = text_[at_++];
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == quote) {
        ++at_;
        return out;
      }
      if (text_[at_] == '\\') {
        ++at_;
        if (at_ == text_.size() ||
            std::string_view("\\\"'").find(text_[at_]) == std::string_view::npos)
          fail(at_, "syntax", "expected \\, \" or ' after \\, found " + found());
      }
      out.text += text_[at_];
    }
    fail(out.at, "syntax", std::string("expected a closing ") + quote);
  }

  [[noreturn]] void wrong_type(const Field& field, const Written& value,
                               const char* example) const {
    fail(value.at, "wrong_type",
         field.name + " is " + std::string(describe(field.type)) + "; expected " + example +
             ", found " + (value.quoted ? "\"" + excerpt(value.text) + "\"" : excerpt(value.text)));
  }

  Literal literal(const Field& field, const Written& value) const {
    switch (field.type) {
      case FieldType::kText:
      case FieldType::kLabels:
        return value.text;
      case FieldType::kInteger:
        if (const auto number = number_in<std::int64_t>(value.text)) return *number;
        wrong_type(field, value, "a whole number");
      case FieldType::kReal:
        if (const auto number = real_in(value.text)) return *number;
        wrong_type(field, value, "a number");
      case FieldType::kBoolean:
        if (value.text == "true" || value.text == "false") return value.text == "true";
        wrong_type(field, value, "true or false");
      case FieldType::kTime:
        if (const auto time = time_in(value.text)) return *time;
        wrong_type(field, value, "2026-11-23T10:00:00Z, or relative as -2h (at most 36500d)");
      case FieldType::kVersion:
        if (version_key(value.text)) return value.text;
        wrong_type(field, value, "one like \"12.4\"");
      case FieldType::kId:
        if (auto id = uuid_in(value.text)) return *std::move(id);
        wrong_type(field, value, "a UUID");
      case FieldType::kEnum:
        if (std::find(field.values.begin(), field.values.end(), value.text) != field.values.end())
          return value.text;
        wrong_type(field, value, joined(field.values).c_str());
      case FieldType::kAttributes:
        break;
    }
    if (value.quoted) return value.text;
    if (value.text == "true" || value.text == "false") return value.text == "true";
    if (auto number = json_number_in(value.text)) return *std::move(number);
    return value.text;
  }

  void check_order(const Field& field, const Term& term, std::size_t at) const {
    const bool order = term.op != Operator::kEqual && term.op != Operator::kNotEqual &&
                       term.op != Operator::kContains;
    const bool unordered = field.type == FieldType::kBoolean || field.type == FieldType::kEnum ||
                           field.type == FieldType::kId || std::holds_alternative<bool>(term.value);
    if (order && unordered)
      fail(at, "wrong_type",
           "expected = or !=; " + field.name + (term.key.empty() ? "" : "." + term.key) + " is " +
               std::string(describe(std::holds_alternative<bool>(term.value) ? FieldType::kBoolean
                                                                             : field.type)));
  }

  std::string_view text_;
  const FieldTable& fields_;
  FilterLimits limits_;
  std::size_t at_ = 0;
  std::size_t terms_ = 0;
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t keep = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({keep, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

const Field* find_field(const FieldTable& fields, std::string_view name) {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const Field& field) { return field.name == name; });
  return found == fields.end() ? nullptr : &*found;
}

std::string suggest_fields(const FieldTable& fields, std::string_view name) {
  name = name.substr(0, 64);
  std::vector<std::string> near, all;
  for (const Field& field : fields) {
    const std::string_view start = name.substr(0, name.find('.'));
    const std::size_t distance =
        std::min(edit_distance(name, field.name),
                 field.type == FieldType::kLabels || field.type == FieldType::kAttributes
                     ? edit_distance(start, field.name)
                     : SIZE_MAX);
    all.push_back(field.name);
    if (distance <= std::max<std::size_t>(1, field.name.size() / 3)) near.push_back(field.name);
  }
  if (near.empty()) return "; the fields are " + joined(all);
  return "; did you mean " + joined(near) + "?";
}

std::string_view describe(FieldType type) {
  switch (type) {
    case FieldType::kText:
      return "text";
    case FieldType::kInteger:
      return "a whole number";
    case FieldType::kReal:
      return "a number";
    case FieldType::kBoolean:
      return "true or false";
    case FieldType::kTime:
      return "a time";
    case FieldType::kVersion:
      return "a version";
    case FieldType::kEnum:
      return "one of a few words";
    case FieldType::kId:
      return "an id";
    case FieldType::kLabels:
      return "a map of labels";
    case FieldType::kAttributes:
      return "a map of attributes";
  }
  return "unknown";
}

Filter parse_filter(std::string_view text, const FieldTable& fields, FilterLimits limits) {
  return Parser(text, fields, limits).parse();
}

}  // namespace flock::domain

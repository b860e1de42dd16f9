// SPDX-License-Identifier: Apache-2.0
// The tree as canonical text, and its reading in memory.
#include "domain/filter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <compare>

#include "base/error.h"

namespace flock::domain {
namespace {

bool is_bare_key(std::string_view key) {
  bool segment = false;
  for (const char c : key) {
    if (c == '.') {
      if (!segment) return false;
      segment = false;
    } else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-') {
      segment = true;
    } else {
      return false;
    }
  }
  return segment;
}

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out += '"';
}

std::string_view symbol(Operator op) {
  switch (op) {
    case Operator::kEqual:
      return " = ";
    case Operator::kNotEqual:
      return " != ";
    case Operator::kLess:
      return " < ";
    case Operator::kLessEqual:
      return " <= ";
    case Operator::kGreater:
      return " > ";
    case Operator::kGreaterEqual:
      return " >= ";
    case Operator::kContains:
      return ":";
    case Operator::kPresent:
      return ":*";
  }
  return "";
}

struct LiteralText {
  std::string operator()(std::monostate) const { return ""; }
  std::string operator()(const std::string& value) const { return in_quotes(value); }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(double value) const {
    char text[40];
    return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
  }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(TimePoint value) const { return in_quotes(to_rfc3339(value)); }
  std::string operator()(RelativeTime value) const {
    return value.offset.count() > 0 ? "+" + to_string(value.offset)
                                    : "-" + to_string(-value.offset);
  }
};

std::string term_text(const Term& term) {
  std::string out = term.field;
  if (!term.key.empty()) out += "." + (is_bare_key(term.key) ? term.key : in_quotes(term.key));
  out += symbol(term.op);
  return out += to_text(term.value);
}

// PostgreSQL's order: NaN equals itself and is greater than every number.
std::strong_ordering compare_numbers(long double a, long double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) <=> std::isnan(b);
  return a < b   ? std::strong_ordering::less
         : a > b ? std::strong_ordering::greater
                 : std::strong_ordering::equal;
}

// long double holds every int64_t and every double.
template <typename Variant>
std::optional<long double> number_of(const Variant& value) {
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return *whole;
  if (const auto* real = std::get_if<double>(&value)) return *real;
  return std::nullopt;
}

// Nullopt for values of different kinds: they are not equal, less or greater.
std::optional<std::strong_ordering> compare(const Field& field, const FieldValue& value,
                                            const Literal& literal, TimePoint now) {
  const auto* text = std::get_if<std::string>(&value);
  const auto* other = std::get_if<std::string>(&literal);
  if (text && other && field.type == FieldType::kVersion) {
    const auto a = version_key(*text), b = version_key(*other);
    if (!a || !b) return std::nullopt;
    return *a <=> *b;
  }
  if (text && other) return *text <=> *other;
  if (const auto a = number_of(value), b = number_of(literal); a && b)
    return compare_numbers(*a, *b);
  if (const auto *a = std::get_if<bool>(&value), *b = std::get_if<bool>(&literal); a && b)
    return *a <=> *b;
  if (const auto* time = std::get_if<TimePoint>(&value)) {
    if (const auto* fixed = std::get_if<TimePoint>(&literal)) return *time <=> *fixed;
    if (const auto* relative = std::get_if<RelativeTime>(&literal))
      return *time <=> now + relative->offset;
  }
  return std::nullopt;
}

bool holds(const Term& term, const Field& field, const std::optional<FieldValue>& value,
           TimePoint now) {
  if (term.op == Operator::kPresent) return value.has_value();
  if (!value) return term.op == Operator::kNotEqual;
  if (term.op == Operator::kContains) {
    const auto* text = std::get_if<std::string>(&*value);
    return text != nullptr && text->find(std::get<std::string>(term.value)) != std::string::npos;
  }
  const auto order = compare(field, *value, term.value, now);
  if (!order) return term.op == Operator::kNotEqual;
  switch (term.op) {
    case Operator::kEqual:
      return *order == 0;
    case Operator::kNotEqual:
      return *order != 0;
    case Operator::kLess:
      return *order < 0;
    case Operator::kLessEqual:
      return *order <= 0;
    case Operator::kGreater:
      return *order > 0;
    case Operator::kGreaterEqual:
      return *order >= 0;
    case Operator::kContains:
    case Operator::kPresent:
      break;
  }
  return false;
}

}  // namespace

std::string to_text(const Literal& literal) { return std::visit(LiteralText(), literal); }

// With no more parentheses than any text of the same tree needs, so that the limit on depth holds
// for it too.
std::string to_text(const Filter& filter) {
  using Kind = Filter::Kind;
  if (filter.kind == Kind::kTerm) return term_text(filter.term);
  std::string out;
  for (const Filter& part : filter.parts) {
    if (!out.empty()) out += filter.kind == Kind::kAnd ? " AND " : " OR ";
    const bool open = filter.kind == Kind::kNot  ? part.kind != Kind::kTerm
                      : filter.kind == Kind::kOr ? part.kind == Kind::kAnd
                                                 : false;
    out += open ? "(" + to_text(part) + ")" : to_text(part);
  }
  return filter.kind == Kind::kNot ? "NOT " + out : out;
}

bool matches(const Filter& filter, const FieldTable& fields, const FieldLookup& lookup,
             TimePoint now) {
  const auto part_matches = [&](const Filter& part) { return matches(part, fields, lookup, now); };
  switch (filter.kind) {
    case Filter::Kind::kAnd:
      return std::all_of(filter.parts.begin(), filter.parts.end(), part_matches);
    case Filter::Kind::kOr:
      return std::any_of(filter.parts.begin(), filter.parts.end(), part_matches);
    case Filter::Kind::kNot:
      return !part_matches(filter.parts.at(0));
    case Filter::Kind::kTerm:
      break;
  }
  const Field* field = find_field(fields, filter.term.field);
  FLOCK_ASSERT(field != nullptr);
  return holds(filter.term, *field, lookup(*field, filter.term.key), now);
}

}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
// The tree as SQL. NOT is pushed down to the comparisons, where it becomes IS NOT TRUE; above them
// only AND and OR remain, for which NULL and false are the same to a WHERE clause. So no NULL of a
// column can turn the answer, and the comparisons that are not negated stay visible to indexes.
#include "base/error.h"
#include "base/json.h"
#include "domain/filter.h"

namespace flock::domain {
namespace {

std::string_view symbol(Operator op) {
  switch (op) {
    case Operator::kLess:
      return " < ";
    case Operator::kLessEqual:
      return " <= ";
    case Operator::kGreater:
      return " > ";
    case Operator::kGreaterEqual:
      return " >= ";
    default:
      return " = ";
  }
}

struct JsonText {
  std::string operator()(const std::string& value) const {
    std::string out;
    json::append_quoted(out, value);
    return out;
  }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const auto&) const { return "null"; }
};

class Compiler {
 public:
  Compiler(const FieldTable& fields, int first_parameter, TimePoint now)
      : fields_(fields), first_(first_parameter), now_(now) {}

  std::string condition(const Filter& filter, bool negated) {
    if (filter.kind == Filter::Kind::kTerm) return term(filter.term, negated);
    if (filter.kind == Filter::Kind::kNot) return condition(filter.parts.at(0), !negated);
    const bool all = (filter.kind == Filter::Kind::kAnd) != negated;
    if (filter.parts.empty()) return all ? "TRUE" : "FALSE";
    std::string out;
    for (const Filter& part : filter.parts)
      out += (out.empty() ? "(" : all ? " AND " : " OR ") + condition(part, negated);
    return out + ")";
  }

  std::vector<std::string> values;

 private:
  std::string term(const Term& term, bool negated) {
    const Field* field = find_field(fields_, term.field);
    FLOCK_ASSERT(field != nullptr);
    if (term.op == Operator::kNotEqual) negated = !negated;
    const std::string positive = comparison(*field, "(" + field->sql + ")", term);
    return negated ? "(" + positive + ") IS NOT TRUE" : "(" + positive + ")";
  }

  std::string comparison(const Field& field, const std::string& sql, const Term& term) {
    switch (field.type) {
      case FieldType::kLabels:
        return label(sql, term);
      case FieldType::kAttributes:
        return attribute(sql, term);
      default:
        break;
    }
    if (term.op == Operator::kPresent) return sql + " IS NOT NULL";
    switch (field.type) {
      case FieldType::kTime:
        return time(sql, term);
      case FieldType::kInteger:
        return sql + std::string(symbol(term.op)) + number(term.value) + "::bigint";
      case FieldType::kReal:
        return sql + std::string(symbol(term.op)) + number(term.value) + "::double precision";
      case FieldType::kBoolean:
        return sql + " = " + bind(std::get<bool>(term.value) ? "true" : "false") + "::boolean";
      case FieldType::kId:
        return sql + " = " + bind(std::get<std::string>(term.value)) + "::uuid";
      case FieldType::kVersion:
        return text(version_key_sql(sql), term.op,
                    version_key(std::get<std::string>(term.value)).value_or(""));
      default:
        break;
    }
    return text(sql, term.op, std::get<std::string>(term.value));
  }

  // Equality is the same under every collation, so it leaves the column's own to its index.
  std::string text(const std::string& sql, Operator op, std::string value) {
    if (op == Operator::kContains)
      return "strpos(" + sql + ", " + bind(std::move(value)) + "::text) > 0";
    const bool equality = op == Operator::kEqual || op == Operator::kNotEqual;
    return sql + (equality ? "" : " COLLATE \"C\"") + std::string(symbol(op)) +
           bind(std::move(value)) + "::text";
  }

  // The column has microseconds and the filter milliseconds: a row is compared by its whole
  // milliseconds, so `=` is a range and `>` starts at the next one.
  std::string time(const std::string& sql, const Term& term) {
    const auto* relative = std::get_if<RelativeTime>(&term.value);
    const TimePoint point = relative ? now_ + relative->offset : std::get<TimePoint>(term.value);
    const auto at = [&](TimePoint t) { return bind(to_rfc3339(t)) + "::timestamptz"; };
    const TimePoint next = point + Duration(1);
    switch (term.op) {
      case Operator::kLess:
        return sql + " < " + at(point);
      case Operator::kLessEqual:
        return sql + " < " + at(next);
      case Operator::kGreater:
        return sql + " >= " + at(next);
      case Operator::kGreaterEqual:
        return sql + " >= " + at(point);
      default:
        break;
    }
    const std::string from = at(point);
    return sql + " >= " + from + " AND " + sql + " < " + at(next);
  }

  std::string label(const std::string& sql, const Term& term) {
    if (term.op == Operator::kPresent) return sql + " ? " + bind(term.key) + "::text";
    const std::string& value = std::get<std::string>(term.value);
    if (term.op == Operator::kEqual || term.op == Operator::kNotEqual)
      return contains(sql, term.key, JsonText()(value));
    const std::string key = bind(term.key);
    return text("(" + sql + " ->> " + key + "::text)", term.op, value);
  }

  // A null is not a value. CASE, because AND does not promise to look at the kind first.
  std::string attribute(const std::string& sql, const Term& term) {
    if (term.op == Operator::kPresent) {
      const std::string key = bind(term.key) + "::text";
      return sql + " ? " + key + " AND jsonb_typeof(" + sql + " -> " + key + ") <> 'null'";
    }
    const bool is_text = std::holds_alternative<std::string>(term.value);
    const bool is_number = !is_text && !std::holds_alternative<bool>(term.value);
    if (term.op == Operator::kEqual || term.op == Operator::kNotEqual)
      return contains(sql, term.key,
                      is_number ? to_text(term.value) : std::visit(JsonText(), term.value));
    const std::string key = bind(term.key) + "::text";
    const std::string found = "(" + sql + " ->> " + key + ")";
    return "CASE WHEN jsonb_typeof(" + sql + " -> " + key + ") = '" +
           (is_number ? "number' THEN " + found + "::numeric" + std::string(symbol(term.op)) +
                            number(term.value) + "::numeric"
                      : "string' THEN " + text(found, term.op, std::get<std::string>(term.value))) +
           " END";
  }

  std::string contains(const std::string& sql, const std::string& key, const std::string& value) {
    return sql + " @> " + bind("{" + JsonText()(key) + ":" + value + "}") + "::jsonb";
  }

  std::string number(const Literal& value) { return bind(to_text(value)); }

  std::string bind(std::string value) {
    values.push_back(std::move(value));
    return "$" + std::to_string(first_ + static_cast<int>(values.size()) - 1);
  }

  const FieldTable& fields_;
  int first_;
  TimePoint now_;
};

}  // namespace

Sql compile_sql(const Filter& filter, const FieldTable& fields, int first_parameter,
                TimePoint now) {
  Compiler compiler(fields, first_parameter, now);
  std::string text = compiler.condition(filter, false);
  return {std::move(text), std::move(compiler.values)};
}

}  // namespace flock::domain

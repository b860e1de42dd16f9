// SPDX-License-Identifier: Apache-2.0
#include "stores/time_series/sandbox.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "stores/time_series/rules.h"
#include "stores/time_series/sql.h"

namespace flock::stores::clickhouse {
namespace {

constexpr std::size_t kDeepest = 16;  // parentheses in each other

using Words = std::set<std::string_view>;

const Words kKeywords{"select", "distinct", "from",  "where", "group", "by",  "having", "order",
                      "limit",  "as",       "using", "inner", "left",  "any", "all",    "join",
                      "and",    "or",       "not",   "in",    "like",  "is",  "null",   "between",
                      "case",   "when",     "then",  "else",  "end",   "asc", "desc"};

// Nothing that reads a file or an address, waits, tells of the server, or makes much out of little.
const Words kFunctions{
    // of many rows
    "count", "sum", "avg", "min", "max", "any", "anylast", "argmin", "argmax", "uniq", "uniqexact",
    "uniqcombined", "quantile", "quantileexact", "quantiletdigest", "median", "medianexact",
    "stddevpop", "stddevsamp", "varpop", "varsamp", "corr", "covarpop", "covarsamp", "countif",
    "sumif", "avgif", "minif", "maxif", "anyif", "argminif", "argmaxif", "uniqif", "uniqexactif",
    "quantileif", "quantileexactif", "medianif",
    // of numbers
    "abs", "round", "floor", "ceil", "sqrt", "exp", "log", "log2", "log10", "pow", "intdiv",
    "modulo", "greatest", "least", "if", "multiif", "ifnull", "nullif", "coalesce", "isnan",
    "isfinite", "tofloat64", "toint64", "touint64", "toint32", "touint32", "touint8",
    // of text
    "tostring", "lower", "upper", "length", "position", "positioncaseinsensitive", "match",
    "startswith", "endswith", "substring", "empty", "notempty",
    // of time
    "now", "tounixtimestamp", "todatetime", "tostartofminute", "tostartofhour", "tostartofday"};

struct Table {
  std::string_view name;
  Sql rows;  // of one organization in one window
};
#define FLOCK_IN_WINDOW                                                              \
  " WHERE org = {org} AND (day BETWEEN {first_day} AND {last_day} OR day >= 100000)" \
  " AND at_ms >= {from} AND at_ms < {to})"
// DISTINCT: the same row twice counts once.
constexpr std::array kTables{
    Table{"metrics",
          "(SELECT DISTINCT fleet, device, service, name, at_ms, value FROM "
          "{database}.metrics" FLOCK_IN_WINDOW},
    Table{"logs",
          "(SELECT DISTINCT fleet, device, service, epoch, number, at_ms, source, level, text, gap,"
          " count FROM {database}.logs" FLOCK_IN_WINDOW},
    Table{"connectivity",
          "(SELECT DISTINCT fleet, device, at_ms, online, reason FROM "
          "{database}.connectivity" FLOCK_IN_WINDOW},
    Table{"updates",
          "(SELECT DISTINCT fleet, device, rollout, release, at_ms, phase, error_code, detail FROM"
          " {database}.updates" FLOCK_IN_WINDOW},
    Table{"reached", "(SELECT arrayJoin({reached}) AS device)"},
    Table{"waiting", "(SELECT arrayJoin({waiting}) AS device)"}};
#undef FLOCK_IN_WINDOW
const Words kColumns{"fleet",  "device",  "service", "name",  "at_ms",      "value", "epoch",
                     "number", "source",  "level",   "text",  "gap",        "count", "online",
                     "reason", "rollout", "release", "phase", "error_code", "detail"};

const Table* table_named(std::string_view name) {
  const auto* const found = std::ranges::find(kTables, name, &Table::name);
  return found == kTables.end() ? nullptr : found;
}

enum class Kind { kName, kNumber, kText, kSign, kEnd };
struct Token {
  Kind kind = Kind::kEnd;
  std::string_view text;
  std::size_t at = 0;  // bytes from the beginning
  std::string word;    // a name in small letters
  bool is(std::string_view wanted) const {
    return kind == Kind::kName ? word == wanted : kind == Kind::kSign && text == wanted;
  }
};

[[noreturn]] void refuse(const Token& token, const std::string& what) {
  const std::string where =
      token.kind == Kind::kEnd ? "at the end" : "at character " + std::to_string(token.at + 1);
  throw Error(Code::kInvalidArgument, "the query cannot be run: " + what + " (" + where + ")")
      .hint("docs/rollouts.md says what a query may hold");
}

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Everything that ClickHouse could read in another way than this does is refused: quoted names,
// comments, escapes, bytes beyond ASCII.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  std::vector<Token> all() {
    std::vector<Token> out;
    do {
      out.push_back(next());
    } while (out.back().kind != Kind::kEnd);
    return out;
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  Token take(Kind kind, std::size_t length) {
    Token token{kind, text_.substr(at_, length), at_, {}};
    at_ += length;
    if (kind == Kind::kName)
      for (const char c : token.text)
        token.word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return token;
  }
  template <class Accept>
  std::size_t run(std::size_t from, Accept accept) const {
    while (at_ + from < text_.size() && accept(text_[at_ + from])) ++from;
    return from;
  }

  Token next() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").contains(text_[at_])) ++at_;
    if (at_ == text_.size()) return take(Kind::kEnd, 0);
    const char c = peek();
    if (is_letter(c)) {
      return take(Kind::kName, run(0, [](char d) { return is_letter(d) || is_digit(d); }));
    }
    if (is_digit(c)) return number();
    if (c == '\'') return quoted();
    for (const std::string_view sign : {"<=", ">=", "!=", "<>"})
      if (text_.substr(at_).starts_with(sign)) return take(Kind::kSign, 2);
    for (const std::string_view comment : {"--", "/*"})
      if (text_.substr(at_).starts_with(comment))
        refuse(take(Kind::kSign, 2), "comments are not taken");
    if (std::string_view("()+-*/%<>=,.").contains(c)) return take(Kind::kSign, 1);
    const bool shown = c > 0x20 && c < 0x7F;
    refuse(take(Kind::kSign, 1),
           shown ? std::string("'") + c + "' is not taken" : "only plain ASCII is taken");
  }

  Token number() {
    std::size_t end = run(0, is_digit);
    if (peek(end) == '.' && is_digit(peek(end + 1))) end = run(end + 1, is_digit);
    if (peek(end) == 'e' || peek(end) == 'E') {
      const std::size_t sign = peek(end + 1) == '-' || peek(end + 1) == '+' ? 1 : 0;
      if (is_digit(peek(end + 1 + sign))) end = run(end + 1 + sign, is_digit);
    }
    const Token token = take(Kind::kNumber, end);
    if (is_letter(peek()) || peek() == '.') refuse(token, "not a number");
    return token;
  }

  Token quoted() {
    const std::size_t end =
        run(1, [](char c) { return c >= 0x20 && c < 0x7F && c != '\'' && c != '\\'; });
    if (peek(end) != '\'' || peek(end + 1) == '\'')
      refuse(take(Kind::kText, end), "a text ends with ' and holds neither ' nor \\");
    return take(Kind::kText, end + 1);
  }

  const std::string_view text_;
  std::size_t at_ = 0;
};

// Reads a query once, and writes it with its tables replaced.
class Rewriter {
 public:
  Rewriter(const OperatorQuery& query, const std::string& database)
      : query_(query), database_(database), tokens_(Lexer(query.query).all()) {
    for (std::size_t i = 0; i + 1 < tokens_.size(); ++i)
      if (tokens_[i].is("as")) name(tokens_[i + 1]);
  }

  std::string rewritten() {
    if (!here().is("select")) refuse(here(), "it must be a SELECT");
    levels_.push_back({});
    for (; here().kind != Kind::kEnd; ++at_) take();
    if (levels_.size() != 1) refuse(here(), "a parenthesis is not closed");
    return std::move(out_);
  }

 private:
  // Within one pair of parentheses.
  struct Level {
    bool in_from = false;  // between FROM and what follows it
  };

  const Token& here() const { return tokens_[at_]; }
  const Token& after(std::size_t steps = 1) const {
    return tokens_[std::min(at_ + steps, tokens_.size() - 1)];
  }
  void write(std::string_view text) {
    if (!out_.empty()) out_ += ' ';
    out_ += text;
  }

  // Names that the query gives.
  void name(const Token& token) {
    if (token.kind != Kind::kName || kKeywords.contains(token.word))
      refuse(token, "AS is followed by a name");
    const bool taken =
        token.word == "system" || token.word == database_ || table_named(token.text) != nullptr;
    if (taken) refuse(token, "'" + std::string(token.text) + "' cannot be a name of its own");
    names_.insert(token.text);
  }

  void take() {
    const Token& token = here();
    const bool called =
        token.kind == Kind::kName && after().is("(") && kFunctions.contains(token.word);
    if (token.kind == Kind::kSign) {
      take_sign();
    } else if (is_keyword(token) && !called) {
      return take_keyword();
    } else if (at_ > 0 && ends_operand(tokens_[at_ - 1])) {
      // The server would read what follows as something that is not known here, as SETTINGS.
      refuse(token, "an operator, a comma or AS is missing before it");
    } else if (token.kind == Kind::kName && !called) {
      return take_name();
    }
    write(token.text);
  }

  static bool is_keyword(const Token& token) {
    return token.kind == Kind::kName && kKeywords.contains(token.word);
  }
  static bool ends_operand(const Token& token) {
    if (token.kind == Kind::kSign) return token.is(")");
    if (!is_keyword(token)) return true;
    return token.is("end") || token.is("null") || token.is("asc") || token.is("desc");
  }

  void take_sign() {
    const Token& token = here();
    if (token.is("*")) {
      const bool of_rows = at_ > 0 && tokens_[at_ - 1].is("(") && after().is(")");
      if (!of_rows && !(at_ > 0 && ends_operand(tokens_[at_ - 1])))
        refuse(token, "columns are named one by one");
    } else if (token.is("(")) {
      levels_.push_back({});
      if (levels_.size() > kDeepest) refuse(token, "too many parentheses in each other");
    } else if (token.is(")")) {
      if (levels_.size() == 1) refuse(token, "a parenthesis is closed that was not opened");
      levels_.pop_back();
    } else if (token.is(",") && levels_.back().in_from) {
      refuse(token, "one table follows FROM; others are joined, USING (a, b)");
    } else if (token.is(".")) {
      refuse(token, "a point stands between the name of a table and that of a column");
    }
  }

  void take_keyword() {
    const Token& token = here();
    const std::string& word = token.word;
    if (word == "select" && at_ > 0 && !tokens_[at_ - 1].is("("))
      refuse(token, "a second SELECT stands in parentheses");
    for (const char* end : {"where", "group", "having", "order", "limit", "select"})
      if (word == end) levels_.back().in_from = false;
    write(token.text);
    if (word == "from" || word == "join") {
      levels_.back().in_from = true;
      take_table();
    } else if (word == "in") {
      take_list();
    } else if (word == "as") {
      ++at_;  // the name was looked at before
      write(here().text);
      if (after().is("(") || after().is(".")) refuse(after(), "a name ends here");
    }
  }

  void take_table() {
    ++at_;
    const Token& token = here();
    if (token.is("(")) {
      if (!after().is("select")) refuse(after(), "a SELECT follows");
      take();
      return;
    }
    const Table* const table = token.kind == Kind::kName ? table_named(token.text) : nullptr;
    if (table == nullptr || after().is("(") || after().is("."))
      refuse(token, "the tables are metrics, logs, connectivity, updates, reached and waiting");
    write(rows_of(*table));
    if (!after().is("as")) write("AS " + std::string(table->name));
  }

  // What stands right of IN could be the name of a table: literals or a SELECT only.
  void take_list() {
    ++at_;
    if (!here().is("(")) refuse(here(), "IN is followed by (");
    take();
    if (after().is("select")) return;
    for (++at_; !here().is(")"); ++at_) {
      const bool plain = here().kind == Kind::kNumber || here().kind == Kind::kText ||
                         here().is(",") || here().is("-");
      if (!plain) refuse(here(), "IN takes a list of numbers or texts, or a SELECT");
      write(here().text);
    }
    take();
  }

  void take_name() {
    const Token& token = here();
    if (after().is("("))
      refuse(token, "'" + std::string(token.text) + "' is no function that is offered");
    if (!after().is(".")) {
      if (!is_known(token)) refuse_name(token);
      write(token.text);
      return;
    }
    if (!names_.contains(token.text) && table_named(token.text) == nullptr) refuse_name(token);
    const Token& column = after(2);
    if (column.kind != Kind::kName || !is_known(column) || after(3).is("(") || after(3).is("."))
      refuse(column, "the name of a column follows");
    write(std::string(token.text) + "." + std::string(column.text));
    at_ += 2;
  }
  bool is_known(const Token& token) const {
    return kColumns.contains(token.text) || names_.contains(token.text);
  }
  [[noreturn]] static void refuse_name(const Token& token) {
    refuse(token, "'" + std::string(token.text) + "' is no column, and no name given with AS");
  }

  std::string rows_of(const Table& table) const {
    const Window window = bounded(query_.from_ms, query_.to_ms);
    const auto day = [](std::int64_t at) { return std::min(at / kDayMs, kStrayDays - 1); };
    Statement sql(table.rows);
    sql.name("database", database_).text("org", query_.org);
    sql.number("from", window.from_ms).number("to", window.to_ms);
    sql.number("first_day", day(window.from_ms)).number("last_day", day(window.to_ms));
    sql.array("reached", query_.reached).array("waiting", query_.waiting);
    return sql.str();
  }

  const OperatorQuery& query_;
  const std::string& database_;
  const std::vector<Token> tokens_;
  Words names_;
  std::vector<Level> levels_;
  std::size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string sandboxed(const OperatorQuery& query, const std::string& database) {
  if (query.query.size() > kLongestQuery)
    throw Error(Code::kInvalidArgument,
                "the query is longer than " + std::to_string(kLongestQuery) + " bytes");
  return "SELECT * FROM (" + Rewriter(query, database).rewritten() + ") LIMIT 2 FORMAT JSONCompact";
}

std::string sandbox_settings() {
  return "&max_execution_time=5&timeout_overflow_mode=throw&max_memory_usage=500000000"
         "&max_threads=2&max_rows_to_read=50000000&max_result_rows=10&max_result_bytes=65536"
         "&result_overflow_mode=throw&max_rows_to_group_by=5000000&max_rows_in_set=5000000"
         "&max_rows_in_distinct=20000000&max_rows_in_join=5000000&max_bytes_in_join=200000000"
         "&max_subquery_depth=16&max_query_size=16777216&max_ast_elements=200000"
         "&max_expanded_ast_elements=200000&wait_end_of_query=1"
         "&output_format_json_quote_64bit_integers=0&readonly=1";
}

}  // namespace flock::stores::clickhouse

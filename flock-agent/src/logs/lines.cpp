// SPDX-License-Identifier: Apache-2.0
#include "logs/lines.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/time.h"

namespace flock::agent {
namespace {

using device::v1::LogLine;

constexpr std::int64_t kTogetherMs = 50;
constexpr std::int64_t kBurstSeconds = 5;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character at `text`'s begin, 0 when it is none (Unicode 15, table 3-7) or NUL.
std::size_t character_at(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
  };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0), second = byte(1);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if ((first & 0xF0U) == 0xE0U) {
    if (first == 0xE0 && second < 0xA0) return 0;
    if (first == 0xED && second > 0x9F) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (first == 0xF0 && second < 0x90) return 0;
    if (first == 0xF4 && second > 0x8F) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
bool is_upper(std::string_view word) {
  return std::ranges::all_of(word, [](char c) { return c == upper(c); });
}

LogLine::Level level_of(std::string_view word) {
  static constexpr std::pair<std::string_view, LogLine::Level> kWords[] = {
      {"ERROR", LogLine::ERROR},    {"WARN", LogLine::WARN},       {"INFO", LogLine::INFO},
      {"DEBUG", LogLine::DEBUG},    {"WARNING", LogLine::WARN},    {"ERR", LogLine::ERROR},
      {"TRACE", LogLine::DEBUG},    {"NOTICE", LogLine::INFO},     {"FATAL", LogLine::FATAL},
      {"CRITICAL", LogLine::FATAL}, {"PANIC", LogLine::FATAL},     {"CRIT", LogLine::FATAL},
      {"EMERG", LogLine::FATAL},    {"INFORMATION", LogLine::INFO}};
  for (const auto& [name, level] : kWords) {
    if (std::ranges::equal(name, word, [](char a, char b) { return a == upper(b); })) return level;
  }
  return LogLine::LEVEL_UNSPECIFIED;
}

std::string_view word_at(std::string_view text, std::size_t at) {
  std::size_t end = at;
  while (end < text.size() && is_letter(text[end])) ++end;
  return text.substr(at, end - at);
}

// The word after `key`, past quotes, colons and blanks.
LogLine::Level level_after(std::string_view text, std::string_view key) {
  const std::size_t found = text.find(key);
  if (found == std::string_view::npos) return LogLine::LEVEL_UNSPECIFIED;
  const std::size_t at = text.find_first_not_of("\": ", found + key.size());
  return at == std::string_view::npos ? LogLine::LEVEL_UNSPECIFIED : level_of(word_at(text, at));
}

// A level word counts when it is written as one: in capitals, in brackets, or with a colon behind.
LogLine::Level level_in_words(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (!is_letter(text[at])) {
      ++at;
      continue;
    }
    const std::string_view word = word_at(text, at);
    const std::size_t end = at + word.size();
    const char before = at > 0 ? text[at - 1] : ' ', behind = end < text.size() ? text[end] : ' ';
    const bool marked = is_upper(word) || (before == '[' && behind == ']') ||
                        (before == '<' && behind == '>') || behind == ':';
    if (marked && word.size() > 2) {
      if (const auto level = level_of(word); level != LogLine::LEVEL_UNSPECIFIED) return level;
    }
    at = end;
  }
  return LogLine::LEVEL_UNSPECIFIED;
}

struct Header {
  std::int64_t at_ms;
  LogLine::Source source;
  bool partial;
  std::string_view text;
};

std::optional<Header> read_header(std::string_view raw) {
  const std::size_t time_end = raw.find(' ');
  if (time_end == std::string_view::npos || time_end < 20) return std::nullopt;
  std::string_view rest = raw.substr(time_end + 1);
  Header header{};
  if (rest.starts_with("stdout "))
    header.source = LogLine::STDOUT;
  else if (rest.starts_with("stderr "))
    header.source = LogLine::STDERR;
  else
    return std::nullopt;
  rest.remove_prefix(7);
  if (rest.empty() || (rest[0] != 'P' && rest[0] != 'F')) return std::nullopt;
  header.partial = rest[0] == 'P';
  header.text = rest.size() > 2 ? rest.substr(2) : std::string_view();
  try {
    header.at_ms = to_unix_ms(parse_rfc3339(raw.substr(0, time_end)));
  } catch (const Error&) {
    return std::nullopt;
  }
  return header;
}

}  // namespace

std::string clean_text(std::string_view text) {
  const bool plain = text.size() <= kLineBytes &&
                     std::ranges::all_of(text, [](char c) { return c > 0; });  // the usual case
  if (plain) return std::string(text);
  std::string out;
  out.reserve(std::min(text.size(), kLineBytes));
  while (!text.empty()) {
    const std::size_t size = character_at(text);
    const std::string_view next = size > 0 ? text.substr(0, size) : kReplacement;
    if (out.size() + next.size() > kLineBytes) break;
    out += next;
    text.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return out;
}

LogLine::Level guess_level(std::string_view text) {
  text = text.substr(0, 512);
  if (text.starts_with('{')) {
    for (const char* key : {"\"level\"", "\"severity\"", "\"lvl\"", "\"levelname\""})
      if (const auto level = level_after(text, key); level != LogLine::LEVEL_UNSPECIFIED)
        return level;
    return LogLine::LEVEL_UNSPECIFIED;
  }
  if (const auto level = level_after(text, "level="); level != LogLine::LEVEL_UNSPECIFIED)
    return level;
  if (text.starts_with("panic: ")) return LogLine::FATAL;
  if (text.starts_with("Traceback (most recent call last)")) return LogLine::ERROR;
  return level_in_words(text.substr(0, 64));
}

bool continues(std::string_view first, std::string_view line) {
  if (line.starts_with(' ') || line.starts_with('\t')) return true;
  if (line.starts_with("Caused by: ") || line.starts_with("... ")) return true;
  if (first.starts_with("panic: ") || first.starts_with("goroutine ")) return true;
  // Python's trace ends with the one line that is not indented.
  constexpr std::string_view kPython = "Traceback (most recent call last)";
  if (!first.starts_with(kPython)) return false;
  const std::size_t last = first.rfind('\n');
  return last == std::string_view::npos || first.substr(last + 1).starts_with(' ');
}

void LineAssembler::take(std::string_view raw, std::int64_t begin, std::int64_t end) {
  read_to_ = end;
  const auto header = read_header(raw);
  if (!header) {
    // Not what a runtime writes, e.g. after a loss of power: shown as it is, not hidden.
    close();
    add_line({.begin = begin, .end = end, .at_ms = last_ms_, .text = std::string(raw)});
    return close();
  }
  last_ms_ = header->at_ms;
  auto& partial = partial_[header->source == LogLine::STDERR ? 1 : 0];
  if (!partial)
    partial = Piece{.begin = begin, .at_ms = header->at_ms, .source = header->source, .text = {}};
  const std::size_t room = kLineBytes - std::min(kLineBytes, partial->text.size());
  partial->text += header->text.substr(0, room);
  partial->truncated = partial->truncated || header->text.size() > room;
  partial->end = end;
  if (header->partial) return;
  Piece whole = std::move(*partial);
  partial.reset();
  add_line(std::move(whole));
}

void LineAssembler::add_line(Piece piece) {
  if (open_) {
    const bool together =
        open_->source == piece.source && piece.at_ms - open_->last_ms <= kTogetherMs &&
        open_->joined < kJoinedLines && open_->text.size() + 1 + piece.text.size() <= kLineBytes &&
        continues(open_->text, piece.text);
    if (together) {
      open_->text += '\n';
      open_->text += piece.text;
      open_->truncated = open_->truncated || piece.truncated;
      open_->end = piece.end;
      open_->last_ms = piece.at_ms;
      ++open_->joined;
      return;
    }
    close();
  }
  piece.last_ms = last_ms_;
  open_ = std::move(piece);
}

void LineAssembler::close() {
  if (!open_) return;
  LogLine line;
  line.set_at_ms(open_->at_ms);
  line.set_source(open_->source);
  line.set_text(clean_text(open_->text));
  line.set_level(guess_level(line.text()));
  if (open_->truncated) line.set_truncated(true);
  emitted_to_ = std::max(emitted_to_, open_->end);
  open_.reset();
  emit_(std::move(line));
}

void LineAssembler::settle(std::int64_t now_ms) {
  // The runtime stamps a line a moment before it is in the file.
  if (open_ && now_ms - open_->last_ms > 4 * kTogetherMs) close();
}

void LineAssembler::finish() {
  for (auto& partial : partial_) {
    if (!partial) continue;
    Piece rest = std::move(*partial);
    partial.reset();
    add_line(std::move(rest));
  }
  close();
}

std::optional<std::int64_t> LineAssembler::clean_offset() const {
  std::int64_t first = read_to_;
  for (const auto* piece : {&partial_[0], &partial_[1], &open_})
    if (*piece) first = std::min(first, (*piece)->begin);
  if (first < emitted_to_) return std::nullopt;
  return first;
}

bool RateLimit::pass(std::int64_t at_ms, std::size_t bytes) {
  const auto refill = [&](std::int64_t& level, std::int64_t rate, std::int64_t passed) {
    const std::int64_t full = rate * kBurstSeconds * 1000;
    level = level < 0 ? full : std::min(full, level + rate * passed);
  };
  const std::int64_t passed =
      std::clamp<std::int64_t>(at_ms - state_.at_ms, 0, kBurstSeconds * 1000);
  refill(state_.lines, lines_rate_, passed);
  refill(state_.bytes, bytes_rate_, passed);
  // A clock that was set back begins anew.
  state_.at_ms = at_ms;
  const std::int64_t needs = static_cast<std::int64_t>(bytes) * 1000;
  if (lines_rate_ > 0 && state_.lines < 1000) return false;
  // One that is longer than the whole burst passes a full bucket.
  if (bytes_rate_ > 0 && state_.bytes < std::min(needs, bytes_rate_ * kBurstSeconds * 1000))
    return false;
  state_.lines = std::max<std::int64_t>(0, state_.lines - 1000);
  state_.bytes = std::max<std::int64_t>(0, state_.bytes - needs);
  return true;
}

}  // namespace flock::agent

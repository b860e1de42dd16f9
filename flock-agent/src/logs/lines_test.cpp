// SPDX-License-Identifier: Apache-2.0
#include "logs/lines.h"

#include <gtest/gtest.h>

#include <map>

#include "logs/kernel_log.h"
#include "logs/test_lines.h"

namespace flock::agent {
namespace {

using device::v1::LogLine;

struct Assembled {
  std::vector<LogLine> lines;
  std::vector<std::optional<std::int64_t>> clean;  // after each piece
  std::vector<std::string> texts() const {
    std::vector<std::string> out;
    for (const LogLine& line : lines) out.push_back(line.text());
    return out;
  }
};

Assembled assemble(const std::vector<std::string>& pieces, std::size_t from = 0,
                   bool finish = true) {
  Assembled out;
  LineAssembler assembler([&](LogLine line) { out.lines.push_back(std::move(line)); });
  std::int64_t at = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const auto end = at + static_cast<std::int64_t>(pieces[i].size()) + 1;
    if (i == from) assembler.begin_at(at);
    if (i >= from) assembler.take(pieces[i], at, end);
    at = end;
    out.clean.push_back(assembler.clean_offset());
  }
  if (finish) assembler.finish();
  return out;
}

using Texts = std::vector<std::string>;

TEST(LogLines, ReadsTimesSourcesAndParts) {
  const Assembled out = assemble(
      {piece(250, "hello"), piece(400, "a bad thing", "stderr"), piece(500, "one ", "stdout", 'P'),
       piece(500, "long ", "stdout", 'P'), piece(501, "line"), piece(600, "")});
  EXPECT_EQ(out.texts(), (Texts{"hello", "a bad thing", "one long line", ""}));
  EXPECT_EQ(out.lines[0].at_ms() % 60'000, 1250 + 20 * 60'000 % 60'000);
  EXPECT_EQ(out.lines[0].source(), LogLine::STDOUT);
  EXPECT_EQ(out.lines[1].source(), LogLine::STDERR);
}

TEST(LogLines, KeepsTogetherWhatBelongsTogether) {
  const Texts java{"java.lang.Error: no", "\tat a.B.c(B.java:1)", "Caused by: x", "\tat d.E"};
  const Texts python{"Traceback (most recent call last):", "  File \"a.py\", line 1",
                     "ValueError: no", "next"};
  std::vector<std::string> pieces;
  for (const auto& text : java) pieces.push_back(piece(0, text, "stderr"));
  for (const auto& text : python) pieces.push_back(piece(40, text, "stderr"));
  pieces.push_back(piece(60, "  indented, but another source"));
  pieces.push_back(piece(200, "  indented, but too late"));
  EXPECT_EQ(assemble(pieces).texts(),
            (Texts{"java.lang.Error: no\n\tat a.B.c(B.java:1)\nCaused by: x\n\tat d.E",
                   "Traceback (most recent call last):\n  File \"a.py\", line 1\nValueError: no",
                   "next", "  indented, but another source", "  indented, but too late"}));
}

TEST(LogLines, BoundsWhatIsJoinedAndWhatIsLong) {
  std::vector<std::string> pieces{piece(0, "first")};
  for (int i = 0; i < 100; ++i) pieces.push_back(piece(0, " more"));
  Assembled out = assemble(pieces);
  ASSERT_EQ(out.lines.size(), 2U);
  EXPECT_EQ(std::ranges::count(out.lines[0].text(), '\n'), kJoinedLines - 1);

  pieces.clear();
  for (int i = 0; i < 5; ++i) pieces.push_back(piece(0, std::string(8000, 'x'), "stdout", 'P'));
  pieces.push_back(piece(0, "end"));
  pieces.push_back(piece(0, "next"));
  out = assemble(pieces);
  ASSERT_EQ(out.lines.size(), 2U);
  EXPECT_EQ(out.lines[0].text().size(), kLineBytes);
  EXPECT_TRUE(out.lines[0].truncated());
  EXPECT_FALSE(out.lines[1].truncated());
}

TEST(LogLines, MakesCleanTextOfAnything) {
  EXPECT_EQ(clean_text("plain"), "plain");
  EXPECT_EQ(clean_text("Grüße 🐑"), "Grüße 🐑");
  EXPECT_EQ(clean_text(std::string("a\0b", 3)),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(clean_text("a\xFF"
                       "b\xC0\xAF\xED\xA0\x80"),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  const std::string cut = clean_text(std::string(kLineBytes - 1, 'x') + "ü");
  EXPECT_EQ(cut.size(), kLineBytes - 1) << "not within a character";
  const Assembled damaged = assemble({piece(0, "good"), std::string(20, '\0'), piece(900, "good")});
  EXPECT_EQ(damaged.lines.size(), 3U) << "shown, not hidden";
}

TEST(LogLines, GuessesLevels) {
  const std::pair<const char*, LogLine::Level> cases[] = {
      {R"({"time":"x","level":"warn","msg":"ERROR"})", LogLine::WARN},
      {R"({"severity": "ERROR"})", LogLine::ERROR},
      {R"({"msg":"nothing"})", LogLine::LEVEL_UNSPECIFIED},
      {"time=x level=debug msg=y", LogLine::DEBUG},
      {"2026-11-25 01:20:00,1 ERROR [main] no", LogLine::ERROR},
      {"[info] fine", LogLine::INFO},
      {"warning: careful", LogLine::WARN},
      {"FATAL: no", LogLine::FATAL},
      {"panic: runtime error", LogLine::FATAL},
      {"Traceback (most recent call last):", LogLine::ERROR},
      {"an error that is only spoken of", LogLine::LEVEL_UNSPECIFIED},
      {"", LogLine::LEVEL_UNSPECIFIED},
  };
  for (const auto& [text, level] : cases) EXPECT_EQ(guess_level(text), level) << text;
}

// What makes numbers the same after a crash: reading from a clean offset gives exactly the lines
// that were not emitted before it.
TEST(LogLines, ACleanOffsetBeginsWithTheNextLine) {
  std::srand(11);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::string> pieces;
    int ms = 0;
    for (int i = 0; i < 30; ++i) {
      ms += std::rand() % 3 == 0 ? 60 : 1;
      pieces.push_back(piece(ms, (std::rand() % 3 == 0 ? " more " : "line ") + std::to_string(i),
                             std::rand() % 2 == 0 ? "stdout" : "stderr",
                             std::rand() % 4 == 0 ? 'P' : 'F'));
    }
    const Assembled whole = assemble(pieces);
    std::int64_t at = 0;
    std::map<std::int64_t, std::size_t> piece_at;
    for (std::size_t i = 0; i <= pieces.size(); ++i) {
      piece_at[at] = i;
      if (i < pieces.size()) at += static_cast<std::int64_t>(pieces[i].size()) + 1;
    }
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (!whole.clean[i]) continue;
      const std::vector<std::string> head(pieces.begin(),
                                          pieces.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      Texts texts = assemble(head, 0, false).texts();
      for (const auto& text : assemble(pieces, piece_at.at(*whole.clean[i])).texts())
        texts.push_back(text);
      ASSERT_EQ(texts, whole.texts()) << "round " << round << ", piece " << i;
    }
  }
}

TEST(LogRate, LimitsLinesAndBytesByTheirOwnTimes) {
  const auto count = [](RateLimit limit, int lines, int every_ms, std::size_t bytes) {
    int passed = 0;
    for (int i = 0; i < lines; ++i) passed += limit.pass(1'000'000 + i * every_ms, bytes) ? 1 : 0;
    return passed;
  };
  EXPECT_EQ(count(RateLimit(0, 0), 1000, 0, 1000), 1000);
  EXPECT_EQ(count(RateLimit(10, 0), 1000, 0, 1), 50) << "a burst of five seconds";
  EXPECT_EQ(count(RateLimit(10, 0), 1000, 10, 1), 50 + 99) << "and ten in each second after it";
  EXPECT_EQ(count(RateLimit(10, 0), 100, 100, 1), 100);
  EXPECT_EQ(count(RateLimit(0, 100), 1000, 0, 50), 10);
  EXPECT_EQ(count(RateLimit(0, 100), 3, 0, 5000), 1) << "a line longer than the burst";
  // The clock is set back: no flood, no silence.
  RateLimit limit(1, 0);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(limit.pass(1'000'000, 1));
  EXPECT_FALSE(limit.pass(500'000, 1));
  EXPECT_TRUE(limit.pass(501'000, 1));
}

TEST(KernelLogTest, ReadsARecord) {
  KernelRecord record;
  ASSERT_TRUE(
      parse_kernel_record("3,339,5140900,-;usb 1-1: died\n SUBSYSTEM=usb\n", 1'000'000, record));
  EXPECT_EQ(record.sequence, 339);
  EXPECT_EQ(record.line.text(), "usb 1-1: died");
  EXPECT_EQ(record.line.level(), LogLine::ERROR);
  EXPECT_EQ(record.line.source(), LogLine::KERNEL);
  EXPECT_EQ(record.line.at_ms(), 1'005'140);
  ASSERT_TRUE(
      parse_kernel_record("6,1,2,-;rcu: \\x09Gr\\xc3\\xbc\\xc3\\x9fe\\x5c \\x1 \\x\n", 0, record));
  EXPECT_EQ(record.line.text(), "rcu: \tGrüße\\ \\x1 \\x");
  for (const char* bad : {"", ";", "x,1,2;y", "1,2;y"})
    EXPECT_FALSE(parse_kernel_record(bad, 0, record)) << bad;
}

}  // namespace
}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "audit/chain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace flock::audit {
namespace {

Event event(int number) {
  Event out;
  out.id = "id-" + std::to_string(number);
  out.org = "01a20f18-b91c-7000-9658-57f0f12237b9";
  out.at = from_unix_ms(1'790'000'000'000 + number);
  out.actor_kind = "user";
  out.actor_id = "u-1";
  out.actor_name = "Ada \"A\"";
  out.action = "createFleet";
  out.resource_type = "fleet";
  out.resource_id = "f-" + std::to_string(number);
  out.resource_name = "Oslo";
  out.request_id = "r-1";
  out.ip = "192.0.2.7";
  out.detail = canonical_detail(R"({ "b": [1, {"z":1,"y":2}], "a": "x" })");
  return out;
}

std::vector<std::string> chain(int from, int to) {
  std::vector<std::string> out;
  Head head;
  for (int i = 1; i <= to; ++i) {
    const std::string line = next_line(event(i), head);
    if (i >= from) out.push_back(line);
  }
  return out;
}

Verdict verify(const std::vector<std::string>& lines) {
  std::size_t next = 0;
  return verify_chain([&](std::string& line) {
    if (next == lines.size()) return false;
    line = lines[next++];
    return true;
  });
}

void expect_fault(const std::vector<std::string>& lines, Fault fault, std::size_t line,
                  std::int64_t seq, const std::string& what) {
  const Verdict verdict = verify(lines);
  EXPECT_EQ(to_string(verdict.fault), to_string(fault));
  EXPECT_EQ(verdict.line, line);
  EXPECT_EQ(verdict.seq, seq);
  EXPECT_EQ(verdict.what, what);
}

TEST(Chain, WritesOneCanonicalLine) {
  Head head;
  Event e = event(1);
  e.outcome = Outcome::kAborted;
  EXPECT_EQ(
      next_line(e, head),
      R"({"seq":1,"id":"id-1","at":"2026-09-21T14:13:20.001Z","org":"01a20f18-b91c-7000-9658-57f0f12237b9",)"
      R"("actor":{"kind":"user","id":"u-1","name":"Ada \"A\""},"action":"createFleet",)"
      R"("resource":{"type":"fleet","id":"f-1","name":"Oslo"},"request_id":"r-1","ip":"192.0.2.7",)"
      R"("outcome":"aborted","detail":{"a":"x","b":[1,{"y":2,"z":1}]},)"
      R"("prev":"0000000000000000000000000000000000000000000000000000000000000000",)"
      R"("hash":")" +
          head.hash + "\"}");
  EXPECT_EQ(head.seq, 1);
}

// By another program: printf '%s\n%s' PREV LINE-WITHOUT-HASH | sha256sum.
TEST(Chain, HashesAsDocumented) {
  Head head;
  EXPECT_EQ(head.hash.size(), 64u);
  next_line(event(1), head);
  EXPECT_EQ(head.hash, "75ae1dcba022df61aee9298d489120ab9179e42126faba4501cd0c81364c4c29");
}

TEST(Chain, ReadsItsLinesBack) {
  Head head;
  const Event e = event(7);
  const auto line = read_line(next_line(e, head));
  ASSERT_TRUE(line);
  EXPECT_TRUE(line->intact);
  EXPECT_EQ(line->seq, 1);
  EXPECT_EQ(line->hash, head.hash);
  EXPECT_EQ(line->event.actor_name, e.actor_name);
  EXPECT_EQ(line->event.at, e.at);
  EXPECT_EQ(line->event.detail, e.detail);
  for (const char* text : {"", "{}", "[]", "nonsense", R"({"seq":"1"})"})
    EXPECT_FALSE(read_line(text)) << text;
}

TEST(Chain, GlancesAtALine) {
  const auto lines = chain(1, 12);
  const auto seen = glance(lines[11]);
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->seq, 12);
  EXPECT_EQ(seen->at, event(12).at);
  for (const char* text : {"", "{}", "{\"seq\":", "{\"seq\":1,\"id\":\"a\",\"at\":\"never\"}"})
    EXPECT_FALSE(glance(text)) << text;
}

TEST(Chain, KeepsAnEventWhoseDetailCannotBeRead) {
  EXPECT_EQ(canonical_detail(""), "{}");
  EXPECT_EQ(canonical_detail("[1]"), R"({"text":"[1]"})");
  EXPECT_EQ(canonical_detail("{\n"), R"({"text":"{\n"})");
  Event e = event(1);
  e.detail = R"({"a":")" + std::string(200'000, 'x') + R"("})";
  Head head;
  const auto line = read_line(next_line(e, head));
  ASSERT_TRUE(line && line->intact);
  EXPECT_EQ(line->event.detail, R"({"left_out_bytes":200008})");
}

TEST(Verify, ProvesAChainAndItsMiddle) {
  Verdict verdict = verify(chain(1, 20));
  EXPECT_EQ(verdict.fault, Fault::kNone);
  EXPECT_EQ(verdict.events, 20u);
  EXPECT_EQ(verdict.first, 1);
  EXPECT_EQ(verdict.head.seq, 20);
  const std::string head = verdict.head.hash;
  verdict = verify(chain(5, 20));
  EXPECT_EQ(verdict.fault, Fault::kNone);
  EXPECT_EQ(verdict.first, 5);
  EXPECT_EQ(verdict.head.hash, head);
  EXPECT_EQ(verify({}).events, 0u);
}

TEST(Verify, NamesEveryRemovedLineButTheEnds) {
  for (std::size_t i = 1; i + 1 < 20; ++i) {
    auto lines = chain(1, 20);
    lines.erase(lines.begin() + static_cast<std::ptrdiff_t>(i));
    const auto seq = static_cast<std::int64_t>(i) + 1;
    expect_fault(lines, Fault::kRemoved, i + 1, seq,
                 "event seq " + std::to_string(seq) + " is missing");
  }
  auto lines = chain(1, 20);
  lines.erase(lines.begin() + 3, lines.begin() + 6);
  expect_fault(lines, Fault::kRemoved, 4, 4, "events seq 4 to 6 are missing");
}

// Any byte of any line.
TEST(Verify, NamesEveryAlteredLine) {
  const auto good = chain(1, 4);
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (std::size_t at = 0; at < good[i].size(); ++at) {
      auto lines = good;
      lines[i][at] = lines[i][at] == '1' ? '2' : '1';
      if (lines == good) continue;
      const Verdict verdict = verify(lines);
      EXPECT_TRUE(verdict.fault == Fault::kAltered || verdict.fault == Fault::kUnreadable)
          << i << " " << at << " " << to_string(verdict.fault);
      EXPECT_EQ(verdict.line, i + 1) << at;
    }
  }
}

TEST(Verify, SeesALineThatWasForgedWithItsHash) {
  auto lines = chain(1, 5);
  Event forged = event(3);
  forged.actor_id = "somebody-else";
  const auto before = read_line(lines[1]);
  Head head{before->seq, before->hash};
  lines[2] = next_line(forged, head);
  expect_fault(lines, Fault::kAltered, 4, 4,
               "event seq 4 does not follow event seq 3: one of the two was altered");
}

TEST(Verify, NamesSwappedAndMovedLines) {
  auto lines = chain(1, 20);
  std::swap(lines[16], lines[17]);
  expect_fault(lines, Fault::kReordered, 17, 18, "event seq 18 stands before event seq 17");
  lines = chain(1, 20);
  std::rotate(lines.begin(), lines.begin() + 1, lines.end());  // the first one to the end
  expect_fault(lines, Fault::kReordered, 20, 1, "event seq 1 stands behind later ones");
}

TEST(Verify, NamesADuplicate) {
  auto lines = chain(1, 20);
  lines.insert(lines.begin() + 17, lines[16]);
  expect_fault(lines, Fault::kDuplicate, 18, 17, "event seq 17 is there twice");
}

TEST(Verify, NamesWhatIsNoLine) {
  auto lines = chain(1, 20);
  lines[4] = "";
  expect_fault(lines, Fault::kUnreadable, 5, 5, "this is not an audit event");
}

TEST(Verify, KeepsOrganizationsApart) {
  auto lines = chain(1, 3);
  Event other = event(4);
  other.org = "01a20f18-b91c-7000-9658-57f0f12237ba";
  const auto before = read_line(lines[2]);
  Head head{before->seq, before->hash};
  lines.push_back(next_line(other, head));
  expect_fault(lines, Fault::kAltered, 4, 4, "event seq 4 is another organization's");
}

}  // namespace
}  // namespace flock::audit

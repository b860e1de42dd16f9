// SPDX-License-Identifier: Apache-2.0
// audit: who did what, its export, and the proof that nothing is missing from it.
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "audit/chain.h"
#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

const std::vector<Column> kColumns = {{"SEQ", "seq"},
                                      {"AT", "at"},
                                      {"WHO", "actor.name"},
                                      {"KIND", "actor.kind"},
                                      {"ACTION", "action"},
                                      {"ON", "resource.type"},
                                      {"NAME", "resource.name"},
                                      {"OUTCOME", "outcome"}};

std::string query_of(Session& s, std::string path, std::vector<const char*> names) {
  for (const char* name : names) {
    if (s.arguments.has(name))
      path += (path.find('?') == std::string::npos ? "?" : "&") + std::string(name) + "=" +
              url_encode(s.arguments.value(name));
  }
  return path;
}

int list(Session& s) {
  print(s.output,
        s.client.list(query_of(s, "/v1/audit", {"from", "to", "actor", "action"}),
                      number("limit", s.arguments.value("limit", "50"), 0)),
        kColumns, "id");
  return 0;
}

// Larger than memory is normal, so it goes straight to standard output.
int export_log(Session& s) {
  const auto write = [](std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
      throw Error(Code::kInternal, "standard output cannot be written");
  };
  s.client.download(query_of(s, "/v1/audit/export", {"format", "from", "to"}), write);
  if (std::fflush(stdout) != 0) throw Error(Code::kInternal, "standard output cannot be written");
  return 0;
}

int verify(Session& s) {
  const std::string path = s.arguments.word(0, "a file, or - for standard input");
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) throw Error(Code::kNotFound, "the file cannot be read").with("file", path);
  }
  std::istream& in = path == "-" ? std::cin : file;
  const audit::Verdict verdict = audit::verify_chain(
      [&](std::string& line) { return static_cast<bool>(std::getline(in, line)); });
  if (in.bad()) throw Error(Code::kUnavailable, "the file cannot be read").with("file", path);
  if (verdict.fault != audit::Fault::kNone) {
    std::printf("line %zu: %s\n", verdict.line, verdict.what.c_str());
    std::fputs(verdict.events == 0
                   ? "Only what `flock audit export` wrote as jsonl can be verified.\n"
                   : ("What stands before it is good: seq " + std::to_string(verdict.first) + ".." +
                      std::to_string(verdict.head.seq) + ".\n")
                         .c_str(),
               stderr);
    return 1;
  }
  if (verdict.events == 0) {
    std::puts("ok: 0 events");
    return 0;
  }
  std::printf("ok: %zu events, seq %lld..%lld, head %s\n", verdict.events,
              static_cast<long long>(verdict.first), static_cast<long long>(verdict.head.seq),
              verdict.head.hash.c_str());
  if (verdict.first > 1)
    std::fprintf(stderr, "It begins at seq %lld; what came before is not in it.\n",
                 static_cast<long long>(verdict.first));
  return 0;
}

}  // namespace

Command audit_command() {
  const Flag from{"from", "TIME", "not before, such as 2026-11-24T10:00:00Z"},
      to{"to", "TIME", "before this"};
  return {.name = "audit",
          .summary = "who did what, and the proof that nothing is missing",
          .verbs = {{.name = "ls",
                     .usage = "[--from TIME] [--to TIME] [--actor ID] [--action NAME]",
                     .summary = "the newest events",
                     .flags = std::vector<Flag>{from,
                                                to,
                                                {"actor", "ID", "by this person or key"},
                                                {"action", "NAME", "such as createFleet"}} +
                              list_flags(),
                     .run = list},
                    {.name = "export",
                     .usage = "[--from TIME] [--to TIME] [--format jsonl|csv]",
                     .summary = "the whole log of that time, as the chain it is",
                     .flags = {from, to, {"format", "FORMAT", "jsonl (default) or csv"}},
                     .run = export_log},
                    {.name = "verify",
                     .usage = "FILE|-",
                     .summary = "needs no server",
                     .words = {Kind::kFile},
                     .run = verify}},
          .examples = {"flock audit --action createFleet", "flock audit export > audit.jsonl",
                       "flock audit verify audit.jsonl"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
// audit: who did what, its export, and the proof that nothing is missing from it.
#include <boost/json.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "async/loop.h"
#include "audit/chain.h"
#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "commands/commands.h"
#include "net/http_client.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kColumns = {{"SEQ", "seq"},
                                      {"AT", "at"},
                                      {"WHO", "actor.name"},
                                      {"KIND", "actor.kind"},
                                      {"ACTION", "action"},
                                      {"ON", "resource.type"},
                                      {"NAME", "resource.name"},
                                      {"OUTCOME", "outcome"}};

// The newest page; the export has everything.
int list(Session& s) {
  s.arguments.at_most(2);
  std::string path = "/v1/audit?page_size=50";
  for (const char* name : {"from", "to", "actor", "action"}) {
    if (s.arguments.has(name))
      path += std::string("&") + name + "=" + url_encode(s.arguments.value(name));
  }
  print(s.output, s.client.get(path), kColumns, "id");
  return 0;
}

net::ClientOptions client_options(const Settings& settings) {
  net::ClientOptions options;
  options.user_agent = "flock-cli";
  options.request_time = Duration(90'000);
  if (!settings.ca_file.empty()) {
    net::TlsOptions tls;
    tls.ca_pem = read_file(settings.ca_file).value_or("");
    options.tls = net::make_tls_client(tls);
  }
  return options;
}

// Larger than memory is normal, so it goes straight to standard output.
int export_log(Session& s) {
  s.arguments.at_most(2);
  std::string path = "/v1/audit/export?format=" + url_encode(s.arguments.value("format", "jsonl"));
  for (const char* name : {"from", "to"}) {
    if (s.arguments.has(name))
      path += std::string("&") + name + "=" + url_encode(s.arguments.value(name));
  }
  const Settings& settings = s.client.settings();
  s.client.get("/v1/audit/head");  // says what is wrong with the address or the token
  Loop loop;
  int status = 0;
  std::string head;  // of the answer, until it is known to be an export; a refusal stays here
  bool is_export = false;
  const auto write = [](std::string_view text) {
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
      throw Error(Code::kInternal, "standard output cannot be written");
  };
  const auto work = [&]() -> Task<void> {
    net::HttpClient http(co_await asio::this_coro::executor, client_options(settings));
    net::Headers headers;
    headers.add("Authorization", "Bearer " + settings.token.reveal());
    const auto on_data = [&](std::string_view chunk) -> Task<void> {
      if (is_export) {
        write(chunk);
        co_return;
      }
      head += chunk;
      is_export = head.starts_with("{\"seq\":") || head.starts_with("seq,");
      if (is_export) write(head);
    };
    status = (co_await http.stream("GET", settings.server + path, headers, "", on_data)).status;
  };
  loop.run(work());
  if (status == 200) {
    if (std::fflush(stdout) != 0) throw Error(Code::kInternal, "standard output cannot be written");
    return 0;
  }
  std::string detail = "the server refused the export";
  try {
    const bj::value problem = json::parse(head);
    if (const std::string text = value_at(problem, "detail"); !text.empty()) detail = text;
  } catch (const Error&) {
    detail += ", and did not say why";
  }
  throw Error(status == 400 ? Code::kInvalidArgument : Code::kUnavailable, detail)
      .with("status", std::to_string(status));
}

int verify(Session& s) {
  s.arguments.at_most(3);
  const std::string path = s.arguments.word(2, "a file, or - for standard input");
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

int run_audit(Session& s) {
  const std::string verb = s.arguments.words.size() < 2 ? "ls" : s.arguments.words[1];
  if (verb == "ls") return list(s);
  if (verb == "export") return export_log(s);
  if (verb == "verify") return verify(s);
  unknown_verb("audit", verb, "ls|export|verify");
}

}  // namespace flock::cli

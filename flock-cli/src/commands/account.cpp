// SPDX-License-Identifier: Apache-2.0
// setup, login, whoami, auth, api.
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>

#include "base/files.h"
#include "commands/commands.h"
#include "help.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.pop_back();
  return text;
}

}  // namespace

std::string Arguments::value(const std::string& flag, const std::string& fallback) const {
  const auto found = flags.find(flag);
  return found == flags.end() ? fallback : found->second;
}
std::string Arguments::word(std::size_t index, const std::string& what) const {
  if (index < words.size()) return words[index];
  throw Error(Code::kInvalidArgument, "missing: " + what).hint(usage());
}
void Arguments::at_most(std::size_t count) const {
  if (words.size() > count)
    throw Error(Code::kInvalidArgument, "unexpected: " + words[count])
        .hint("put a text with spaces into quotation marks; " + usage());
}
std::string Arguments::usage() const {
  return words.empty() ? "flock help" : "flock help " + words[0];
}
std::string Arguments::required(const std::string& flag) const {
  if (const auto found = flags.find(flag); found != flags.end() && !found->second.empty())
    return found->second;
  throw Error(Code::kInvalidArgument, "missing: --" + flag).hint(usage());
}

std::string read_input(const std::string& path, std::size_t limit) {
  if (path != "-") {
    auto content = read_file(path, limit);
    if (!content) throw Error(Code::kNotFound, "no such file").with("file", path);
    return *content;
  }
  std::string text;
  char block[4096];
  while (const std::size_t got = std::fread(block, 1, sizeof block, stdin)) {
    text.append(block, got);
    if (text.size() > limit) throw Error(Code::kTooLarge, "standard input is too large");
  }
  return text;
}

void confirm(const Session& session, const std::string& question) {
  if (session.arguments.has("yes") || !::isatty(STDIN_FILENO) || !::isatty(STDERR_FILENO)) return;
  if (session.arguments.has("no-input"))
    throw Error(Code::kInvalidArgument, "this asks first, and --no-input forbids it")
        .hint("add --yes");
  std::fprintf(stderr, "%s [y/N] ", printable(question).c_str());
  char answer[16] = "";
  if (std::fgets(answer, sizeof answer, stdin) == nullptr || (answer[0] != 'y' && answer[0] != 'Y'))
    throw Error(Code::kCancelled, "nothing was changed");
}

void unknown_verb(const std::string& noun, const std::string& verb, const std::string& verbs) {
  std::vector<std::string> known;
  for (std::size_t start = 0; start <= verbs.size();) {
    const std::size_t end = std::min(verbs.find('|', start), verbs.size());
    known.push_back(verbs.substr(start, end - start));
    start = end + 1;
  }
  const std::string meant = nearest(verb, known);
  throw Error(Code::kInvalidArgument, "`flock " + noun + "` has no `" + verb + "`")
      .hint(meant.empty() ? "flock help " + noun : "flock " + noun + " " + meant);
}

// The key never stands on the command line, where `ps` would show it.
int run_setup(Session& s) {
  const char* variable = std::getenv("FLOCK_SETUP_KEY");
  const std::string key = s.arguments.has("setup-key-file")
                              ? trimmed(read_input(s.arguments.value("setup-key-file")))
                          : variable ? variable
                                     : "";
  if (key.empty())
    throw Error(Code::kInvalidArgument, "missing: the setup key")
        .hint("flock setup --server URL --setup-key-file FILE (- for standard input)");
  const bj::value answer = s.client.post(
      "/v1/setup",
      bj::object{{"setup_key", key},
                 {"organization", s.arguments.value("organization", "My organization")}});
  Settings settings = s.client.settings();
  settings.token = Secret(value_at(answer, "api_key.secret"));
  store_settings(settings);
  std::fprintf(
      stderr,
      "Organization %s is set up on %s; you are signed in.\nNext:  flock fleets create NAME\n",
      value_at(answer, "organization.name").c_str(), settings.server.c_str());
  return 0;
}

int run_login(Session& s) {
  if (!s.arguments.has("with-token"))
    throw Error(Code::kInvalidArgument, "missing: --with-token")
        .hint("flock login --server URL --with-token < token-file");
  Settings settings = s.client.settings();
  settings.token = Secret(trimmed(read_input("-")));
  const bj::value who = Client(settings).get("/v1/whoami");
  store_settings(settings);
  std::fprintf(stderr, "Signed in to %s as %s of %s.\n", settings.server.c_str(),
               value_at(who, "name").c_str(), value_at(who, "organization.name").c_str());
  return 0;
}

int run_whoami(Session& s) {
  s.arguments.at_most(1);
  print(s.output, s.client.get("/v1/whoami"),
        {{"KEY", "name"}, {"ORGANIZATION", "organization.name"}, {"ID", "id"}}, "id");
  return 0;
}

int run_auth(Session& s) {
  if (s.arguments.word(1, "what to do: token") != "token")
    unknown_verb("auth", s.arguments.words[1], "token");
  std::puts(s.client.settings().token.reveal().c_str());
  return 0;
}

int run_api(Session& s) {
  s.arguments.at_most(2);
  std::string path = s.arguments.word(1, "a path such as /v1/fleets");
  if (!path.starts_with('/')) path = "/" + path;
  std::string body = s.arguments.value("data");
  if (body.starts_with('@')) body = read_input(body.substr(1));
  if (body == "-") body = read_input("-");
  const std::string method = s.arguments.value("method", body.empty() ? "GET" : "POST");
  const net::Response response = s.client.raw(method, path, body);
  if (s.arguments.has("include")) {
    std::printf("HTTP/1.1 %d %s\n", response.status,
                std::string(net::reason_phrase(response.status)).c_str());
    for (const auto& [name, value] : response.headers.items())
      std::printf("%s: %s\n", name.c_str(), value.c_str());
    std::puts("");
  }
  std::fwrite(response.body.data(), 1, response.body.size(), stdout);
  std::puts("");
  if (response.status < 400) return 0;
  return response.status == 404                             ? 3
         : response.status == 401 || response.status == 403 ? 4
         : response.status == 409 || response.status == 412 ? 5
                                                            : 1;
}

}  // namespace flock::cli

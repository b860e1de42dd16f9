// SPDX-License-Identifier: Apache-2.0
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <map>

#include "base/bytes.h"
#include "dotenv.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

const std::vector<Column> kSet = {{"NAME", "name"},       {"VALUE", "value"},
                                  {"SERVICE", "service"}, {"UPDATED", "updated_at"},
                                  {"BY", "updated_by"},   {"CREATED", "created_at", true}};
const std::vector<Column> kResolved = {{"SERVICE", "service"},
                                       {"NAME", "name"},
                                       {"VALUE", "value"},
                                       {"ORIGIN", "origin"},
                                       {"OVERRIDES", "overrides"}};
constexpr const char* kHidden = "(secret)";

// Whose variables: the path before /variables, and a name for people.
struct Owner {
  std::string path, title;
};

Owner owner_of(const Session& s) {
  const Arguments& given = s.arguments;
  if (given.has("org-wide") + given.has("fleet") + given.has("device") > 1)
    throw Error(Code::kInvalidArgument, "only one of --org-wide, --fleet and --device")
        .hint(given.usage());
  if (given.has("org-wide")) {
    const bj::value me = s.client.get("/v1/whoami");
    return {"/v1/organizations/" + url_encode(value_at(me, "organization.id")),
            "the organization " + value_at(me, "organization.name")};
  }
  if (given.has("device")) {
    const std::string device = given.required("device");
    return {"/v1/devices/" + url_encode(device), "the device " + device};
  }
  const std::string fleet = s.client.settings().fleet.value;
  if (fleet.empty())
    throw Error(Code::kInvalidArgument, "whose variables? --org-wide, --fleet or --device")
        .hint(given.usage());
  return {"/v1/fleets/" + url_encode(fleet), "the fleet " + fleet};
}

std::string of_service(const Session& s) {
  return s.arguments.has("service") ? "?service=" + url_encode(s.arguments.required("service"))
                                    : "";
}

// Reads like a value in a table; JSON and YAML stay as the API has them.
void mark_secret(bj::object& item) {
  if (item.at("secret").as_bool()) item["value"] = kHidden;
}

bool is_structured(const Session& s) {
  return s.output.format == Format::kJson || s.output.format == Format::kYaml;
}

// One row for each variable of each service.
bj::value flattened(const bj::value& environment, const std::string& only) {
  bj::array items;
  for (const bj::value& service : environment.at("services").as_array()) {
    if (!only.empty() && value_at(service, "name") != only) continue;
    for (const bj::value& variable : service.at("variables").as_array()) {
      bj::object item = variable.as_object();
      std::string overrides;
      for (const bj::value& hidden : item.at("overrides").as_array())
        overrides += (overrides.empty() ? "" : ", ") + value_at(hidden, "origin");
      item["service"] = service.at("name");
      item["overrides"] = overrides;
      mark_secret(item);
      items.push_back(std::move(item));
    }
  }
  return bj::object{{"items", std::move(items)}, {"next_page_token", ""}};
}

int ls(Session& s) {
  const Owner owner = owner_of(s);
  if (s.arguments.has("device") && !s.arguments.has("own")) {
    const bj::value environment = s.client.get(owner.path + "/environment");
    if (!is_structured(s) && environment.at("services").as_array().empty())
      std::fputs("The device has no release yet; --own lists what is set for it.\n", stderr);
    print(s.output,
          is_structured(s) ? environment : flattened(environment, s.arguments.value("service")),
          kResolved, "name");
    return 0;
  }
  bj::value answer = s.client.list(owner.path + "/variables" + of_service(s), 0);
  if (!is_structured(s)) {
    for (bj::value& item : answer.at("items").as_array()) mark_secret(item.as_object());
  }
  print(s.output, answer, kSet, "name");
  return 0;
}

class NoEcho {
 public:
  NoEcho() {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    termios quiet = before_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    changed_ = ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == 0;
  }
  ~NoEcho() {
    if (changed_) ::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before_);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;

 private:
  termios before_{};
  bool changed_ = false;
};

std::string without_newline(std::string text) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

std::string ask_value(const Session& s, const std::string& name) {
  if (s.arguments.has("no-input") || ::isatty(STDIN_FILENO) == 0)
    throw Error(Code::kInvalidArgument, "missing: the value of " + name)
        .hint("flock env set " + name + " VALUE, or - to read it from standard input");
  const NoEcho quiet;
  std::fprintf(stderr, "Value of %s: ", printable(name).c_str());
  std::string value;
  for (int c; (c = std::getchar()) != EOF && c != '\n';) value += static_cast<char>(c);
  std::fputc('\n', stderr);
  return value;
}

// NAME [VALUE|-], or NAME=VALUE as often as one likes.
Assignments wanted(const Session& s) {
  const std::string first = s.arguments.word(0, "a name, or NAME=VALUE");
  Assignments out;
  if (first.find('=') == std::string::npos) {
    if (s.arguments.words.size() > 2)
      throw Error(Code::kInvalidArgument, "one NAME and its VALUE, or several NAME=VALUE")
          .hint(s.arguments.usage());
    std::string value = s.arguments.words.size() == 2 ? s.arguments.words[1] : ask_value(s, first);
    if (s.arguments.words.size() == 2 && value == "-") value = without_newline(read_input("-"));
    out.emplace_back(first, std::move(value));
    return out;
  }
  for (const std::string& word : s.arguments.words) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos)
      throw Error(Code::kInvalidArgument, "this is not NAME=VALUE").hint(s.arguments.usage());
    out.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return out;
}

void put_all(Session& s, const Owner& owner, const Assignments& assignments) {
  bj::array list;
  for (const auto& [name, value] : assignments) {
    bj::object item{{"name", name}, {"value", value}};
    if (s.arguments.has("secret")) item["secret"] = true;
    if (s.arguments.has("service")) item["service"] = s.arguments.value("service");
    list.push_back(std::move(item));
  }
  s.client.post(owner.path + "/actions/import-variables",
                bj::object{{"variables", std::move(list)}});
  std::fprintf(stderr, "%zu set for %s.\n", assignments.size(), printable(owner.title).c_str());
}

int set(Session& s) {
  const Owner owner = owner_of(s);
  const Assignments assignments = wanted(s);
  if (assignments.size() > 1) {
    put_all(s, owner, assignments);
    return 0;
  }
  const auto& [name, value] = assignments.front();
  bj::object body{{"value", value}};
  if (s.arguments.has("secret")) body["secret"] = true;
  s.client.send("PUT", owner.path + "/variables/" + url_encode(name) + of_service(s),
                bj::serialize(body));
  std::fprintf(stderr, "%s is set for %s.\n", printable(name).c_str(),
               printable(owner.title).c_str());
  return 0;
}

int unset(Session& s) {
  const Owner owner = owner_of(s);
  const std::string name = s.arguments.word(0, "a name");
  s.client.send("DELETE", owner.path + "/variables/" + url_encode(name) + of_service(s), "");
  std::fprintf(stderr, "%s is not set for %s any more.\n", printable(name).c_str(),
               printable(owner.title).c_str());
  return 0;
}

Assignments read_file_of(const Session& s) {
  const std::string path = s.arguments.word(0, "a file, or - for standard input");
  try {
    return parse_dotenv(read_input(path));
  } catch (Error& error) {
    throw std::move(error).with("file", path);
  }
}

int import_file(Session& s) {
  const Owner owner = owner_of(s);
  Assignments assignments = read_file_of(s);
  // As a shell has it, the last of one name counts.
  std::map<std::string, std::size_t> last;
  for (std::size_t i = 0; i < assignments.size(); ++i) last[assignments[i].first] = i;
  Assignments kept;
  for (std::size_t i = 0; i < assignments.size(); ++i) {
    if (last.at(assignments[i].first) == i) kept.push_back(std::move(assignments[i]));
  }
  if (kept.empty()) throw Error(Code::kInvalidArgument, "the file sets nothing");
  put_all(s, owner, kept);
  return 0;
}

// What is set for the owner itself, for --service or for every service.
std::vector<bj::object> present(Session& s, const Owner& owner) {
  const bj::value answer = s.client.list(owner.path + "/variables" + of_service(s), 0);
  std::vector<bj::object> out;
  for (const bj::value& item : answer.at("items").as_array()) {
    if (value_at(item, "service") == s.arguments.value("service")) out.push_back(item.as_object());
  }
  std::ranges::sort(out, {}, [](const bj::object& item) { return value_at(item, "name"); });
  return out;
}

int export_file(Session& s) {
  std::string text;
  for (const bj::object& item : present(s, owner_of(s))) {
    const std::string name = value_at(item, "name");
    text += item.at("secret").as_bool() ? "# " + name + " is a secret\n"
                                        : dotenv_line(name, value_at(item, "value"));
  }
  std::fputs(text.c_str(), stdout);
  return 0;
}

int diff(Session& s) {
  const Owner owner = owner_of(s);
  std::map<std::string, std::string> file;
  for (auto& [name, value] : read_file_of(s)) file[name] = value;
  std::string text;
  for (const bj::object& item : present(s, owner)) {
    const std::string name = value_at(item, "name"), value = value_at(item, "value");
    const auto found = file.find(name);
    const bool secret = item.at("secret").as_bool();
    if (secret)
      text += (found == file.end() ? "- " : "? ") + name + " is a secret\n";
    else if (found == file.end())
      text += "- " + dotenv_line(name, value);
    else if (found->second != value)
      text += "- " + dotenv_line(name, value) + "+ " + dotenv_line(name, found->second);
    if (found != file.end()) file.erase(found);
  }
  for (const auto& [name, value] : file) text += "+ " + dotenv_line(name, value);
  std::fputs(text.c_str(), stdout);
  return 0;
}

std::vector<Flag> owner_flags() {
  return {{"org-wide", "", "for every fleet of the organization"},
          {"fleet", "FLEET", "for a fleet: its slug or id", 0, Kind::kFleet},
          {"device", "DEVICE", "for one device", 0, Kind::kDevice},
          {"service", "SERVICE", "for this service only; default: every service"}};
}

}  // namespace

Command env_command() {
  const Flag secret{"secret", "", "never shown again, to nobody"};
  return {.name = "env",
          .singular = "",
          .summary = "environment variables and secrets",
          .verbs = {{.name = "ls",
                     .usage = "[--org-wide | --fleet FLEET | --device DEVICE [--own]]",
                     .summary = "of a device: what its services get, and where it comes from",
                     .flags = owner_flags() +
                              std::vector<Flag>{{"own", "", "only what is set on the device"}},
                     .run = ls},
                    {.name = "set",
                     .usage = "NAME [VALUE | -] | NAME=VALUE... [--secret]",
                     .summary = "asks for a value that is not given; - reads standard input",
                     .words = {Kind::kText},
                     .flags = owner_flags() + std::vector<Flag>{secret},
                     .run = set,
                     .repeats = true},
                    {.name = "unset",
                     .usage = "NAME",
                     .summary = "what it hid counts again",
                     .words = {Kind::kText},
                     .flags = owner_flags(),
                     .run = unset},
                    {.name = "import",
                     .usage = "FILE [--secret]",
                     .summary = "a .env file, all or nothing; - reads standard input",
                     .words = {Kind::kFile},
                     .flags = owner_flags() + std::vector<Flag>{secret},
                     .run = import_file},
                    {.name = "export",
                     .summary = "as a .env file, without secrets",
                     .flags = owner_flags(),
                     .run = export_file},
                    {.name = "diff",
                     .usage = "FILE",
                     .summary = "what an import would change",
                     .words = {Kind::kFile},
                     .flags = owner_flags(),
                     .run = diff}},
          .examples = {"flock env set LOG_LEVEL=debug --device gw-17",
                       "flock env set API_TOKEN - --secret --fleet oslo <token-file",
                       "flock env ls --device gw-17"}};
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include "complete.h"

#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "base/bytes.h"
#include "base/files.h"
#include "base/json.h"
#include "command.h"
#include "help.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

struct Candidate {
  std::string value, text;
};
using Candidates = std::vector<Candidate>;

// Where the names of a kind are listed, and what stands beside them.
struct Source {
  Kind kind;
  const char *path, *value, *text;
};
constexpr Source kSources[] = {
    {Kind::kDevice, "/v1/devices", "name", "state"},
    {Kind::kFleet, "/v1/fleets", "slug", "name"},
    {Kind::kRelease, "/v1/releases", "version", "note"},
    {Kind::kRollout, "/v1/rollouts", "id", "state"},
    {Kind::kKey, "/v1/provisioning-keys", "id", "name"},
    {Kind::kToken, "/v1/api-keys", "id", "name"},
    {Kind::kMember, "/v1/members", "id", "email"},
    {Kind::kOrganization, "/v1/organizations", "slug", "name"},
};

std::string cache_file(const Settings& settings, const Source& source) {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if ((xdg == nullptr || *xdg == 0) && home == nullptr) return "";
  const std::string folder =
      (xdg != nullptr && *xdg != 0 ? std::string(xdg) : std::string(home) + "/.cache") + "/flock";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return folder + "/names-" +
         url_encode(settings.context.value + " " + settings.server.value + " " +
                    settings.organization.value + " " + source.path);
}

// Half a minute old at most, so that the second Tab is quick and a new name is soon there.
std::string cached(const std::string& file) {
  struct stat info{};
  if (file.empty() || ::stat(file.c_str(), &info) != 0 || std::time(nullptr) - info.st_mtime > 30)
    return "";
  return read_file(file).value_or("");
}

Candidates names(Kind kind, const std::string& context) {
  Candidates out;
  for (const Source& source : kSources) {
    if (source.kind != kind) continue;
    Settings settings = load_settings({context, "", "", ""});
    settings.request_time = Duration(1000);
    const std::string file = cache_file(settings, source);
    std::string text = cached(file);
    if (text.empty()) {
      const net::Response response =
          Client(std::move(settings)).raw("GET", std::string(source.path) + "?page_size=200", "");
      if (response.status != 200) return out;
      text = response.body;
      if (!file.empty() && text.size() < (1 << 20)) write_file_atomic(file, text, 0600);
    }
    for (const bj::value& item : json::parse(text).at("items").as_array())
      out.push_back({value_at(item, source.value), value_at(item, source.text)});
  }
  return out;
}

Candidates candidates_of(Kind kind, const std::string& context) {
  Candidates out;
  switch (kind) {
    case Kind::kCommand:
      for (const Command& command : commands()) out.push_back({command.name, command.summary});
      out.push_back({"help", "help for a command or topic"});
      out.push_back({"version", "print the version"});
      return out;
    case Kind::kContext:
      for (const auto& [name, item] : load_config().contexts) out.push_back({name, item.server});
      return out;
    case Kind::kFormat:
      for (const char* name : {"table", "wide", "json", "yaml", "csv", "name"})
        out.push_back({name, ""});
      return out;
    case Kind::kRole:
      for (const char* name : {"owner", "admin", "developer", "viewer"}) out.push_back({name, ""});
      return out;
    default:
      return names(kind, context);
  }
}

// What the words before the last one have settled.
class State {
 public:
  void word(const std::string& text) {
    if (pending_ != nullptr) {
      if (pending_->name == "context") context = text;
      pending_ = nullptr;
    } else if (text.size() > 1 && text[0] == '-') {
      if (text.find('=') != std::string::npos) return;
      const Flag* flag = find(text);
      if (flag != nullptr && !flag->is_switch() && !flag->is_optional()) pending_ = flag;
    } else if (command_ == nullptr) {
      if (help_) return;
      help_ = text == "help";
      command_ = find_command(text);
      verb_ = command_ ? find_verb(*command_, "") : nullptr;
      explicit_ = verb_ != nullptr && verb_->name.empty();
    } else if (!explicit_) {
      verb_ = find_verb(*command_, text);
      explicit_ = true;
    } else {
      ++words_;
    }
  }

  Candidates last(const std::string& text) const {
    if (pending_ != nullptr) return candidates_of(pending_->kind, context);
    Candidates out;
    if (text.starts_with("-")) {
      for (const Flag& flag : verb_ ? verb_->flags + global_flags() : global_flags())
        out.push_back({"--" + flag.name, flag.text});
      return out;
    }
    if (command_ == nullptr) {
      out = candidates_of(Kind::kCommand, context);
      if (help_) {
        for (const char* topic : {"exit-codes", "environment", "formatting"})
          out.push_back({topic, "a topic"});
      }
      return out;
    }
    if (!explicit_) {
      for (const Verb& verb : command_->verbs) out.push_back({verb.name, verb.summary});
      return out;
    }
    if (verb_ == nullptr || verb_->words.empty()) return out;
    if (words_ >= verb_->words.size() && !verb_->repeats) return out;
    return candidates_of(verb_->words[std::min(words_, verb_->words.size() - 1)], context);
  }

  std::string context;

 private:
  const Flag* find(const std::string& given) const {
    const std::vector<Flag>* lists[] = {verb_ ? &verb_->flags : nullptr, &global_flags()};
    for (const std::vector<Flag>* flags : lists) {
      if (flags == nullptr) continue;
      for (const Flag& flag : *flags) {
        if (given == "--" + flag.name || (given.size() == 2 && given[1] == flag.letter))
          return &flag;
      }
    }
    return nullptr;
  }

  const Command* command_ = nullptr;
  const Verb* verb_ = nullptr;
  const Flag* pending_ = nullptr;
  bool explicit_ = false, help_ = false;
  std::size_t words_ = 0;
};

constexpr const char* kBash = R"(_flock() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do COMPREPLY+=("${line%%$'\t'*}"); done \
    < <(flock __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _flock flock
)";
constexpr const char* kZsh = R"(#compdef flock
_flock() {
  local line; local -a found
  while IFS= read -r line; do
    found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
  done < <(flock __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#found} )); then _describe flock found; else _files; fi
}
compdef _flock flock
)";
constexpr const char* kFish = R"(function __flock_complete
  set -l words (commandline -opc) (commandline -ct)
  flock __complete $words[2..-1] 2>/dev/null
end
complete -c flock -a '(__flock_complete)'
)";
constexpr const char* kPowershell =
    R"(Register-ArgumentCompleter -Native -CommandName flock -ScriptBlock {
  param($word, $ast, $position)
  $words = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
  if ($word -eq '') { $words += '' }
  flock __complete @words 2>$null | ForEach-Object {
    $value, $text = $_ -split "`t", 2
    if (-not $text) { $text = $value }
    [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $text)
  }
}
)";

// Shells put a candidate into the line as it is: a device named $(reboot) must not get there.
bool is_safe(const std::string& value) {
  return !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || std::isalnum(byte) != 0 ||
           std::string_view("._-:/@+=,%").find(c) != std::string_view::npos;
  });
}

}  // namespace

int complete(const std::vector<std::string>& words) {
  try {
    State state;
    for (std::size_t i = 0; i + 1 < words.size(); ++i) state.word(words[i]);
    const std::string last = words.empty() ? "" : words.back();
    for (const Candidate& candidate : state.last(last)) {
      if (is_safe(candidate.value) && candidate.value.starts_with(last))
        std::printf("%s\t%s\n", printable(candidate.value).c_str(),
                    printable(candidate.text).c_str());
    }
  } catch (const std::exception&) {
    // In the middle of a line of input there is no place for a message.
  }
  return 0;
}

std::string completion_script(const std::string& shell) {
  if (shell == "bash") return kBash;
  if (shell == "zsh") return kZsh;
  if (shell == "fish") return kFish;
  if (shell == "powershell") return kPowershell;
  throw Error(Code::kInvalidArgument, "no completion for `" + shell + "`")
      .hint("flock completion bash, zsh, fish or powershell");
}

}  // namespace flock::cli

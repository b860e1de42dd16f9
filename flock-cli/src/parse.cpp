// SPDX-License-Identifier: Apache-2.0
#include "parse.h"

#include <algorithm>

namespace flock::cli {
namespace {

std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

bool is_builtin(const std::string& name) { return name == "help" || name == "version"; }

// `given` is "--name" or "-x".
const Flag* match(const std::vector<Flag>& flags, const std::string& given) {
  for (const Flag& flag : flags) {
    if (given == "--" + flag.name) return &flag;
    if (flag.letter != 0 && given.size() == 2 && given[1] == flag.letter) return &flag;
  }
  return nullptr;
}

// Reads from left to right; which flags exist depends on the command and the verb met so far.
class Parser {
 public:
  explicit Parser(const std::vector<std::string>& line) : line_(line) {}

  Line read() {
    bool only_words = false;
    for (at_ = 0; at_ < line_.size(); ++at_) {
      const std::string& item = line_[at_];
      if (!only_words && item == "--")
        only_words = true;
      else if (!only_words && item != "-" && item.starts_with('-'))
        flag(item);
      else
        word(item);
    }
    check();
    return std::move(out_);
  }

 private:
  void word(const std::string& text) {
    if (out_.name.empty()) {
      out_.name = text;
      out_.command = find_command(text);
      if (out_.command != nullptr) {
        out_.arguments.command = out_.command->name;
        out_.verb = find_verb(*out_.command, "");
        explicit_verb_ = out_.verb->name.empty();
      } else if (!is_builtin(text)) {
        unknown_command(text);
      }
    } else if (out_.command != nullptr && !explicit_verb_) {
      verb(text);
    } else {
      out_.arguments.words.push_back(text);
    }
  }

  void verb(const std::string& text) {
    const Command& command = *out_.command;
    out_.verb = find_verb(command, text);
    explicit_verb_ = true;
    if (out_.verb != nullptr) return;
    std::vector<std::string> known;
    for (const Verb& verb : command.verbs) known.push_back(verb.name);
    const std::string meant = nearest(text, known);
    throw Error(Code::kInvalidArgument, "`flock " + command.name + "` has no `" + text + "`")
        .hint(meant.empty() ? "flock help " + command.name : "flock " + command.name + " " + meant);
  }

  const Flag* find(const std::string& given) const {
    if (out_.verb != nullptr) {
      if (const Flag* flag = match(out_.verb->flags, given)) return flag;
      // Before its verb a flag of any verb is read; check() compares in the end.
      for (const Verb& verb : out_.command->verbs) {
        if (const Flag* flag = match(verb.flags, given)) return flag;
      }
    }
    if (out_.name == "help" && given == "--json") return find_flag(global_flags(), "json");
    return match(global_flags(), given);
  }

  void flag(const std::string& item) {
    std::string given = item, value;
    bool has_value = false;
    if (const std::size_t equals = item.find('=');
        equals != std::string::npos && item.starts_with("--")) {
      value = item.substr(equals + 1);
      given = item.substr(0, equals);
      has_value = true;
    }
    const Flag* flag = find(given);
    if (flag == nullptr) unknown_flag(given);
    if (flag->is_switch() && has_value)
      throw Error(Code::kInvalidArgument, given + " takes no value").hint(out_.arguments.usage());
    if (!flag->is_switch() && !flag->is_optional() && !has_value) {
      if (at_ + 1 == line_.size())
        throw Error(Code::kInvalidArgument, given + " needs a value: " + flag->value)
            .hint(out_.arguments.usage());
      value = line_[++at_];
    }
    out_.arguments.flags[flag->name].push_back(value);
  }

  [[noreturn]] void unknown_flag(const std::string& given) const {
    std::vector<std::string> known;
    for (const Flag& flag : global_flags()) known.push_back(flag.name);
    if (out_.verb != nullptr) {
      for (const Flag& flag : out_.verb->flags) known.push_back(flag.name);
    }
    const std::string meant = given.starts_with("--") ? nearest(given.substr(2), known) : "";
    const std::string where = out_.command == nullptr
                                  ? "flock"
                                  : "flock " + out_.command->name +
                                        (out_.verb->name.empty() ? "" : " " + out_.verb->name);
    throw Error(Code::kInvalidArgument, "`" + where + "` has no " + given)
        .hint(meant.empty() ? out_.arguments.usage() : where + " --" + meant);
  }

  // A flag or word that another verb takes is a mistake here, not something to pass over.
  void check() const {
    if (out_.command == nullptr || out_.arguments.has("help")) return;
    const Verb& verb = *out_.verb;
    if (!explicit_verb_ && out_.command->needs_verb)
      throw Error(Code::kInvalidArgument, "missing: what to do with " + out_.command->name)
          .hint(out_.arguments.usage());
    for (const auto& [name, values] : out_.arguments.flags) {
      if (find_flag(verb.flags, name) == nullptr && find_flag(global_flags(), name) == nullptr)
        unknown_flag("--" + name);
    }
    const auto& words = out_.arguments.words;
    if (words.size() > verb.words.size() && !verb.repeats)
      throw Error(Code::kInvalidArgument, "unexpected: " + words[verb.words.size()])
          .hint("put a text with spaces into quotation marks; " + out_.arguments.usage());
  }

  const std::vector<std::string>& line_;
  std::size_t at_ = 0;
  bool explicit_verb_ = false;
  Line out_;
};

}  // namespace

Line parse_line(const std::vector<std::string>& line) { return Parser(line).read(); }

void unknown_command(const std::string& name) {
  std::vector<std::string> names{"help", "version"};
  for (const Command& command : commands()) names.push_back(command.name);
  const std::string meant = nearest(name, names);
  throw Error(Code::kInvalidArgument, "there is no command `" + name + "`")
      .hint(meant.empty() ? "flock help" : "flock " + meant);
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string found;
  std::size_t best = std::min<std::size_t>(3, name.size());
  for (const std::string& candidate : candidates) {
    if (const std::size_t d = distance(name, candidate); d < best) {
      best = d;
      found = candidate;
    }
  }
  return found;
}

}  // namespace flock::cli

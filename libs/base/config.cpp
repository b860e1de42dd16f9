// SPDX-License-Identifier: Apache-2.0
#include "base/config.h"

#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/yaml.h"

namespace flock::config {
namespace {

std::string quoted(std::string_view text) {
  std::string out;
  json::append_quoted(out, text);  // a JSON string is a YAML string
  return out;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> items;
  std::size_t start = 0;
  while (start <= text.size() && !text.empty()) {
    const std::size_t comma = std::min(text.find(',', start), text.size());
    if (comma > start) items.push_back(text.substr(start, comma - start));
    start = comma + 1;
  }
  return items;
}

std::string environment_name(const std::string& prefix, std::string_view key) {
  std::string name = prefix;
  for (const char c : key) {
    name += c == '.' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  return name;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

using Found = std::vector<std::pair<std::string, YAML::Node>>;

// Every scalar or list of a YAML document with its dotted key.
void flatten(const YAML::Node& node, const std::string& path, Found& out, int depth = 0) {
  if (depth > 16)
    throw Error(Code::kInvalidArgument, "the configuration file is nested too deeply");
  if (!node.IsMap()) {
    out.emplace_back(path, node);
    return;
  }
  std::set<std::string> seen;
  for (const auto& item : node) {
    const auto key = item.first.as<std::string>();
    if (!seen.insert(key).second)
      throw Error(Code::kInvalidArgument, "the configuration file names a key twice")
          .with("key", path.empty() ? key : path + "." + key);
    flatten(item.second, path.empty() ? key : path + "." + key, out, depth + 1);
  }
}

Found read_yaml(const std::string& path) {
  const auto text = read_file(path);
  if (!text) throw Error(Code::kNotFound, "cannot read the configuration file").with("file", path);
  Found found;
  try {
    const YAML::Node root = YAML::Load(*text);
    if (holds_more_documents(*text))
      throw Error(Code::kInvalidArgument,
                  "the configuration file holds more than one YAML document")
          .with("file", path);
    if (!root.IsNull()) flatten(root, "", found);
  } catch (const YAML::Exception& error) {
    throw Error(Code::kInvalidArgument, "the configuration file is not valid YAML")
        .with("file", path)
        .with("line", std::to_string(error.mark.line + 1))
        .with("reason", error.msg);
  }
  return found;
}

}  // namespace

std::map<std::string, std::string> environment_with_prefix(std::string_view prefix) {
  std::map<std::string, std::string> found;
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string_view item = *at;
    const std::size_t equals = item.find('=');
    if (item.starts_with(prefix) && equals != std::string_view::npos) {
      found.emplace(item.substr(0, equals), item.substr(equals + 1));
    }
  }
  return found;
}

void Schema::add_entry(Entry entry) {
  FLOCK_ASSERT(find(entry.key) == nullptr);
  entry.initial = entry.get();
  entries_.push_back(std::move(entry));
}

const Schema::Entry* Schema::find(std::string_view key) const {
  for (const Entry& entry : entries_) {
    if (entry.key == key) return &entry;
  }
  return nullptr;
}

void Schema::add(std::string key, std::string& target, std::string help) {
  Entry entry{std::move(key), std::move(help), {}, false, {}, {}, {}};
  entry.set = [&target](const std::string& text) { target = text; };
  entry.get = [&target] { return quoted(target); };
  add_entry(std::move(entry));
}

void Schema::add(std::string key, std::int64_t& target, std::string help, std::int64_t min,
                 std::int64_t max) {
  Entry entry{std::move(key), std::move(help), {}, false, {}, {}, {}};
  entry.set = [&target, min, max](const std::string& text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || number < min || number > max) {
      throw Error(Code::kInvalidArgument, "must be a whole number between " + std::to_string(min) +
                                              " and " + std::to_string(max));
    }
    target = number;
  };
  entry.get = [&target] { return std::to_string(target); };
  add_entry(std::move(entry));
}

void Schema::add(std::string key, bool& target, std::string help) {
  Entry entry{std::move(key), std::move(help), {}, false, {}, {}, {}};
  entry.set = [&target](const std::string& text) {
    if (text != "true" && text != "false") {
      throw Error(Code::kInvalidArgument, "must be true or false");
    }
    target = text == "true";
  };
  entry.get = [&target] { return target ? "true" : "false"; };
  add_entry(std::move(entry));
}

void Schema::add(std::string key, Duration& target, std::string help) {
  Entry entry{std::move(key), std::move(help), {}, false, {}, {}, {}};
  entry.set = [&target](const std::string& text) { target = parse_duration(text); };
  entry.get = [&target] { return to_string(target); };
  add_entry(std::move(entry));
}

void Schema::add(std::string key, Secret& target, std::string help) {
  Entry entry{std::move(key), std::move(help), {}, false, {}, {}, {}};
  entry.set = [&target](const std::string& text) { target = Secret(text); };
  entry.get = [&target] { return quoted(to_string(target)); };
  add_entry(std::move(entry));
}

void Schema::add(std::string key, std::vector<std::string>& target, std::string help) {
  Entry entry{std::move(key), std::move(help), {}, true, {}, {}, {}};
  entry.set = [&target](const std::string& text) { target = split_list(text); };
  entry.set_list = [&target](std::vector<std::string> items) { target = std::move(items); };
  entry.get = [&target] {
    std::string out = "[";
    for (const std::string& item : target) out += (out.size() > 1 ? ", " : "") + quoted(item);
    return out + "]";
  };
  add_entry(std::move(entry));
}

void Schema::load(const Sources& sources) {
  std::vector<Problem> problems;
  // `spelled` writes a key as this source does.
  const auto unknown = [&](const std::string& place, const std::string& name, const auto& spelled) {
    std::string detail = "is not a known key";
    std::size_t best = name.size() / 2 + 1;
    for (const Entry& entry : entries_) {
      const std::string known = spelled(entry.key);
      if (const std::size_t distance = edit_distance(name, known); distance < best) {
        best = distance;
        detail = "is not a known key; did you mean " + known + "?";
      }
    }
    problems.push_back({place, "unknown_key", detail});
  };
  const auto is_section = [&](const std::string& key) {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const Entry& e) { return e.key.starts_with(key + "."); });
  };
  const auto apply = [&](const std::string& place, const auto& change) {
    try {
      change();
    } catch (const Error& error) {
      problems.push_back({place, std::string(to_string(error.code())), error.message()});
    } catch (const YAML::Exception&) {
      problems.push_back({place, "wrong_type", "must be a list of values"});
    }
  };

  if (!sources.file.empty()) {
    for (const auto& [key, node] : read_yaml(sources.file)) {
      const std::string place = sources.file + ": " + key;
      const Entry* entry = find(key);
      if (entry == nullptr && node.IsNull() && is_section(key)) continue;  // all commented out
      if (entry == nullptr) {
        unknown(place, key, [](const std::string& known) { return known; });
      } else if (node.IsSequence() && !entry->list) {
        problems.push_back({place, "wrong_type", "must be a value"});
      } else if (node.IsSequence()) {
        apply(place, [&] { entry->set_list(node.as<std::vector<std::string>>()); });
      } else {
        apply(place, [&] { entry->set(node.IsNull() ? "" : node.as<std::string>()); });
      }
    }
  }

  for (const auto& [name, value] : sources.environment) {
    const auto entry = std::find_if(
        entries_.begin(), entries_.end(),
        [&, &wanted = name](const Entry& e) { return environment_name(prefix_, e.key) == wanted; });
    if (entry == entries_.end()) {
      unknown(name, name,
              [&](const std::string& known) { return environment_name(prefix_, known); });
    } else {
      apply(name, [&, &text = value] { entry->set(text); });
    }
  }

  for (std::size_t i = 0; i < sources.arguments.size(); ++i) {
    std::string argument = sources.arguments[i];
    if (!argument.starts_with("--")) {
      problems.push_back({argument, "unexpected", "is not a flag"});
      continue;
    }
    const std::size_t equals = argument.find('=');
    std::string key = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    std::replace(key.begin(), key.end(), '-', '_');
    const Entry* entry = find(key);
    if (entry == nullptr) {
      unknown("--" + key, "--" + key, [](const std::string& known) { return "--" + known; });
      continue;
    }
    std::string value;
    if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < sources.arguments.size()) {
      value = sources.arguments[++i];
    } else {
      problems.push_back({argument, "required", "needs a value"});
      continue;
    }
    apply("--" + key, [&] { entry->set(value); });
  }

  if (!problems.empty()) {
    throw Error(Code::kInvalidArgument, "the configuration is not valid")
        .problems(std::move(problems))
        .hint("run with --help to see every key");
  }
}

std::string Schema::print() const {
  // Keys are grouped under their sections in order of first use.
  std::string out, open;
  for (const Entry& entry : entries_) {
    const std::size_t dot = entry.key.find('.');
    const std::string section = dot == std::string::npos ? "" : entry.key.substr(0, dot);
    if (section != open && !section.empty()) out += section + ":\n";
    open = section;
    out += (section.empty() ? entry.key : "  " + entry.key.substr(dot + 1)) + ": " + entry.get() +
           "\n";
  }
  return out;
}

std::string Schema::help() const {
  std::string out;
  for (const Entry& entry : entries_) {
    std::string line = "  --" + entry.key;
    line.append(line.size() < 36 ? 36 - line.size() : 1, ' ');
    out += line + entry.help + " (default " + entry.initial + ")\n";
  }
  return out;
}

}  // namespace flock::config

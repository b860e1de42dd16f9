// SPDX-License-Identifier: Apache-2.0
#include "workload/compose_reader.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>
#include <set>

#include "workload/compose.h"

namespace flock::workload {
namespace {

template <class T>
std::optional<T> number_of(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

bool is_address(std::string_view text) {
  return !text.empty() &&
         text.find_first_not_of("0123456789abcdefABCDEF.:") == std::string_view::npos;
}

bool is_protocol(std::string_view text) { return text == "tcp" || text == "udp" || text == "sctp"; }

std::string short_form(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", number);
  return text;
}

// "8000" or "8000-8010"; {0,0} when it is neither.
std::pair<int, int> port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = number_of<int>(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : number_of<int>(text.substr(dash + 1));
  if (!first || !last || *first < 1 || *last > 65535 || *last < *first) return {0, 0};
  return {*first, *last};
}

}  // namespace

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > 63 || !std::isalnum(static_cast<unsigned char>(name[0])))
    return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
}

std::string escape(std::string_view key) {
  std::string out;
  for (const char c : key)
    out += c == '~' ? std::string("~0") : c == '/' ? std::string("~1") : std::string(1, c);
  return out;
}

void ComposeReader::problem(std::string pointer, std::string code, std::string detail) {
  if (problems.size() < 100)
    problems.push_back({std::move(pointer), std::move(code), std::move(detail)});
  else if (problems.size() == 100)
    problems.push_back({"", "too_many", "there are more problems than these"});
}

void ComposeReader::unique_keys(const YAML::Node& map, const std::string& at) {
  std::set<std::string> seen;
  for (const auto& item : map) {
    if (item.first.IsScalar() && !seen.insert(item.first.Scalar()).second)
      problem(at + "/" + escape(item.first.Scalar()), "duplicate_key", "stands twice");
  }
}

std::optional<std::int64_t> parse_bytes(std::string_view text) {
  const std::size_t letters = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto value = number_of<double>(text.substr(0, letters));
  std::string unit;
  for (const char c : text.substr(letters))
    unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (unit.size() == 2 && unit[1] == 'b') unit.pop_back();
  if (unit.size() > 1 || !value) return std::nullopt;
  const std::size_t power =
      unit.empty() || unit == "b" ? 0 : std::string_view("kmgt").find(unit) + 1;
  if (power > 4) return std::nullopt;
  const double bytes = *value * static_cast<double>(std::int64_t{1} << (10 * power));
  if (!(bytes >= 0 && bytes < 9e18)) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

std::string ComposeReader::text(const YAML::Node& node, const std::string& at) {
  if (!node.IsScalar()) {
    problem(at, "wrong_type", "must be text");
    return "";
  }
  const std::string& raw = node.Scalar();
  std::string out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] == '\0') {
      problem(at, "invalid", "must not contain a NUL character");
      return "";
    }
    if (raw[i] != '$') {
      out += raw[i];
    } else if (i + 1 < raw.size() && raw[i + 1] == '$') {
      out += '$';
      ++i;
    } else if (i + 1 < raw.size() && (raw[i + 1] == '{' || raw[i + 1] == '_' ||
                                      std::isalpha(static_cast<unsigned char>(raw[i + 1])))) {
      const std::size_t end = raw.find_first_not_of(
          "{}_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", i + 1);
      problem(
          at, "variable",
          "the variable " + raw.substr(i, end == std::string::npos ? end : end - i) +
              " is not replaced: a release is closed; write its value, or $$ for a dollar sign");
      return "";
    } else {
      out += '$';
    }
  }
  if (out.size() > 32 * 1024) problem(at, "too_long", "has more than 32 kB");
  return out;
}

bool ComposeReader::boolean(const YAML::Node& node, const std::string& at) {
  const std::string value = text(node, at);
  if (value != "true" && value != "false") problem(at, "wrong_type", "must be true or false");
  return value == "true";
}

double ComposeReader::number(const YAML::Node& node, const std::string& at, double min,
                             double max) {
  const auto value = number_of<double>(text(node, at));
  if (!value || !(*value >= min && *value <= max)) {
    problem(at, "out_of_range",
            "must be a number between " + short_form(min) + " and " + short_form(max));
    return min;
  }
  return *value;
}

std::int64_t ComposeReader::whole(const YAML::Node& node, const std::string& at, std::int64_t min,
                                  std::int64_t max) {
  const auto value = number_of<std::int64_t>(text(node, at));
  if (!value || *value < min || *value > max) {
    problem(
        at, "out_of_range",
        "must be a whole number between " + std::to_string(min) + " and " + std::to_string(max));
    return min;
  }
  return *value;
}

std::int64_t ComposeReader::bytes(const YAML::Node& node, const std::string& at) {
  const auto value = parse_bytes(text(node, at));
  if (!value) problem(at, "invalid", "must be a size such as 64m or 1g");
  return value.value_or(0);
}

Duration ComposeReader::duration(const YAML::Node& node, const std::string& at) {
  try {
    return parse_duration(text(node, at));
  } catch (const Error& error) {
    problem(at, "invalid", error.message() + "; " + error.hint());
    return Duration(0);
  }
}

std::vector<std::string> ComposeReader::list(const YAML::Node& node, const std::string& at) {
  std::vector<std::string> out;
  if (!node.IsSequence()) {
    problem(at, "wrong_type", "must be a list");
    return out;
  }
  for (std::size_t i = 0; i < node.size(); ++i)
    out.push_back(text(node[i], at + "/" + std::to_string(i)));
  return out;
}

std::vector<std::string> ComposeReader::list_or_one(const YAML::Node& node, const std::string& at) {
  if (node.IsScalar()) return {text(node, at)};
  return list(node, at);
}

std::vector<std::string> ComposeReader::words(const YAML::Node& node, const std::string& at) {
  if (!node.IsScalar()) return list(node, at);
  const std::string line = text(node, at);
  std::vector<std::string> out;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '\\' && quote != '\'' && i + 1 < line.size()) {
      word += line[++i];
      in_word = true;
    } else if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        word += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
      in_word = true;
    } else if (c == ' ' || c == '\t' || c == '\n') {
      if (in_word) out.push_back(std::move(word));
      word.clear();
      in_word = false;
    } else {
      word += c;
      in_word = true;
    }
  }
  if (quote != 0) problem(at, "invalid", "a quotation mark is not closed");
  if (in_word) out.push_back(std::move(word));
  return out;
}

std::map<std::string, std::string> ComposeReader::pairs(const YAML::Node& node,
                                                        const std::string& at) {
  std::map<std::string, std::string> out;
  if (node.IsMap()) {
    unique_keys(node, at);
    for (const auto& item : node) {
      const std::string key = item.first.Scalar(), here = at + "/" + escape(key);
      if (key.empty() || key.find_first_of(std::string_view("=\0", 2)) != std::string::npos) {
        problem(here, "invalid", "is not a name");
        continue;
      }
      if (item.second.IsNull()) {
        problem(here, "required",
                "has no value; a release does not take values from where it was made");
        continue;
      }
      out[key] = text(item.second, here);
    }
    return out;
  }
  const auto items = list(node, at);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::size_t equals = items[i].find('=');
    if (equals == std::string::npos || equals == 0) {
      problem(at + "/" + std::to_string(i), "invalid", "write it like KEY=value");
      continue;
    }
    out[items[i].substr(0, equals)] = items[i].substr(equals + 1);
  }
  return out;
}

std::vector<Port> ComposeReader::ports(const YAML::Node& node, const std::string& at) {
  std::vector<Port> out;
  if (!node.IsSequence()) problem(at, "wrong_type", "must be a list");
  for (std::size_t i = 0; node.IsSequence() && i < node.size(); ++i) {
    const std::string here = at + "/" + std::to_string(i);
    if (node[i].IsMap())
      long_port(node[i], here, out);
    else
      short_port(text(node[i], here), here, out);
    if (out.size() > 1000) {
      problem(at, "too_many", "at most 1000 ports");
      break;
    }
  }
  return out;
}

// [ip:][host:]container[/protocol], host and container may be ranges of the same size.
void ComposeReader::short_port(const std::string& whole, const std::string& at,
                               std::vector<Port>& out) {
  std::string_view rest = whole;
  Port port;
  if (const std::size_t slash = rest.rfind('/'); slash != std::string_view::npos) {
    port.protocol = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
  }
  const std::size_t last = rest.rfind(':');
  const std::pair<int, int> container =
      port_range(last == std::string_view::npos ? rest : rest.substr(last + 1));
  std::pair<int, int> host{0, 0};
  bool good = container.first > 0 && is_protocol(port.protocol);
  if (last != std::string_view::npos) {
    rest = rest.substr(0, last);
    const std::size_t ip_end = rest.rfind(':');
    std::string_view host_text = rest;
    if (ip_end != std::string_view::npos) {
      port.host_ip = rest.substr(0, ip_end);
      if (port.host_ip.starts_with('[') && port.host_ip.ends_with(']'))
        port.host_ip = port.host_ip.substr(1, port.host_ip.size() - 2);
      else
        good = good && port.host_ip.find(':') == std::string::npos;
      good = good && is_address(port.host_ip);
      host_text = rest.substr(ip_end + 1);
    }
    if (!host_text.empty()) {
      host = port_range(host_text);
      good =
          good && host.first > 0 && host.second - host.first == container.second - container.first;
    }
  }
  if (!good || container.second - container.first > 1000) {
    return problem(at, "invalid",
                   "write it like 8080:80, 127.0.0.1:8080:80/tcp or 9000-9010:9000-9010");
  }
  for (int offset = 0; offset <= container.second - container.first; ++offset) {
    port.container_port = container.first + offset;
    port.host_port = host.first == 0 ? 0 : host.first + offset;
    out.push_back(port);
  }
}

void ComposeReader::long_port(const YAML::Node& node, const std::string& at,
                              std::vector<Port>& out) {
  Port port;
  unique_keys(node, at);
  for (const auto& item : node) {
    const std::string key = item.first.Scalar(), here = at + "/" + escape(key);
    if (key == "target") {
      port.container_port = static_cast<int>(whole(item.second, here, 1, 65535));
    } else if (key == "published") {
      port.host_port = static_cast<int>(whole(item.second, here, 1, 65535));
    } else if (key == "host_ip") {
      port.host_ip = text(item.second, here);
      if (!is_address(port.host_ip)) problem(here, "invalid", "must be an IP address");
    } else if (key == "protocol") {
      port.protocol = text(item.second, here);
      if (!is_protocol(port.protocol)) problem(here, "invalid", "must be tcp, udp or sctp");
    } else if (key == "mode") {
      if (text(item.second, here) != "host")
        problem(here, "unsupported", "a port is always published on its own device: host");
    } else if (key != "name") {  // a remark for people
      problem(here, "unsupported", "`" + key + "` is not supported");
    }
  }
  if (!node["target"]) problem(at + "/target", "required", "is required");
  out.push_back(port);
}

void ComposeReader::mounts(const YAML::Node& node, const std::string& at, std::vector<Mount>& out) {
  if (!node.IsSequence()) problem(at, "wrong_type", "must be a list");
  for (std::size_t i = 0; node.IsSequence() && i < node.size(); ++i) {
    const std::string here = at + "/" + std::to_string(i);
    Mount mount =
        node[i].IsMap() ? long_mount(node[i], here) : short_mount(text(node[i], here), here);
    if (!mount.target.starts_with('/'))
      problem(here, "invalid", "the path in the container must begin with /");
    out.push_back(std::move(mount));
  }
}

// PATH or PATH:size=64m.
void ComposeReader::tmpfs(const YAML::Node& node, const std::string& at, std::vector<Mount>& out) {
  const std::vector<std::string> items = list_or_one(node, at);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const std::string here = node.IsScalar() ? at : at + "/" + std::to_string(i);
    const std::size_t colon = items[i].find(':');
    Mount mount{MountKind::kTmpfs, "", items[i].substr(0, colon), false, 0};
    if (!mount.target.starts_with('/'))
      problem(here, "invalid", "the path in the container must begin with /");
    if (colon != std::string::npos) {
      const std::string option = items[i].substr(colon + 1);
      const auto size = option.starts_with("size=") ? parse_bytes(option.substr(5)) : std::nullopt;
      if (!size) problem(here, "unsupported", "the only option is size, as in /run:size=64m");
      mount.size_bytes = size.value_or(0);
    }
    out.push_back(std::move(mount));
  }
}

Mount ComposeReader::short_mount(const std::string& whole, const std::string& at) {
  Mount mount;
  const std::size_t first = whole.find(':');
  if (first == std::string::npos) {  // an anonymous volume
    mount.target = whole;
    return mount;
  }
  mount.source = whole.substr(0, first);
  const std::size_t second = whole.find(':', first + 1);
  mount.target = whole.substr(first + 1, second == std::string::npos ? second : second - first - 1);
  const std::string mode = second == std::string::npos ? "rw" : whole.substr(second + 1);
  mount.read_only = mode == "ro";
  if (mode != "ro" && mode != "rw") problem(at, "unsupported", "the only modes are ro and rw");
  if (mount.source.starts_with('/')) {
    mount.kind = MountKind::kBind;
  } else if (mount.source.find('/') != std::string::npos || mount.source.starts_with('.') ||
             mount.source.starts_with('~')) {
    problem(at, "unsupported",
            "a relative path means nothing on a device; use an absolute path or a volume");
  }
  return mount;
}

Mount ComposeReader::long_mount(const YAML::Node& node, const std::string& at) {
  Mount mount;
  unique_keys(node, at);
  for (const auto& item : node) {
    const std::string key = item.first.Scalar(), here = at + "/" + escape(key);
    if (key == "type") {
      const std::string kind = text(item.second, here);
      if (kind == "bind")
        mount.kind = MountKind::kBind;
      else if (kind == "tmpfs")
        mount.kind = MountKind::kTmpfs;
      else if (kind != "volume")
        problem(here, "unsupported", "must be volume, bind or tmpfs");
    } else if (key == "source") {
      mount.source = text(item.second, here);
    } else if (key == "target") {
      mount.target = text(item.second, here);
    } else if (key == "read_only") {
      mount.read_only = boolean(item.second, here);
    } else if (key == "tmpfs" && item.second.IsMap() && item.second.size() == 1 &&
               item.second["size"]) {
      mount.size_bytes = bytes(item.second["size"], here + "/size");
    } else {
      problem(here, "unsupported", "`" + key + "` is not supported");
    }
  }
  if (mount.kind == MountKind::kBind && !mount.source.starts_with('/')) {
    problem(at + "/source", "unsupported",
            "a relative path means nothing on a device; use an absolute path or a volume");
  }
  return mount;
}

}  // namespace flock::workload

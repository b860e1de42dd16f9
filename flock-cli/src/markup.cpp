// SPDX-License-Identifier: Apache-2.0
// JSON and YAML as text.
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "output.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

bool is_c1(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]) == 0xc2 && i + 1 < text.size() &&
         static_cast<unsigned char>(text[i + 1]) < 0xa0;
}

std::string escape(const char* format, unsigned value) {
  char out[8];
  std::snprintf(out, sizeof out, format, value);
  return out;
}

std::string yaml_quoted(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '"' || byte == '\\')
      out += {'\\', text[i]};
    else if (byte == '\n')
      out += "\\n";
    else if (byte == '\t')
      out += "\\t";
    else if (byte < 0x20 || byte == 0x7f)
      out += escape("\\x%02x", byte);
    else if (is_c1(text, i))
      out += escape("\\x%02x", static_cast<unsigned char>(text[++i]));
    else
      out += text[i];
  }
  return out + "\"";
}

// A text that no YAML reader can take for something else stands without quotation marks.
std::string yaml_string(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  };
  std::string lower(text.substr(0, 8));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  constexpr std::string_view kWords[] = {"true", "false", "null", "yes", "no",
                                         "on",   "off",   "y",    "n"};
  const bool word = std::find(std::begin(kWords), std::end(kWords), lower) != std::end(kWords);
  const bool plain =
      !text.empty() && letter(text.front()) && std::all_of(text.begin(), text.end(), inner);
  return plain && !word ? std::string(text) : yaml_quoted(text);
}

bool is_block(const bj::value& value) {
  return (value.is_object() && !value.get_object().empty()) ||
         (value.is_array() && !value.get_array().empty());
}

void yaml(std::string& out, const bj::value& value, std::size_t indent) {
  const std::string margin(indent, ' ');
  if (value.is_object() && is_block(value)) {
    bool first = true;
    for (const auto& item : value.get_object()) {
      // The caller has written the margin of the first line.
      if (!first) out += margin;
      first = false;
      out += yaml_string(item.key()) + ":";
      const bool list = item.value().is_array();
      if (is_block(item.value())) {
        const std::size_t inner = list ? indent : indent + 2;
        out += "\n" + std::string(inner, ' ');
        yaml(out, item.value(), inner);
      } else {
        out += " ";
        yaml(out, item.value(), 0);
      }
    }
  } else if (value.is_array() && is_block(value)) {
    bool first = true;
    for (const bj::value& item : value.get_array()) {
      if (!first) out += margin;
      first = false;
      out += "- ";
      yaml(out, item, indent + 2);
    }
  } else if (value.is_string()) {
    out += yaml_string(std::string_view(value.get_string())) + "\n";
  } else {
    out += bj::serialize(value) + "\n";  // numbers, true, false, null, {} and []
  }
}

}  // namespace

std::string json_text(const bj::value& value) {
  const std::string raw = bj::serialize(value);
  std::string out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (is_c1(raw, i))
      out += escape("\\u%04x", static_cast<unsigned char>(raw[++i]));
    else if (raw[i] == 0x7f)
      out += "\\u007f";
    else
      out += raw[i];
  }
  return out;
}

std::string yaml_text(const bj::value& value) {
  std::string out;
  yaml(out, value, 0);
  return out;
}

}  // namespace flock::cli

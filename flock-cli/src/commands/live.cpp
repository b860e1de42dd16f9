// SPDX-License-Identifier: Apache-2.0
#include "commands/live.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdio>

#include "base/bytes.h"
#include "base/time.h"
#include "selection.h"

namespace flock::cli {
namespace {

constexpr std::size_t kMostDevices = 100;  // of one question

std::string one_decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.1f" : "%.0f", value);
  return text;
}

// A word is a device, or else a fleet.
void add_word(Session& s, const std::string& word, std::string& devices, std::string& fleets) {
  const auto append = [](std::string& list, const std::string& id) {
    list += (list.empty() ? "" : ",") + id;
  };
  try {
    append(devices, value_at(s.client.get("/v1/devices/" + url_encode(word)), "id"));
    return;
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound) throw;
  }
  try {
    append(fleets, value_at(s.client.get("/v1/fleets/" + url_encode(word)), "id"));
  } catch (const Error& error) {
    if (error.code() != Code::kNotFound) throw;
    throw Error(Code::kNotFound, "there is no device and no fleet " + word)
        .hint("flock devices lists the devices, flock fleets the fleets");
  }
}

}  // namespace

void Query::add(const std::string& name, const std::string& value) {
  if (value.empty()) return;
  text_ += (text_.empty() ? "?" : "&") + name + "=" + url_encode(value);
}

void add_sources(Session& s, Query& query) {
  Selection selection = selection_of(s);
  std::string devices, fleets;
  for (const std::string& word : s.arguments.words) add_word(s, word, devices, fleets);
  if (!devices.empty() && !fleets.empty())
    throw Error(Code::kInvalidArgument, "name devices or fleets, not both")
        .hint(s.arguments.usage());
  if (!s.arguments.words.empty()) {
    if (!selection.empty())
      throw Error(Code::kInvalidArgument, "names exclude --fleet, -l, --filter and --all")
          .hint(s.arguments.usage());
    query.add("device", devices);
    query.add("fleet", fleets);
    return;
  }
  if (selection.fleet.empty() && !selection.all) selection.fleet = s.client.settings().fleet.value;
  if (selection.empty())
    throw Error(Code::kInvalidArgument,
                "missing: a device or a fleet, --fleet, -l, --filter or --all")
        .hint(s.arguments.usage());
  if (selection.filter.empty()) {
    query.add("fleet", selection.fleet);
    return;
  }
  const auto found = s.client.list("/v1/devices?" + selection.query(), kMostDevices);
  for (const auto& item : found.at("items").as_array())
    devices += (devices.empty() ? "" : ",") + value_at(item, "id");
  if (devices.empty()) throw Error(Code::kNotFound, "no device matches").hint("flock devices ls");
  query.add("device", devices);
}

std::string instant(const std::string& flag, const std::string& text) {
  try {
    if (text.starts_with('-')) {
      parse_duration(text.substr(1));
      return text;
    }
    if (text.find('T') == std::string::npos) {
      parse_duration(text);
      return "-" + text;
    }
    return to_rfc3339(parse_rfc3339(text));
  } catch (const Error&) {
  }
  throw Error(Code::kInvalidArgument, "--" + flag + " is no time: " + text)
      .hint("10m, 2h, or 2026-11-24T10:00:00Z");
}

std::string bytes_text(double bytes) {
  constexpr const char* kUnits[] = {"B", "K", "M", "G", "T", "P"};
  std::size_t unit = 0;
  while (std::abs(bytes) >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return (unit == 0 ? std::to_string(static_cast<long long>(bytes)) : one_decimal(bytes)) +
         kUnits[unit];
}

std::string span_text(double seconds) {
  const auto whole = static_cast<long long>(seconds);
  if (whole < 60) return std::to_string(whole) + "s";
  if (whole < 3600) return std::to_string(whole / 60) + "m";
  if (whole < 86'400) return std::to_string(whole / 3600) + "h";
  return std::to_string(whole / 86'400) + "d";
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include "commands/deployment_plan.h"

#include <boost/json.hpp>
#include <cstdio>

#include "commands/live.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

std::int64_t number_at(const bj::value& object, const char* key) {
  return object.at(key).to_number<std::int64_t>();
}

std::string devices(std::int64_t count) {
  return std::to_string(count) + (count == 1 ? " device" : " devices");
}

// A part begins with its name, and goes on under what stands behind it.
void line(std::string& out, const char* part, const std::string& text) {
  std::string name = part;
  name.resize(10, ' ');
  out += name + printable(text) + "\n";
}

std::string joined(const bj::value& names) {
  std::string out;
  for (const bj::value& name : names.as_array())
    out += (out.empty() ? "" : ", ") + std::string(name.as_string());
  return out;
}

// ": gw-1, gw-2, ..." of `count` devices.
std::string examples(const bj::value& names, std::int64_t count) {
  const auto shown = static_cast<std::int64_t>(names.as_array().size());
  if (shown == 0) return "";
  return ": " + joined(names) + (shown < count ? ", ..." : "");
}

std::string why_out(const bj::value& outside) {
  const std::int64_t count = number_at(outside, "devices");
  const std::string reason = value_at(outside, "reason");
  const bool one = count == 1;
  const std::string why = reason == "FILTER"    ? one ? "does not match" : "do not match"
                          : reason == "REVOKED" ? one ? "is revoked" : "are revoked"
                          : one                 ? "stays in another rollout"
                                                : "stay in other rollouts";
  return std::to_string(count) + " " + why + examples(outside.at("examples"), count);
}

std::string who(const bj::value& target) {
  const bj::object& parts = target.as_object();
  std::string out;
  if (parts.contains("fleet_id")) out += " of the fleet";
  if (parts.contains("device_ids"))
    out += " on a list of " + std::to_string(parts.at("device_ids").as_array().size());
  if (parts.contains("filter")) out += " with " + value_at(target, "filter");
  return out + (value_at(target, "membership") == "DYNAMIC" ? "; who comes to match later joins"
                                                            : "; nobody joins later");
}

void add_devices(std::string& out, const bj::value& plan) {
  const bj::value& in = plan.at("devices");
  const std::int64_t count = number_at(in, "included"), offline = number_at(in, "offline"),
                     have = number_at(in, "have_it");
  line(out, "In", devices(count) + examples(in.at("examples"), count));
  if (offline > 0)
    line(out, "",
         std::to_string(offline) + " of them offline (" + std::to_string(offline * 100 / count) +
             " %)");
  if (have > 0) line(out, "", std::to_string(have) + " of them have the release already");
  const char* part = "Out";
  for (const bj::value& outside : plan.at("excluded").as_array()) {
    line(out, part, why_out(outside));
    part = "";
  }
}

std::string stage_line(std::size_t number, const bj::value& stage, bool last) {
  const std::int64_t count = number_at(stage, "devices"), reached = number_at(stage, "reached");
  std::string out = std::to_string(number) + ": " + devices(count);
  if (reached > count) out += ", " + std::to_string(reached) + " in all";
  if (const std::string soak = value_at(stage, "soak"); soak != "0s")
    out += "; watched for " + soak;
  if (stage.as_object().contains("by_hand") && !last) out += "; the next one by hand";
  return out;
}

void add_stages(std::string& out, const bj::value& plan) {
  const bj::array& stages = plan.at("stages").as_array();
  for (std::size_t i = 0; i < stages.size(); ++i)
    line(out, i == 0 ? "Stages" : "", stage_line(i + 1, stages[i], i + 1 == stages.size()));
}

void add_conflicts(std::string& out, const bj::value& plan) {
  const char* part = "Conflicts";
  for (const bj::value& conflict : plan.at("conflicts").as_array()) {
    const std::string outcome = value_at(conflict, "outcome"),
                      version = value_at(conflict, "release_version");
    const std::int64_t count = number_at(conflict, "devices");
    line(out, part,
         "rollout " + value_at(conflict, "rollout_id") + " of " +
             (version.empty() ? "a host command" : "release " + version) + " (" +
             value_at(conflict, "state") + ", priority " + value_at(conflict, "priority") +
             ") has " + devices(count) + " of " +
             (outcome == "TAKEN_OVER" ? "these: taken over from it"
              : outcome == "LEFT_OUT" ? "those meant: left out"
                                      : "these, and keeps them"));
    part = "";
  }
}

void add_platforms(std::string& out, const bj::value& plan) {
  const char* part = "Platforms";
  for (const bj::value& each : plan.at("platforms").as_array()) {
    std::string text = value_at(each, "platform") + ": " + devices(number_at(each, "devices"));
    if (!each.at("missing_images").as_array().empty())
      text += ", which would FAIL: no image of " + joined(each.at("missing_images"));
    line(out, part, text);
    part = "";
  }
}

void add_download(std::string& out, const bj::value& plan) {
  const bj::value& download = plan.at("download");
  if (number_at(download, "devices") == 0) return line(out, "Download", "nothing");
  const std::size_t unknown = download.at("unknown_images").as_array().size();
  std::string text =
      "about " + bytes_text(static_cast<double>(number_at(download, "estimated_bytes"))) + " to " +
      devices(number_at(download, "devices")) + ", as if they had no layer of it yet";
  if (unknown > 0)
    text += "; without " + std::to_string(unknown) + (unknown == 1 ? " image" : " images") +
            " whose size is not known";
  line(out, "Download", text);
}

void add_times(std::string& out, const Output& output, const bj::value& plan) {
  const std::string begins = when_text(output, value_at(plan, "begins_at"));
  line(out, "Begins", begins == "0s ago" ? "at once" : begins);
  const std::string latest = value_at(plan, "latest_end_at");
  line(out, "Ends",
       "at " + value_at(plan, "earliest_end_at") + " at the earliest, " +
           (latest.empty() ? "open to the end: " + value_at(plan, "no_latest_end")
                           : "at " + latest + " at the latest, unless it pauses"));
}

}  // namespace

std::string work_of(const bj::value& item) {
  const std::string version = value_at(item, "release.version");
  if (version.empty()) return "a host command";
  const bool both = item.as_object().contains("host_command");
  return (both ? "a host command, then release " : "release ") + printable(version);
}

std::string plan_text(const Output& output, const bj::value& plan) {
  std::string out;
  line(out, "Plan", work_of(plan) + " for devices" + who(plan.at("target")));
  add_devices(out, plan);
  add_stages(out, plan);
  add_conflicts(out, plan);
  add_platforms(out, plan);
  if (plan.as_object().contains("release")) add_download(out, plan);
  add_times(out, output, plan);
  const bj::array& obstacles = plan.at("obstacles").as_array();
  for (const bj::value& obstacle : obstacles)
    line(out, "REFUSED", std::string(obstacle.as_string()));
  out += "\nNothing was done.";
  if (obstacles.empty())
    out += " To do this, and nothing else, say the same with --plan-hash instead of --plan:\n  " +
           value_at(plan, "hash");
  return out + "\n";
}

int show_plan(const Output& output, const bj::value& plan) {
  if (output.is_table())
    std::fputs(plan_text(output, plan).c_str(), stdout);
  else
    print(output, plan, {}, "hash");
  return plan.at("obstacles").as_array().empty() ? 0 : 5;
}

}  // namespace flock::cli

// SPDX-License-Identifier: Apache-2.0
#include "commands/rollout_screen.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "base/time.h"
#include "commands/deployment_plan.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr std::size_t kBar = 18;
constexpr std::int64_t kMostDeviceLines = 20;
constexpr Duration kLinesApart{2000};  // of a rollout of many devices that makes no turn
constexpr std::size_t kMostCauses = 6, kMostGridRows = 6, kLeastGridRows = 1;

std::string bar(std::int64_t done, std::int64_t total) {
  const std::size_t full = total > 0 ? static_cast<std::size_t>(done) * kBar / total : 0;
  std::string out;
  for (std::size_t i = 0; i < kBar; ++i) out += i < full ? "█" : "░";
  return out;
}

std::int64_t count_of(const bj::value& rollout, const char* what) {
  const bj::value* counts = rollout.as_object().if_contains("counts");
  const bj::value* count = counts != nullptr ? counts->as_object().if_contains(what) : nullptr;
  return count != nullptr ? count->to_number<std::int64_t>() : 0;
}

const char* sign_of(const std::string& state, bool online) {
  if (state == "CONFIRMED") return "✓";
  if (state == "FAILED" || state == "ROLLBACK_FAILED") return "✗";
  if (state == "ROLLING_BACK" || state == "ROLLED_BACK") return "↺";
  if (state == "SUPERSEDED" || state == "SKIPPED") return "-";
  if (!online) return "○";
  return state == "WAITING" ? "·" : "…";
}

bool has_failed(const std::string& state) {
  return state == "FAILED" || state == "ROLLBACK_FAILED";
}

// "no_space: needs 412 MB" and "no_space: needs 9 MB" are one cause.
std::string cause_of(const std::string& reason) {
  return reason.empty() ? "no reason given" : reason.substr(0, reason.find(':'));
}

std::string paint_in(const Output& output, std::string line, const std::string& state) {
  const std::size_t at = line.find(state);
  if (at != std::string::npos) line.replace(at, state.size(), painted(output, state, state));
  return line;
}

// Shares are shown in percent; what a gate measures otherwise, as it is.
std::string gate_number(const bj::value& gate, const char* key) {
  const bj::value* value = gate.as_object().if_contains(key);
  if (value == nullptr || !value->is_number()) return "-";
  const std::string kind = value_at(gate, "kind");
  char text[32];
  if (kind == "metric" || kind == "query") {
    std::snprintf(text, sizeof text, "%.6g", value->to_number<double>());
    return text;
  }
  std::snprintf(text, sizeof text, "%.4g %%", value->to_number<double>() * 100);
  return text;
}

std::string gate_needs(const bj::value& gate) {
  const std::string kind = value_at(gate, "kind");
  if (kind == "webhook") return "pass";
  if (kind == "comparison") {
    char text[32];
    std::snprintf(text, sizeof text, "p > %g", gate.at("alpha").to_number<double>());
    return text;
  }
  const bool at_least = gate.as_object().contains("at_least");
  return (at_least ? "≥ " : "≤ ") + gate_number(gate, at_least ? "at_least" : "at_most");
}

bj::object gate_row(const bj::value& gate) {
  const std::string result = value_at(gate, "result");
  const char* sign = result == "PASS" ? "✓ " : result == "FAIL" ? "✗ " : "… ";
  std::string name = printable(value_at(gate, "title"));
  if (name.empty()) name = value_at(gate, "signal");
  if (value_at(gate, "dry_run") == "true") name += " (dry run)";
  return {{"gate", sign + name},
          {"now", gate_number(gate, "now")},
          {"needs", gate_needs(gate)},
          {"devices", value_at(gate, "measured_on")},
          {"since_at", value_at(gate, "since")},
          {"reason", printable(value_at(gate, "reason"))}};
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(std::move(line));
  return out;
}

std::size_t terminal_height() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
  return known ? size.ws_row : 24;
}

}  // namespace

bool rollout_has_ended(const std::string& state) {
  for (const char* end : {"COMPLETED", "FAILED", "ABORTED", "ROLLED_BACK", "SUPERSEDED"})
    if (state == end) return true;
  return false;
}

std::size_t stages_of(const bj::value& rollout) {
  const bj::value* stages = rollout.as_object().if_contains("stages");
  return stages != nullptr ? stages->as_array().size() : 0;
}

std::string gate_table(const Output& output, const bj::value& rollout) {
  const bj::value* gates = rollout.as_object().if_contains("gates");
  if (gates == nullptr || gates->as_array().empty()) return "";
  bj::array rows;
  for (const bj::value& gate : gates->as_array()) rows.push_back(gate_row(gate));
  Output plain = output;
  plain.format = Format::kTable;
  plain.columns.clear();  // they were for the rollout
  return render(plain, bj::object{{"items", std::move(rows)}},
                {{"GATE", "gate"},
                 {"NOW", "now"},
                 {"NEEDS", "needs"},
                 {"DEVICES", "devices"},
                 {"SINCE", "since_at"},
                 {"REASON", "reason"}},
                "gate");
}

void RolloutScreen::take(const net::SseEvent& event) {
  if (event.event == "rollout") rollout_ = json::parse(event.data);
  if (event.event != "device") return;
  const bj::value data = json::parse(event.data);
  Device& device = devices_[value_at(data, "device_id")];
  device.name = printable(value_at(data, "name"));
  device.state = value_at(data, "state");
  device.reason = printable(value_at(data, "reason"));
  device.stage = std::atoll(value_at(data, "stage").c_str());
  device.online = value_at(data, "online") != "false";
}

std::string RolloutScreen::head() const {
  const std::string state = value_at(rollout_, "state");
  return paint_in(
      output_,
      cut("Rollout " + value_at(rollout_, "id") + "  " + state + "  " + work_of(rollout_),
          output_.width),
      state);
}

std::string RolloutScreen::progress() const {
  const std::int64_t confirmed = count_of(rollout_, "confirmed"),
                     total = count_of(rollout_, "total");
  std::string line;
  if (const std::size_t stages = stages_of(rollout_); stages > 1)
    line = "Stage " + value_at(rollout_, "stage") + " of " + std::to_string(stages) + "   ";
  line += bar(confirmed, total) + "  " + std::to_string(confirmed) + "/" + std::to_string(total) +
          " confirmed";
  for (const auto& [key, word] : {std::pair{"failed", " failed"},
                                  {"rolling_back", " going back"},
                                  {"rolled_back", " back"},
                                  {"rollback_failed", " could not go back"},
                                  {"waiting", " waiting"}}) {
    if (const std::int64_t count = count_of(rollout_, key); count > 0)
      line += " · " + std::to_string(count) + word;
  }
  const auto away = std::count_if(devices_.begin(), devices_.end(),
                                  [](const auto& entry) { return !entry.second.online; });
  if (away > 0) line += " · " + std::to_string(away) + " offline";
  return cut(line, output_.width);
}

// One line a cause, the most frequent first.
std::vector<std::string> RolloutScreen::failures() const {
  std::map<std::string, std::vector<const Device*>> causes;
  for (const auto& [id, device] : devices_)
    if (has_failed(device.state)) causes[cause_of(device.reason)].push_back(&device);
  std::multimap<std::size_t, const std::vector<const Device*>*, std::greater<>> ordered;
  for (const auto& [cause, group] : causes) ordered.emplace(group.size(), &group);
  std::vector<std::string> out;
  for (const auto& [size, group] : ordered) {
    if (out.size() == kMostCauses) break;
    const Device& first = *group->front();
    std::string line = "✗ " + first.name;
    if (size > 1) line += " and " + std::to_string(size - 1) + " more";
    line += "   " + (first.reason.empty() ? cause_of("") : first.reason);
    out.push_back(painted(output_, "FAILED", cut(line, output_.width)));
  }
  return out;
}

// A sign for each device, in the order of the stages.
std::vector<std::string> RolloutScreen::grid(std::size_t rows) const {
  std::vector<const Device*> ordered;
  for (const auto& [id, device] : devices_) ordered.push_back(&device);
  std::sort(ordered.begin(), ordered.end(), [](const Device* a, const Device* b) {
    return std::pair(a->stage, a->name) < std::pair(b->stage, b->name);
  });
  std::vector<std::string> out;
  std::size_t column = 0, shown = 0;
  for (; shown < ordered.size(); ++shown) {
    if (column == output_.width) column = 0;
    if (column == 0) {
      if (out.size() == rows) break;
      out.emplace_back();
    }
    const Device& device = *ordered[shown];
    out.back() += painted(output_, device.state, sign_of(device.state, device.online));
    ++column;
  }
  if (shown < ordered.size())
    out.push_back("and " + std::to_string(ordered.size() - shown) + " more");
  return out;
}

std::vector<std::string> RolloutScreen::lines(std::size_t height) const {
  if (rollout_.is_null()) return {};
  std::vector<std::string> out{head(), progress(),
                               cut(printable(value_at(rollout_, "reason")), output_.width)};
  const auto add = [&](const std::vector<std::string>& block) {
    if (block.empty() || out.size() + block.size() + 1 > height) return;
    out.emplace_back();
    out.insert(out.end(), block.begin(), block.end());
  };
  add(split_lines(gate_table(output_, rollout_)));
  const std::vector<std::string> failed = failures();
  const std::size_t taken = out.size() + (failed.empty() ? 0 : failed.size() + 1);
  if (taken + kLeastGridRows + 2 <= height) add(grid(std::min(kMostGridRows, height - taken - 2)));
  add(failed);
  return out;
}

RolloutPrinter::RolloutPrinter(const Output& output)
    : output_(output),
      screen_(output),
      draws_(output.terminal && output.is_table() && output.width > 0) {
  const char* wanted = std::getenv("FLOCK_PROGRESS");
  if (wanted != nullptr && std::string_view(wanted) == "plain") draws_ = false;
}

void RolloutPrinter::show(const net::SseEvent& event) {
  if (output_.format == Format::kJson) {
    std::printf("{\"event\":\"%s\",\"data\":%s}\n", event.event.c_str(), event.data.c_str());
  } else if (draws_) {
    screen_.take(event);
    // The server tells of the rollout after its devices, and no more than five times a second.
    if (event.event == "rollout") draw();
    if (event.event == "end") say(event);
  } else {
    say(event);
  }
  std::fflush(stdout);
}

void RolloutPrinter::draw() {
  std::string out;
  if (drawn_ > 0) out = "\x1b[" + std::to_string(drawn_) + "A\x1b[J";
  const auto lines = screen_.lines(terminal_height() - 1);
  for (const std::string& line : lines) out += line + "\n";
  drawn_ = lines.size();
  std::fputs(out.c_str(), stdout);
}

void RolloutPrinter::say(const net::SseEvent& event) {
  const bj::value data = json::parse(event.data);
  const std::string clock = to_rfc3339(system_clock().now()).substr(11, 8);
  if (event.event == "device") {
    say_device(data, clock);
  } else if (event.event == "rollout") {
    say_rollout(data, clock);
  } else if (event.event == "end") {
    say_early();
    const std::string state = value_at(data, "state"), reason = value_at(data, "reason");
    std::printf("%s  %s%s\n", clock.c_str(), painted(output_, state, state).c_str(),
                (reason.empty() ? "" : " " + printable(reason)).c_str());
  }
}

void RolloutPrinter::say_device(const bj::value& device, const std::string& clock) {
  const std::string state = value_at(device, "state"), reason = value_at(device, "reason");
  const char* sign = state == "CONFIRMED" ? "✓" : state == "FAILED" ? "✗" : "…";
  std::string column = state;
  if (!reason.empty()) column.append(state.size() < 12 ? 13 - state.size() : 1, ' ');
  std::string name = printable(value_at(device, "name"));
  if (name.size() < 24) name.append(24 - name.size(), ' ');
  std::string line = clock + "  " + painted(output_, state, sign) + " " + name + " " +
                     painted(output_, state, column) + printable(reason);
  if (!told_) {
    early_.push_back({std::move(line), has_failed(state)});
  } else if (!many_ || has_failed(state)) {
    std::puts(line.c_str());
  }
}

void RolloutPrinter::say_early() {
  for (const Line& line : std::exchange(early_, {}))
    if (!many_ || line.failed) std::puts(line.text.c_str());
}

void RolloutPrinter::say_rollout(const bj::value& rollout, const std::string& clock) {
  const std::int64_t confirmed = count_of(rollout, "confirmed"), total = count_of(rollout, "total"),
                     failed = count_of(rollout, "failed");
  told_ = true;
  many_ = total > kMostDeviceLines;
  say_early();
  const std::string reason = value_at(rollout, "reason"), state = value_at(rollout, "state");
  std::string line = "rollout of " + work_of(rollout) + "  " + bar(confirmed, total) + "  " +
                     std::to_string(confirmed) + "/" + std::to_string(total) + " confirmed";
  if (failed > 0) line += ", " + std::to_string(failed) + " failed";
  std::string turn = state + std::to_string(failed);
  if (const std::size_t stages = stages_of(rollout); stages > 1) {
    line += "  stage " + value_at(rollout, "stage") + " of " + std::to_string(stages);
    turn += value_at(rollout, "stage");
  }
  if (state != "RUNNING") line += "  " + painted(output_, state, state);
  if (line == line_) return;
  const SteadyPoint now = std::chrono::steady_clock::now();
  if (many_ && turn == turn_ && now < next_line_) return;
  line_ = line;
  turn_ = turn;
  next_line_ = now + kLinesApart;
  std::printf("%s  %s\n", clock.c_str(), line.c_str());
  if (reason != std::exchange(said_, reason) && !rollout.as_object().contains("ended_at"))
    std::printf("          %s\n", printable(reason).c_str());
}

}  // namespace flock::cli

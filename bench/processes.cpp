// SPDX-License-Identifier: Apache-2.0
#include "processes.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

namespace flock::bench {
namespace {

namespace fs = std::filesystem;

struct Stat {
  pid_t parent = 0;
  double ticks = 0;
};

// Nothing of a process that is gone.
Stat stat_of(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');  // a name may hold anything, spaces too
  if (name_end == std::string::npos) return {};
  std::istringstream words(text.substr(name_end + 1));
  std::vector<std::string> fields((std::istream_iterator<std::string>(words)), {});
  // proc(5): state is field 3, ppid 4, utime 14, stime 15.
  if (fields.size() < 13) return {};
  return {static_cast<pid_t>(std::stol(fields[1])), std::stod(fields[11]) + std::stod(fields[12])};
}

// `key` in kB: Rss, or Pss, in which shared memory counts once over all who share it.
double memory_of(pid_t pid, const std::string& key) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string word; file >> word;) {
    double kilobytes = 0;
    if (word == key + ":" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

std::map<pid_t, Stat> all() {
  std::map<pid_t, Stat> out;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (std::isdigit(static_cast<unsigned char>(name[0])) != 0)
      out[static_cast<pid_t>(std::stol(name))] = stat_of(name);
  }
  return out;
}

}  // namespace

void Processes::add(const std::string& name, pid_t pid) {
  const auto known = std::ranges::find(rows_, name, [](const auto& row) { return row.first; });
  if (known == rows_.end())
    rows_.push_back({name, {pid}});
  else
    known->second.push_back(pid);
}

std::vector<Usage> Processes::now() const {
  const std::map<pid_t, Stat> stats = all();
  const double us_per_tick = 1e6 / static_cast<double>(::sysconf(_SC_CLK_TCK));
  // A child with a row of its own is not its parent's.
  std::map<pid_t, std::size_t> row_of;
  for (std::size_t row = 0; row < rows_.size(); ++row)
    for (const pid_t root : rows_[row].second) row_of[root] = row;
  std::vector<std::vector<pid_t>> members_of(rows_.size());
  for (const auto& [pid, stat] : stats) {
    auto row = row_of.find(pid);
    if (row == row_of.end()) row = row_of.find(stat.parent);
    if (row != row_of.end()) members_of[row->second].push_back(pid);
  }
  std::vector<Usage> out;
  for (const std::vector<pid_t>& members : members_of) {
    Usage& usage = out.emplace_back();
    for (const pid_t pid : members) {
      usage.cpu_us += stats.at(pid).ticks * us_per_tick;
      usage.bytes += memory_of(pid, members.size() > 1 ? "Pss" : "Rss");
    }
  }
  return out;
}

}  // namespace flock::bench

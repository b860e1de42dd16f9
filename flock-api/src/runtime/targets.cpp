// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "base/time.h"
#include "crypto/jwt.h"
#include "runtime/process.h"

namespace flock::runtime {

const std::vector<TargetEntry>& known_targets() {
  static const std::vector<TargetEntry> table = {
      {"api", "REST for people, programs and devices", targets::make_api_target, true, true},
      {"ingester", "takes what devices report", targets::make_ingester_target, false, true},
      {"scheduler", "drives rollouts", targets::make_scheduler_target, true, true},
      {"audit", "writes who did what", targets::make_audit_target},
      {"events-gateway", "tells customers what happens", targets::make_events_gateway_target},
  };
  return table;
}

std::vector<const TargetEntry*> plan(const std::vector<std::string>& wanted) {
  std::vector<Problem> problems;
  bool all = false;
  std::string names;
  for (const TargetEntry& entry : known_targets())
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  for (const std::string& name : wanted) {
    all = all || name == "all";
    const bool known =
        name == "all" || std::any_of(known_targets().begin(), known_targets().end(),
                                     [&](const TargetEntry& e) { return e.name == name; });
    if (!known)
      problems.push_back({"target", "unknown_target",
                          "there is no target `" + name + "`; there are " + names + " and all"});
  }
  if (wanted.empty()) problems.push_back({"target", "required", "name at least one target"});
  if (!problems.empty())
    throw Error(Code::kInvalidArgument, "the targets cannot be run").problems(std::move(problems));
  std::vector<const TargetEntry*> chosen;
  for (const TargetEntry& entry : known_targets()) {
    if (all || std::find(wanted.begin(), wanted.end(), entry.name) != wanted.end())
      chosen.push_back(&entry);
  }
  return chosen;
}

// Ids are times, so the newest is the last in alphabetical order: the one that seals.
std::string add_sealing_key(const std::string& directory) {
  const std::string folder = directory + "/" + kSealingFolder;
  ::mkdir(folder.c_str(), 0700);
  std::string base;
  for (const char c : to_rfc3339(system_clock().now()).substr(0, 19)) {
    if (c >= '0' && c <= '9') base += c;
  }
  std::string id = base;
  for (int again = 2; read_file(folder + "/" + id + ".key"); ++again)
    id = base + "-" + std::to_string(again);
  write_file_atomic(folder + "/" + id + ".key", to_base64(random_bytes(32)) + "\n");
  return id;
}

void generate_keys(const std::string& directory) {
  ::mkdir(directory.c_str(), 0755);
  const std::string key_file = directory + "/device-signing.pem";
  const auto stored = read_file(key_file);
  const crypto::Key key = stored ? crypto::Key::from_private_pem(*stored)
                                 : crypto::Key::generate(crypto::Key::Kind::kP256);
  if (!stored) write_file_atomic(key_file, key.private_pem());
  if (!read_file(directory + "/registry-signing.crt"))
    write_file_atomic(directory + "/registry-signing.crt",
                      crypto::self_signed_for(key, "flock registry tokens", 3650), 0644);
  crypto::JwkSet set;
  set.add(key);
  write_file_atomic(directory + "/jwks.json", set.to_json(), 0644);
  const std::string folder = directory + "/" + kSealingFolder;
  if (!std::filesystem::exists(folder) || std::filesystem::is_empty(folder))
    add_sealing_key(directory);
}

}  // namespace flock::runtime

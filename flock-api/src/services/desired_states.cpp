// SPDX-License-Identifier: Apache-2.0
#include "services/desired_states.h"

#include <map>
#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "domain/desired.h"
#include "services/host_command_json.h"
#include "services/isolated.h"
#include "services/rollout_news.h"
#include "services/sealing.h"
#include "stores/postgres/rollout_statements.h"
#include "stores/postgres/variable_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr int kStalePages = 5;
constexpr std::int64_t kBegunAtOnce = 500;

// With its secret open. Throws Error{kCorrupt} that names it when that cannot be.
domain::Variable open_variable(const crypto::SealingKeys& keys, const std::string& org,
                               const Row& row) {
  domain::Variable variable{domain::parse_level(row.text("level")).value(), row.text("service"),
                            row.text("name"), "", row.boolean("secret")};
  try {
    variable.value = variable.secret ? keys.open(row.text("sealed"), variable_context(org, row))
                                     : row.text("value");
  } catch (const Error& error) {
    if (error.code() != Code::kCorrupt) throw;
    throw Error(Code::kCorrupt, "a secret variable cannot be opened: " + error.message())
        .with("name", variable.name)
        .with("id", row.text("id"));
  }
  return variable;
}

std::vector<domain::Variable> open_variables(const crypto::SealingKeys& keys,
                                             const std::string& org, const postgres::Rows& rows) {
  std::vector<domain::Variable> out;
  for (const Row& row : rows.rows) out.push_back(open_variable(keys, org, row));
  return out;
}

// The variables of an organization and of some of its fleets and devices. What several devices
// share is opened once.
class SharedVariables {
 public:
  SharedVariables(const crypto::SealingKeys& keys, std::string org, const postgres::Rows& rows)
      : keys_(keys), org_(std::move(org)) {
    for (const Row& row : rows.rows) rows_[row.text("owner_id")].push_back(&row);
  }
  std::vector<domain::Variable> of(const Row& device) {
    std::vector<domain::Variable> out;
    for (const std::string& owner : {org_, device.text("fleet_id"), device.text("id")}) {
      const std::vector<domain::Variable>& theirs = of_owner(owner);
      out.insert(out.end(), theirs.begin(), theirs.end());
    }
    return out;
  }

 private:
  const std::vector<domain::Variable>& of_owner(const std::string& owner) {
    if (const auto known = open_.find(owner); known != open_.end()) return known->second;
    std::vector<domain::Variable> fresh;
    if (const auto rows = rows_.find(owner); rows != rows_.end())
      for (const Row* row : rows->second) fresh.push_back(open_variable(keys_, org_, *row));
    return open_.emplace(owner, std::move(fresh)).first->second;
  }

  const crypto::SealingKeys& keys_;
  std::string org_;
  std::map<std::string, std::vector<const Row*>> rows_;
  std::map<std::string, std::vector<domain::Variable>> open_;
};

// Releases as they are deployed; each is read once.
class Workloads {
 public:
  const workload::Workload& of(const std::string& release, const std::string& text) {
    const auto known = read_.find(release);
    if (known != read_.end()) return known->second;
    return read_.emplace(release, workload::from_json(text)).first->second;
  }

 private:
  std::map<std::string, workload::Workload> read_;
};

// What a device is to run by its part in a rollout. Throws Error{kUnprocessable, kNotFound} when it
// cannot run that.
device::v1::DesiredState desired_by(const Row& row, const std::string& rollout,
                                    Workloads& workloads, SharedVariables& variables) {
  const bool back = row.text("state") == "ROLLING_BACK";
  const auto release = row.optional_text(back ? "previous_release_id" : "release_id");
  device::v1::DesiredState desired;
  if (release) {
    if (back && row.boolean("back_deleted"))
      throw Error(Code::kNotFound, "the release that it ran before was deleted");
    // A key that is missing is the installation's fault, not the device's: it is waited for.
    desired =
        domain::make_desired(workloads.of(*release, row.text(back ? "back_workload" : "workload")),
                             row.text("architecture"), row.text("variant"), variables.of(row));
    desired.set_release_id(*release);
    desired.set_release_version(row.text(back ? "back_version" : "release_version"));
  }  // otherwise it has nothing to run, or had nothing and goes back to that
  if (const auto command = row.optional_text("host_command")) {
    *desired.mutable_host_command() = stored_host_command(*command);
    desired.mutable_host_command()->set_id(
        host_command_id(row.text("deployment_id"), row.integer("retries")));
    desired.mutable_host_command()->set_undo(back);
  }
  desired.set_version(row.integer("desired_version") + 1);
  desired.set_rollout_id(rollout);
  desired.set_soak_ms(row.integer("soak_ms"));
  desired.set_start_timeout_ms(row.integer("failure_timeout_ms"));
  desired.set_attempt(static_cast<std::int32_t>(row.integer("retries")));
  desired.set_created_at_ms(to_unix_ms(system_clock().now()));
  return desired;
}

// The release stays what it is, and so does all else that was decided for the device. Nothing when
// there is no difference, or when the device must keep what it has.
std::optional<device::v1::DesiredState> made_anew(const crypto::SealingKeys& keys,
                                                  const std::string& org, const Row& row,
                                                  const std::vector<domain::Variable>& variables) {
  const auto workload = workload::from_json(row.text("workload"));
  device::v1::DesiredState desired;
  try {
    if (!row.optional_text("desired")) {  // it was removed, and came back
      desired =
          domain::make_desired(workload, row.text("architecture"), row.text("variant"), variables);
      desired.set_release_id(row.text("desired_release_id"));
      desired.set_release_version(row.text("release_version"));
      desired.set_rollout_id(row.optional_text("desired_rollout_id").value_or(""));
      desired.set_soak_ms(row.optional_integer("soak_ms").value_or(0));
      return desired;
    }
    if (!desired.ParseFromString(open_desired(keys, org, row.text("id"), row.bytes("desired"))))
      throw Error(Code::kCorrupt, "a stored desired state cannot be read");
    if (domain::replace_environment(desired, workload, variables)) return desired;
  } catch (const Error& error) {
    if (error.code() != Code::kUnprocessable) throw;
    log::error("changed variables do not reach a device", error, {{"device", row.text("id")}});
  }
  return std::nullopt;
}

}  // namespace

Task<bool> DesiredStates::make_begun() {
  const auto devices =
      co_await term_.query(Scope::system(), sql::kRolloutToMake, Params().integer(kBegunAtOnce));
  std::int64_t handled = 0;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> begun;
  for (const Row& row : devices.rows)
    begun[{row.text("org_id"), row.text("rollout_id")}].push_back(row.text("device_id"));
  for (const auto& [where, ids] : begun) {
    const auto& [org, rollout] = where;
    co_await isolated("devices of a rollout", rollout, begin(org, rollout, ids, handled));
    co_await announce_rollout(bus_, org, rollout);
  }
  co_return handled > 0 && std::ssize(devices.rows) == kBegunAtOnce;
}

// What some devices of a rollout are to run, and why others cannot, by columns.
struct DesiredStates::Made {
  std::vector<std::string> devices, versions, releases, desired;
  std::vector<std::string> failed, reasons;
};

Task<void> DesiredStates::begin(std::string org, std::string rollout,
                                std::vector<std::string> devices, std::int64_t& handled) {
  std::int64_t now = 0;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    const auto locked =
        co_await tx.query(sql::kRolloutMakeLock, Params().text(org).text(rollout).texts(devices));
    if (locked.empty()) co_return;
    const Made made = co_await make(tx, locked, org, rollout);
    now = std::ssize(made.devices) + std::ssize(made.failed);
    if (!made.failed.empty())
      co_await tx.query(sql::kRolloutDevicesFailed,
                        Params().text(org).text(rollout).texts(made.failed).texts(made.reasons));
    if (made.devices.empty()) co_return;
    // Only now: a release that cannot run on a device leaves it, and its rollout, what it had.
    const auto of_devices = [&] { return Params().text(org).texts(made.devices).text(rollout); };
    co_await tx.query(sql::kSupersede, of_devices());
    co_await tx.query(sql::kWantedElsewhere, of_devices());
    co_await tx.query(sql::kRolloutDevicesMade,
                      Params().text(org).text(rollout).texts(made.devices).texts(made.versions));
    co_await tx.query(sql::kDevicesWant,
                      of_devices().texts(made.versions).texts(made.releases).texts(made.desired));
  };
  co_await term_.transaction(Scope::system(), work);
  handled += now;
}

// One whose secrets cannot be opened is left for the next round, and is not in the others' way.
Task<DesiredStates::Made> DesiredStates::make(postgres::Transaction& tx,
                                              const postgres::Rows& locked, const std::string& org,
                                              const std::string& rollout) {
  std::set<std::string> owners{org};
  for (const Row& row : locked.rows) owners.insert({row.text("fleet_id"), row.text("id")});
  const auto stored = co_await tx.query(
      sql::kVariablesOfOwners, Params().text(org).texts(std::vector(owners.begin(), owners.end())));
  SharedVariables variables(keys_, org, stored);
  Workloads workloads;
  Made made;
  for (const Row& row : locked.rows) {
    const std::string device = row.text("id");
    try {
      const auto desired = desired_by(row, rollout, workloads, variables);
      made.desired.push_back(to_base64(seal_desired(keys_, org, device, desired)));
      made.devices.push_back(device);
      made.versions.push_back(std::to_string(desired.version()));
      made.releases.push_back(desired.release_id());
    } catch (const Error& error) {
      if (error.code() == Code::kCorrupt) {
        log::error("what a device is to run cannot be made; it is tried again", error,
                   {{"device", device}});
      } else if (error.code() == Code::kUnprocessable || error.code() == Code::kNotFound) {
        made.failed.push_back(device);
        made.reasons.push_back(error.message());
      } else {
        throw;
      }
    }
  }
  co_return made;
}

// Page after page, but not so many that all else waits: the next round goes on behind the last.
Task<void> DesiredStates::rebuild_stale() {
  constexpr const char* kFirst = "00000000-0000-0000-0000-000000000000";
  for (int page = 0; page < kStalePages; ++page) {
    const auto devices = co_await term_.query(
        Scope::system(), sql::kStaleDevices,
        Params().text(stale_after_.empty() ? std::string(kFirst) : stale_after_));
    stale_after_ = devices.empty() ? "" : devices.rows.back().text("id");
    for (const Row& device : devices.rows)
      co_await isolated("a changed device", device.text("id"),
                        rebuild(device.text("org_id"), device.text("id")));
    if (stale_after_.empty()) co_return;
  }
}

Task<void> DesiredStates::rebuild(std::string org, std::string device) {
  std::string rollout;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    rollout.clear();
    const auto locked = co_await tx.query(sql::kStaleLock, Params().text(org).text(device));
    if (locked.empty()) co_return;
    const Row& row = locked.rows.front();
    const auto variables = open_variables(
        keys_, org, co_await tx.query(sql::kVariablesOfDevice, Params().text(org).text(device)));
    auto desired = made_anew(keys_, org, row, variables);
    if (!desired) {
      co_await tx.query(sql::kStaleDone, Params().text(org).text(device));
      co_return;
    }
    const std::int64_t version = row.integer("desired_version") + 1;
    desired->set_version(version);
    desired->set_created_at_ms(to_unix_ms(system_clock().now()));
    co_await tx.query(sql::kStaleRebuilt, Params().text(org).text(device).integer(version).bytes(
                                              seal_desired(keys_, org, device, *desired)));
    const auto followed =
        co_await tx.query(sql::kRolloutFollows, Params()
                                                    .text(org)
                                                    .text(device)
                                                    .text(row.optional_text("desired_rollout_id"))
                                                    .integer(version));
    if (!followed.empty()) rollout = desired->rollout_id();
  };
  co_await term_.transaction(Scope::system(), work);
  co_await announce_rollout(bus_, org, rollout);
}

}  // namespace flock::services

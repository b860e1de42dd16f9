// SPDX-License-Identifier: Apache-2.0
#include "services/releases.h"

#include <boost/json.hpp>

#include "async/deadline.h"
#include "async/scope.h"
#include "base/bytes.h"
#include "crypto/keys.h"
#include "stores/postgres/statements.h"
#include "workload/compose.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;

constexpr Duration kResolveTime{60'000};
constexpr std::size_t kWorkloadBytes = 512 * 1024;

Task<void> resolve_one(oci::RegistryClient& registry, workload::Service& service,
                       std::vector<Problem>& problems) {
  try {
    const oci::Reference reference = oci::parse_reference(service.image);
    oci::Resolved resolved = co_await registry.resolve(reference);
    service.repository = reference.name();
    service.digests = std::move(resolved.platforms);
  } catch (const Error& error) {
    if (error.code() == Code::kUnavailable || error.code() == Code::kCancelled) throw;
    problems.push_back({"/services/" + service.name + "/image",
                        std::string(to_string(error.code())), error.describe()});
  }
}

// All images at once: a release of many services waits for the slowest, not for the sum.
Task<void> resolve_all(oci::RegistryClient& registry, workload::Workload& workload,
                       std::vector<Problem>& problems) {
  TaskScope scope(co_await asio::this_coro::executor);
  std::exception_ptr failure;
  const auto keep = [&](const std::string&, std::exception_ptr error) { failure = error; };
  scope.on_failure(keep);
  for (workload::Service& service : workload.services)
    scope.spawn(service.name, resolve_one(registry, service, problems));
  co_await scope.join();
  if (failure) std::rethrow_exception(failure);
}

std::string notes_json(const std::vector<Problem>& notes) {
  boost::json::array out;
  for (const Problem& note : notes)
    out.push_back(boost::json::object{{"pointer", note.pointer}, {"detail", note.detail}});
  return boost::json::serialize(out);
}

}  // namespace

Task<LockedRelease> lock_release(oci::RegistryClient& registry, NewRelease release) {
  workload::ComposeResult parsed = workload::parse_compose(release.compose);
  std::vector<Problem> problems;
  Task<void> resolving = resolve_all(registry, parsed.workload, problems);
  co_await with_deadline(std::move(resolving), kResolveTime, "resolving the images");
  if (!problems.empty())
    throw Error(Code::kUnprocessable, "not every image of the release can be had")
        .problems(std::move(problems));

  LockedRelease locked;
  locked.workload = workload::to_json(parsed.workload);
  // Aliases let a small file stand for a huge one; a device's part must fit into one MQTT packet.
  if (locked.workload.size() > kWorkloadBytes)
    throw Error(Code::kTooLarge, "the compose file stands for too much")
        .with("bytes", std::to_string(locked.workload.size()))
        .with("limit", std::to_string(kWorkloadBytes));
  locked.version = std::move(release.version);
  locked.note = std::move(release.note);
  locked.compose = std::move(release.compose);
  locked.digest = "sha256:" + to_hex(crypto::sha256(locked.workload));
  locked.notes = notes_json(parsed.notes);
  locked.tags = std::move(release.tags);
  locked.draft = release.draft;
  co_return locked;
}

Task<ReleaseId> store_release(postgres::Transaction& tx, OrgId org, const LockedRelease& release) {
  const ReleaseId id = ReleaseId::fresh();
  std::string version = release.version.value_or("");
  if (version.empty()) {
    co_await tx.query(sql::kReleaseNumberLock, Params().text(org.text()));
    const auto next = co_await tx.query(sql::kReleaseNextVersion, Params().text(org.text()));
    version = next.rows.at(0).text("next");
  }
  Params params;
  params.text(id.text())
      .text(org.text())
      .text(version)
      .text(release.note)
      .text(release.compose)
      .text(release.workload)
      .text(release.digest)
      .text(release.notes)
      .texts(release.tags)
      .text(std::string(release.draft ? "DRAFT" : "FINAL"));
  try {
    co_await tx.query(sql::kReleaseInsert, std::move(params));
  } catch (const Error& error) {
    if (error.code() != Code::kConflict) throw;
    throw Error(Code::kConflict, "there is a release of this version already")
        .with("version", version)
        .hint("releases are never changed: choose another version");
  }
  co_return id;
}

std::string ReleaseUse::describe() const {
  std::string out;
  const auto add = [&](std::int64_t count, const char* one, const char* many) {
    if (count == 0) return;
    if (!out.empty()) out += ", ";
    out += std::to_string(count) + " " + (count == 1 ? one : many);
  };
  add(devices, "device that wants it", "devices that want it");
  add(fleets, "fleet whose release it is", "fleets whose release it is");
  add(deployments, "deployment under way", "deployments under way");
  return out;
}

Task<ReleaseUse> release_use(postgres::Transaction& tx, OrgId org, std::string release) {
  const auto rows = co_await tx.query(sql::kReleaseUse, Params().text(org.text()).text(release));
  const auto& row = rows.rows.at(0);
  co_return ReleaseUse{row.integer("devices"), row.integer("fleets"), row.integer("deployments")};
}

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
#include "services/deployment_survey.h"

#include <numeric>

#include "domain/desired.h"

namespace flock::services {
namespace {

using postgres::Row;
using postgres::Selection;
using postgres::Statement;

PlatformGroup group_of(const Row& row, const workload::Workload& workload) {
  PlatformGroup group;
  const std::string architecture = row.text("architecture"), variant = row.text("variant");
  group.platform = "linux/" + architecture + (variant.empty() ? "" : "/" + variant);
  group.devices = row.integer("count");
  group.online = row.integer("online");
  group.have_it = row.integer("have_it");
  for (const workload::Service& service : workload.services) {
    const std::string digest = domain::digest_for(service.digests, architecture, variant);
    if (digest.empty())
      group.missing.push_back(service.name);
    else
      group.images.emplace_back(service.repository, digest);
  }
  return group;
}

Task<std::vector<std::string>> examples(postgres::Transaction& tx, const Selection& selection,
                                        std::string why, TimePoint now) {
  const Statement asked = postgres::selection_examples(selection, why, now);
  const auto rows = co_await tx.query(asked.text.c_str(), asked.params);
  std::vector<std::string> names;
  for (const Row& row : rows.rows) names.push_back(row.text("name"));
  co_return names;
}

}  // namespace

std::int64_t Survey::have_it() const {
  return std::accumulate(
      groups.begin(), groups.end(), std::int64_t{0},
      [](std::int64_t sum, const PlatformGroup& group) { return sum + group.have_it; });
}

Task<Survey> survey(postgres::Transaction& tx, std::string org, Claim claim,
                    std::optional<Row> release) {
  const TimePoint now = system_clock().now();
  workload::Workload workload;
  if (release) workload = workload::from_json(release->text("workload"));
  const Selection selection = co_await selection_of(tx, org, claim);
  const Statement asked = postgres::selection_survey(
      selection, release ? std::optional(release->text("id")) : std::nullopt, now);
  const auto rows = co_await tx.query(asked.text.c_str(), asked.params);
  Survey out;
  std::int64_t one = 0, two = 0;
  for (const Row& row : rows.rows) {
    const std::string why = row.text("why");
    if (why.empty()) {
      const PlatformGroup& group = out.groups.emplace_back(group_of(row, workload));
      out.devices += group.devices;
      out.offline += group.devices - group.online;
      one ^= row.integer("one");
      two ^= row.integer("two");
    } else if (out.outside.empty() || out.outside.back().why != why) {
      out.outside.push_back({why, row.integer("count"), {}});
    } else {
      out.outside.back().devices += row.integer("count");
    }
  }
  out.members = std::to_string(out.devices) + ":" + std::to_string(one) + ":" + std::to_string(two);
  for (Outside& outside : out.outside)
    outside.names = co_await examples(tx, selection, outside.why, now);
  if (out.devices > 0) out.names = co_await examples(tx, selection, "", now);
  out.conflicts = co_await conflicts_of(tx, claim, co_await open_rollouts(tx, org), org);
  co_return out;
}

}  // namespace flock::services

// SPDX-License-Identifier: Apache-2.0
// What a deployment would do, as things are now. Nothing is written.
#include "targets/api/deployment_plan.h"

#include <set>

#include "async/deadline.h"
#include "base/bytes.h"
#include "crypto/keys.h"
#include "domain/rollout_forecast.h"
#include "services/gate_checks.h"
#include "services/host_command_json.h"
#include "services/rollout_plan_json.h"

namespace flock::targets::api {
namespace {

using services::Conflict;
using services::PlatformGroup;
using services::Survey;

// For all images together: the plan is the same without their sizes.
constexpr Duration kRegistryTime{5000};

const char* name_of(domain::Contest outcome) {
  switch (outcome) {
    case domain::Contest::kTaken:
      return "TAKEN_OVER";
    case domain::Contest::kLeftOut:
      return "LEFT_OUT";
    case domain::Contest::kRefused:
      break;
  }
  return "REFUSED";
}

bj::array conflicts_json(const Survey& survey) {
  bj::array out;
  for (const Conflict& conflict : survey.conflicts) {
    bj::object item{{"rollout_id", conflict.rollout.id},
                    {"state", conflict.rollout.state},
                    {"priority", conflict.rollout.rank.priority},
                    {"outcome", name_of(conflict.outcome)},
                    {"devices", conflict.devices},
                    {"examples", bj::value_from(conflict.names)}};
    if (const auto& version = conflict.rollout.release_version) item["release_version"] = *version;
    out.push_back(std::move(item));
  }
  return out;
}

bj::array platforms_json(const Survey& survey) {
  bj::array out;
  for (const PlatformGroup& group : survey.groups)
    out.push_back({{"platform", group.platform},
                   {"devices", group.devices},
                   {"missing_images", bj::value_from(group.missing)}});
  return out;
}

bj::array outside_json(const Survey& survey) {
  bj::array out;
  for (const services::Outside& outside : survey.outside)
    out.push_back({{"reason", outside.why},
                   {"devices", outside.devices},
                   {"examples", bj::value_from(outside.names)}});
  return out;
}

bj::array stages_json(const domain::RolloutPlan& plan, const std::vector<std::int64_t>& ends) {
  bj::array out;
  std::int64_t before = 0;
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    bj::object stage{{"devices", ends[i] - before},
                     {"reached", ends[i]},
                     {"soak", to_string(plan.stages[i].soak)}};
    if (plan.stages[i].by_hand) stage["by_hand"] = true;
    before = ends[i];
    out.push_back(std::move(stage));
  }
  return out;
}

void add_times(bj::object& out, const DeploymentRequest& request,
               const std::vector<std::int64_t>& ends, const Survey& survey) {
  const domain::Forecast seen =
      domain::forecast(request.plan, ends, survey.offline, {request.soak, request.failure_timeout},
                       to_unix_ms(system_clock().now()));
  set_time(out, "begins_at", from_unix_ms(seen.begins_ms));
  set_time(out, "earliest_end_at", from_unix_ms(seen.earliest_end_ms));
  if (seen.latest_end_ms) set_time(out, "latest_end_at", from_unix_ms(*seen.latest_end_ms));
  if (!seen.unless.empty()) out["no_latest_end"] = seen.unless;
}

// The sizes of blobs by image ("repository@digest"); of those that the registry would not tell,
// nothing.
using Sizes = std::map<std::string, std::map<std::string, std::int64_t>>;
Task<Sizes> sizes_of(Call& call, const Survey& survey) {
  std::set<std::string> images;
  for (const PlatformGroup& group : survey.groups)
    for (const auto& [repository, digest] : group.images) images.insert(repository + "@" + digest);
  Sizes sizes;
  const SteadyPoint end = std::chrono::steady_clock::now() + kRegistryTime;
  for (const std::string& image : images) {
    const auto left = std::chrono::duration_cast<Duration>(end - std::chrono::steady_clock::now());
    if (left <= Duration(0)) break;
    try {
      sizes[image] = co_await with_deadline(
          call.context.registry.blob_sizes(oci::parse_reference(image)), left, "asking for sizes");
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
    }
  }
  co_return sizes;
}

// Of a device that has nothing of it: each blob once.
std::int64_t bytes_for(const PlatformGroup& group, const Sizes& sizes,
                       std::set<std::string>& unknown) {
  std::map<std::string, std::int64_t> blobs;
  for (const auto& [repository, digest] : group.images) {
    const auto found = sizes.find(repository + "@" + digest);
    if (found == sizes.end())
      unknown.insert(repository + "@" + digest);
    else
      blobs.insert(found->second.begin(), found->second.end());
  }
  std::int64_t sum = 0;
  for (const auto& [digest, bytes] : blobs) sum += bytes;
  return sum;
}

bj::object download_json(const Survey& survey, const Sizes& sizes) {
  std::int64_t devices = 0, bytes = 0;
  std::set<std::string> unknown;
  for (const PlatformGroup& group : survey.groups) {
    if (!group.missing.empty()) continue;  // it gets nothing of it
    const std::int64_t want = group.devices - group.have_it;
    devices += want;
    if (want > 0) bytes += want * bytes_for(group, sizes, unknown);
  }
  return {{"devices", devices},
          {"estimated_bytes", bytes},
          {"unknown_images", bj::value_from(std::vector(unknown.begin(), unknown.end()))}};
}

bj::array obstacles_json(const Error& error) {
  bj::array out;
  for (const Problem& problem : error.problems()) out.push_back(bj::value(problem.detail));
  return out;
}

bj::object plan_answer(const DeploymentRequest& request, const ResolvedDeployment& resolved,
                       const Survey& survey) {
  const std::vector<std::int64_t> ends = domain::stage_ends(request.plan, survey.devices);
  bj::object out{{"hash", plan_hash(request, resolved, survey)},
                 {"target", target_json(resolved.claim.selector)},
                 {"priority", resolved.claim.rank.priority},
                 {"on_conflict", std::string(domain::name_of(resolved.claim.on_conflict))},
                 {"devices",
                  {{"included", survey.devices},
                   {"offline", survey.offline},
                   {"have_it", survey.have_it()},
                   {"examples", bj::value_from(survey.names)}}},
                 {"excluded", outside_json(survey)},
                 {"stages", stages_json(request.plan, ends)},
                 {"conflicts", conflicts_json(survey)},
                 {"platforms", platforms_json(survey)}};
  if (resolved.release)
    out["release"] = bj::object{{"id", resolved.release->text("id")},
                                {"version", resolved.release->text("version")}};
  if (request.host_command)
    out["host_command"] = services::host_command_json(*request.host_command);
  add_times(out, request, ends, survey);
  return out;
}

Task<net::Reply> plan_deployment(Call& call) {
  const DeploymentRequest request = read_deployment(read_body(call.request));
  call.validate_only();  // a plan always is
  co_await check_gates(call, request.plan);
  Survey survey;
  bj::object plan;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    tx.roll_back();
    const ResolvedDeployment resolved = co_await resolve(tx, call, request, new_uuid());
    survey = co_await services::survey(tx, call.org(), resolved.claim, resolved.release);
    plan = plan_answer(request, resolved, survey);
    plan["obstacles"] = bj::array();
    try {
      co_await services::check_reach(tx, call.org(), resolved.claim, request.allow_empty);
    } catch (const Error& error) {
      if (error.code() != Code::kConflict && error.code() != Code::kUnprocessable) throw;
      plan["obstacles"] = obstacles_json(error);
    }
  };
  co_await call.context.parts.db.transaction(call.scope(), work);
  // The registry may take its time; no connection waits for it.
  const Sizes sizes = co_await sizes_of(call, survey);
  plan["download"] = download_json(survey, sizes);
  co_return json_reply(200, plan);
}

}  // namespace

Task<void> check_gates(const Call& call, const domain::RolloutPlan& plan) {
  const Parts& parts = call.context.parts;
  auto faults = co_await services::faults_of_gates(plan, call.org(), parts.time_series,
                                                   webhook_rules(parts.settings));
  if (faults.empty()) co_return;
  for (Problem& fault : faults) fault.pointer = "/strategy" + fault.pointer;
  throw Error(Code::kInvalidArgument, "the request body is not valid").problems(std::move(faults));
}

std::string plan_hash(const DeploymentRequest& request, const ResolvedDeployment& resolved,
                      const Survey& survey) {
  bj::array conflicts, lacking;
  for (const Conflict& conflict : survey.conflicts)
    conflicts.push_back({conflict.rollout.id, name_of(conflict.outcome), conflict.devices});
  for (const PlatformGroup& group : survey.groups)
    if (!group.missing.empty()) lacking.push_back({group.platform, group.devices});
  bj::object all{{"target", target_json(resolved.claim.selector)},
                 {"priority", resolved.claim.rank.priority},
                 {"on_conflict", std::string(domain::name_of(resolved.claim.on_conflict))},
                 {"strategy", services::plan_json(request.plan)},
                 {"soak_ms", request.soak.count()},
                 {"failure_timeout_ms", request.failure_timeout.count()},
                 {"max_failed_ratio", request.max_failed_ratio},
                 {"members", survey.members},
                 {"conflicts", std::move(conflicts)},
                 {"lacking", std::move(lacking)}};
  if (resolved.release) {
    all["release"] = resolved.release->text("id");
    all["workload"] = resolved.release->text("digest");
  }
  if (request.host_command)
    all["host_command"] = services::host_command_json(*request.host_command);
  return to_hex(crypto::sha256(bj::serialize(all)));
}

void add_deployment_plan_routes(Context& c) {
  c.add(allowed("planDeployment", "POST", "/v1/deployments:plan", Permission::kDeploymentsRead),
        plan_deployment);
}

}  // namespace flock::targets::api

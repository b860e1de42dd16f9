// SPDX-License-Identifier: Apache-2.0
#include "targets/api/deployment_request.h"

#include <algorithm>

#include "services/deployment_checks.h"
#include "services/host_command_json.h"
#include "services/rollout_plan_json.h"
#include "stores/postgres/device_fields.h"

namespace flock::targets::api {
namespace {

using namespace domain;

void read_devices(json::Reader& inner, const bj::value& target, json::Reader& in,
                  Selector& selector) {
  auto devices = inner.optional_strings("device_ids", 10'000, {.min = 36, .max = 36});
  if (devices.empty()) return;
  json::Reader ids(target, "/target/device_ids", in);  // for its pointers only
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (!is_uuid(devices[i])) ids.problem(std::to_string(i), "invalid", "is no device id");
  }
  // Naming a device twice asks for nothing more.
  std::sort(devices.begin(), devices.end());
  devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
  selector.devices = std::move(devices);
}

void read_filter(json::Reader& inner, Selector& selector) {
  const auto text = inner.optional_string("filter", {.min = 1, .max = 4096});
  if (!text) return;
  try {
    selector.filter = parse_filter(*text, postgres::device_fields());
  } catch (const Error& error) {
    for (const Problem& problem : error.problems())
      inner.problem("filter", problem.code, problem.detail);
  }
}

// Nobody can be said to join where a list, or the moment, decides, nor where there is only
// something to be done once.
void read_membership(json::Reader& inner, Selector& selector, bool has_release) {
  selector.membership =
      has_release ? default_membership(selector, postgres::device_fields()) : Membership::kFrozen;
  const auto name = inner.optional_string("membership");
  if (!name) return;
  const auto given = membership_named(*name);
  if (!given) {
    inner.problem("membership", "invalid", "is none of DYNAMIC, FROZEN");
    return;
  }
  selector.membership = *given;
  if (*given == Membership::kFrozen) return;
  if (!has_release)
    return inner.problem("membership", "invalid",
                         "must be FROZEN: without a release there is nothing to join");
  if (const std::string part = momentary_part(selector.filter, postgres::device_fields());
      !part.empty())
    inner.problem("membership", "invalid",
                  "must be FROZEN: devices come and go by `" + part +
                      "` all the time, so that nobody can be said to join");
  else if (selector.devices && inner.optional_value("filter") == nullptr)
    inner.problem("membership", "invalid", "must be FROZEN: nobody can join a list");
}

void read_target(json::Reader& in, DeploymentRequest& request) {
  const bj::object* given = in.optional_object("target");
  if (given == nullptr) {
    in.problem("target", "required", "name a fleet_id, device_ids or a filter");
    return;
  }
  const bj::value target(*given);
  json::Reader inner(target, "/target", in);
  Selector& selector = request.claim.selector;
  request.fleet = inner.optional_string("fleet_id", {.min = 1, .max = 63}).value_or("");
  read_devices(inner, target, in, selector);
  read_filter(inner, selector);
  read_membership(inner, selector, !request.release.empty());
  if (request.fleet.empty() && !selector.devices && given->if_contains("filter") == nullptr)
    inner.problem("", "invalid", "name a fleet_id, device_ids or a filter");
  request.allow_empty = inner.optional_boolean("allow_empty").value_or(false);
  if (request.allow_empty && selector.membership == Membership::kFrozen)
    inner.problem("allow_empty", "invalid", "nobody would ever get it: membership is FROZEN");
  inner.finish();
}

void read_claim(json::Reader& in, services::Claim& claim) {
  claim.rank.priority =
      in.optional_integer("priority", {-kMostPriority, kMostPriority}).value_or(0);
  const std::string name = in.optional_string("on_conflict").value_or("TAKE_OVER");
  const auto on_conflict = on_conflict_named(name);
  if (!on_conflict) in.problem("on_conflict", "invalid", "is none of TAKE_OVER, REFUSE, LEAVE_OUT");
  claim.on_conflict = on_conflict.value_or(OnConflict::kTakeOver);
}

void check_deployable(const Row& release) {
  const std::string state = release.text("state"), version = release.text("version");
  if (state == "DRAFT")
    throw Error(Code::kConflict, "the release is a draft")
        .with("release", version)
        .hint("flock releases finalize " + version);
  if (state == "INVALID")
    throw Error(Code::kConflict, "the release was found invalid: " + release.text("invalid_reason"))
        .with("release", version)
        .hint("deploy another; devices that run this one keep it until then");
}

Task<std::optional<Row>> find_release(postgres::Transaction& tx, std::string org,
                                      std::string name) {
  if (name.empty()) co_return std::nullopt;
  const auto releases = co_await tx.query(sql::kReleaseShare, Params().text(org).text(name));
  if (releases.empty())
    throw Error(Code::kNotFound, "no such release")
        .with("release", name)
        .hint("flock releases lists them");
  check_deployable(releases.rows.front());
  co_return releases.rows.front();
}

Task<void> check_devices(postgres::Transaction& tx, std::string org, Selector selector) {
  const auto count = co_await tx.query(
      sql::kDevicesCount,
      Params().text(org).texts(*selector.devices).text(selector.fleet.value_or("")));
  if (count.rows.at(0).integer("count") == static_cast<std::int64_t>(selector.devices->size()))
    co_return;
  throw Error(Code::kNotFound, selector.fleet ? "not every device of the target is in that fleet"
                                              : "not every device of the target is there")
      .hint("flock devices lists them");
}

}  // namespace

DeploymentRequest read_deployment(const bj::value& body) {
  json::Reader in(body);
  DeploymentRequest request;
  if (const bj::object* command = in.optional_object("host_command")) {
    const bj::value copy(*command);
    json::Reader inner(copy, "/host_command", in);
    request.host_command = services::read_host_command(inner);
  }
  request.release = request.host_command ? in.optional_string("release_id", {.min = 1}).value_or("")
                                         : in.string("release_id");
  read_target(in, request);
  if (const bj::object* strategy = in.optional_object("strategy")) {
    const bj::value copy(*strategy);
    json::Reader inner(copy, "/strategy", in);
    request.plan = services::read_plan(inner);
    inner.finish();
  }
  read_claim(in, request.claim);
  request.soak = services::read_time(in, "soak", request.soak, Duration(86'400'000));
  request.failure_timeout = services::read_time(in, "failure_timeout", request.failure_timeout,
                                                Duration(7 * 86'400'000LL));
  if (const bj::value* given = in.optional_value("max_failed_ratio")) {
    const double ratio = given->is_number() ? given->to_number<double>() : -1;
    if (!(ratio >= 0 && ratio <= 1))
      in.problem("max_failed_ratio", "out_of_range", "must be a number between 0 and 1");
    request.max_failed_ratio = ratio;
  }
  request.plan_hash = in.optional_string("plan_hash", {.min = 64, .max = 64}).value_or("");
  in.finish();
  return request;
}

Task<ResolvedDeployment> resolve(postgres::Transaction& tx, const Call& call,
                                 const DeploymentRequest& request, std::string id) {
  const std::string org = call.org();
  const auto release = co_await find_release(tx, org, request.release);
  services::Claim claim = request.claim;
  claim.rank.deployment = std::move(id);
  Selector& selector = claim.selector;
  if (!request.fleet.empty()) {
    const auto fleets = co_await tx.query(sql::kFleetGet, Params().text(org).text(request.fleet));
    if (fleets.empty())
      throw Error(Code::kNotFound, "no such fleet")
          .with("fleet", request.fleet)
          .hint("flock fleets lists them");
    selector.fleet = fleets.rows.front().text("id");
  } else if (call.who.fleets) {
    throw Error(Code::kForbidden, "your access is limited to some fleets")
        .hint("name one of them in the target");
  }
  if (selector.devices) co_await check_devices(tx, org, selector);
  if (!request.allow_empty) co_await services::check_keys(tx, org, selector.filter, request.plan);
  co_return ResolvedDeployment{release, std::move(claim)};
}

void set_release(bj::object& out, const Row& row) {
  if (const auto id = row.optional_text("release_id"))
    out["release"] = bj::object{{"id", *id}, {"version", row.text("release_version")}};
}

bj::object target_json(const Selector& selector) {
  bj::object out;
  if (selector.fleet) out["fleet_id"] = *selector.fleet;
  if (selector.devices) out["device_ids"] = bj::value_from(*selector.devices);
  if (const std::string filter = to_text(selector.filter); !filter.empty()) out["filter"] = filter;
  out["membership"] = std::string(name_of(selector.membership));
  return out;
}

}  // namespace flock::targets::api

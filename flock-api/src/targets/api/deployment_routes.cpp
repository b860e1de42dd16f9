// SPDX-License-Identifier: Apache-2.0
// Deployments: which release is to go to whom, and how.
#include <algorithm>

#include "async/deadline.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/rollout_plan_json.h"
#include "targets/api/queries.h"

namespace flock::targets::api {
namespace {

// What the scheduler moves by itself.
constexpr std::string_view kPassing[] = {"state", "rollout_id"};
constexpr Duration kTellTime{3000};

bj::object deployment_json(const Row& row) {
  bj::object target;
  if (const auto fleet = row.optional_text("fleet_id")) {
    target["fleet_id"] = *fleet;
  } else {
    target["device_ids"] =
        bj::value_from(row.optional_texts("device_ids").value_or(std::vector<std::string>()));
  }
  bj::object out{
      {"id", row.text("id")},
      {"release", {{"id", row.text("release_id")}, {"version", row.text("release_version")}}},
      {"target", std::move(target)},
      {"strategy", services::plan_json(services::stored_plan(row.text("strategy")))},
      {"soak", to_string(Duration(row.integer("soak_ms")))},
      {"failure_timeout", to_string(Duration(row.integer("failure_timeout_ms")))},
      {"max_failed_ratio", row.real("max_failed_ratio")},
      {"state", row.text("state")}};
  if (const auto who = row.optional_text("created_by")) out["created_by"] = *who;
  if (const auto rollout = row.optional_text("rollout_id")) out["rollout_id"] = *rollout;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

struct Target {
  std::string fleet;
  std::vector<std::string> devices;
};

Target read_target(json::Reader& in) {
  Target target;
  const bj::object* given = in.optional_object("target");
  if (given == nullptr) {
    in.problem("target", "required", "name a fleet_id or device_ids");
    return target;
  }
  const bj::value copy(*given);
  json::Reader inner(copy, "/target", in);
  target.fleet = inner.optional_string("fleet_id", {.min = 1, .max = 63}).value_or("");
  target.devices = inner.optional_strings("device_ids", 10'000, {.min = 36, .max = 36});
  json::Reader ids(copy, "/target/device_ids", in);  // for its pointers only
  for (std::size_t i = 0; i < target.devices.size(); ++i) {
    if (!is_uuid(target.devices[i])) ids.problem(std::to_string(i), "invalid", "is no device id");
  }
  // Naming a device twice asks for nothing more.
  std::sort(target.devices.begin(), target.devices.end());
  target.devices.erase(std::unique(target.devices.begin(), target.devices.end()),
                       target.devices.end());
  if (target.fleet.empty() == target.devices.empty())
    inner.problem("", "invalid", "name either a fleet_id or device_ids");
  inner.finish();
  return target;
}

Duration read_duration(json::Reader& in, const char* key, Duration fallback, Duration most) {
  const auto text = in.optional_string(key);
  if (!text) return fallback;
  try {
    const Duration value = parse_duration(*text);
    if (value <= most) return value;
    in.problem(key, "out_of_range", "must be at most " + to_string(most));
  } catch (const Error& error) {
    in.problem(key, "invalid", error.hint());
  }
  return fallback;
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

// What a new deployment is about: the release, and a fleet or devices that are there.
Task<Params> new_deployment(postgres::Transaction& tx, const Call& call, std::string id,
                            std::string release_name, const Target& target) {
  const std::string org = call.org();
  const auto releases =
      co_await tx.query(sql::kReleaseShare, Params().text(org).text(release_name));
  if (releases.empty())
    throw Error(Code::kNotFound, "no such release")
        .with("release", release_name)
        .hint("flock releases lists them");
  check_deployable(releases.rows.front());
  Params params;
  params.text(id).text(org).text(releases.rows.front().text("id"));
  if (!target.fleet.empty()) {
    const auto fleets = co_await tx.query(sql::kFleetGet, Params().text(org).text(target.fleet));
    if (fleets.empty())
      throw Error(Code::kNotFound, "no such fleet")
          .with("fleet", target.fleet)
          .hint("flock fleets lists them");
    params.text(fleets.rows.front().text("id")).text(std::nullopt);
  } else {
    if (call.who.fleets)
      throw Error(Code::kForbidden, "your access is limited to some fleets")
          .hint("name one of them as the target, not devices");
    const auto count =
        co_await tx.query(sql::kDevicesCount, Params().text(org).texts(target.devices));
    if (count.rows.at(0).integer("count") != static_cast<std::int64_t>(target.devices.size()))
      throw Error(Code::kNotFound, "not every device of the target is there")
          .hint("flock devices lists them");
    params.text(std::nullopt).texts(target.devices);
  }
  co_return params;
}

// The scheduler also looks by itself, so a broker that is away holds nobody up.
Task<void> tell_created(Call& call, std::string id) {
  internal::v1::DeploymentCreated created;
  created.set_org_id(call.org());
  created.set_deployment_id(id);
  created.set_at_ms(to_unix_ms(system_clock().now()));
  mqtt::Message told;
  told.topic = "flock/internal/v1/deployment/created";
  told.payload = created.SerializeAsString();
  try {
    co_await with_deadline(call.context.parts.bus.publish(std::move(told)), kTellTime,
                           "telling of a deployment");
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::warn("nobody was told of a deployment", error, {{"deployment", id}});
  }
}

Task<net::Reply> create_deployment(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string release_name = in.string("release_id");
  const Target target = read_target(in);
  domain::RolloutPlan plan;
  if (const bj::object* strategy = in.optional_object("strategy")) {
    const bj::value copy(*strategy);
    json::Reader inner(copy, "/strategy", in);
    plan = services::read_plan(inner);
    inner.finish();
  }
  const Duration soak = read_duration(in, "soak", Duration(5000), Duration(86'400'000));
  const Duration timeout =
      read_duration(in, "failure_timeout", Duration(600'000), Duration(7 * 86'400'000LL));
  double ratio = 1;
  if (const bj::value* given = in.optional_value("max_failed_ratio")) {
    if (given->is_number()) ratio = given->to_number<double>();
    if (!given->is_number() || !(ratio >= 0 && ratio <= 1))
      in.problem("max_failed_ratio", "out_of_range", "must be a number between 0 and 1");
  }
  in.finish();

  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    Params params = co_await new_deployment(tx, call, id, release_name, target);
    params.integer(soak.count()).integer(timeout.count()).real(ratio);
    params.text(bj::serialize(services::plan_json(plan))).text(call.who.key());
    co_await tx.query(sql::kDeploymentInsert, std::move(params));
    const auto rows = co_await tx.query(sql::kDeploymentGet, Params().text(call.org()).text(id));
    const bj::object made = deployment_json(rows.rows.at(0));
    co_return Change{"deployment",
                     id,
                     release_name,
                     call.answer(201, made, kPassing),
                     {{"target", made.at("target")}, {"release", made.at("release")}}};
  };
  co_return co_await call.mutate(work, [&] { return tell_created(call, id); });
}

Task<net::Reply> get_deployment(Call& call) {
  const DeploymentId id = DeploymentId::parse(call.parameter("id"));
  const auto rows =
      co_await call.query(sql::kDeploymentGet, Params().text(call.org()).text(id.text()));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such deployment").with("deployment", id.text());
  co_return call.answer(200, deployment_json(rows.rows.front()), kPassing);
}

Task<net::Reply> list_deployments(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kDeploymentList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(deployment_json(row));
  co_return list_reply(std::move(items), page);
}

}  // namespace

void add_deployment_routes(Context& c) {
  constexpr auto kReads = Permission::kDeploymentsRead;
  c.add(allowed("listDeployments", "GET", "/v1/deployments", kReads), list_deployments);
  c.add(allowed("createDeployment", "POST", "/v1/deployments", Permission::kDeploymentsWrite),
        create_deployment);
  c.add(allowed("getDeployment", "GET", "/v1/deployments/{id}", kReads), get_deployment);
}

}  // namespace flock::targets::api

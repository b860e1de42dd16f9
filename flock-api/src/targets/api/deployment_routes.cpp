// SPDX-License-Identifier: Apache-2.0
// Deployments: which release is to go to whom, and how.
#include "async/deadline.h"
#include "base/bytes.h"
#include "base/log.h"
#include "crypto/keys.h"
#include "flock/internal/v1/internal.pb.h"
#include "services/deployment_checks.h"
#include "services/gate_checks.h"
#include "services/host_command_json.h"
#include "services/rollout_plan_json.h"
#include "services/sealing.h"
#include "stores/postgres/deployment_row.h"
#include "stores/postgres/gate_statements.h"
#include "targets/api/deployment_plan.h"
#include "targets/api/queries.h"

namespace flock::targets::api {
namespace {

// What the scheduler moves by itself.
constexpr std::string_view kPassing[] = {"state", "rollout_id"};
constexpr Duration kTellTime{3000};

bj::object deployment_json(const Row& row) {
  const services::Claim claim = services::stored_claim(row);
  bj::object out{{"id", row.text("id")},
                 {"target", target_json(claim.selector)},
                 {"priority", claim.rank.priority},
                 {"on_conflict", std::string(name_of(claim.on_conflict))},
                 {"strategy", services::plan_json(services::stored_plan(row.text("strategy")))},
                 {"soak", to_string(Duration(row.integer("soak_ms")))},
                 {"failure_timeout", to_string(Duration(row.integer("failure_timeout_ms")))},
                 {"max_failed_ratio", row.real("max_failed_ratio")},
                 {"state", row.text("state")}};
  set_release(out, row);
  if (const auto command = row.optional_text("host_command"))
    out["host_command"] = json::parse(*command);
  if (const auto who = row.optional_text("created_by")) out["created_by"] = *who;
  if (const auto rollout = row.optional_text("rollout_id")) out["rollout_id"] = *rollout;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

Params insert_params(const Call& call, const DeploymentRequest& request,
                     const ResolvedDeployment& resolved) {
  const services::Claim& claim = resolved.claim;
  return postgres::DeploymentRow{
      .id = claim.rank.deployment,
      .org = call.org(),
      .release = resolved.release ? std::optional(resolved.release->text("id")) : std::nullopt,
      .host_command =
          request.host_command
              ? std::optional(bj::serialize(services::host_command_json(*request.host_command)))
              : std::nullopt,
      .fleet = claim.selector.fleet,
      .devices = claim.selector.devices,
      .filter = to_text(claim.selector.filter),
      .membership = std::string(name_of(claim.selector.membership)),
      .priority = claim.rank.priority,
      .on_conflict = std::string(name_of(claim.on_conflict)),
      .soak = request.soak,
      .failure_timeout = request.failure_timeout,
      .max_failed_ratio = request.max_failed_ratio,
      .strategy = bj::serialize(services::plan_json(request.plan)),
      .created_by = call.who.key()}
      .params();
}

// They are no part of the strategy that everybody reads.
Task<void> keep_secrets(postgres::Transaction& tx, const Call& call, std::string deployment,
                        const domain::RolloutPlan& plan) {
  for (std::size_t i = 0; i < plan.gates.size(); ++i) {
    const domain::Gate& gate = plan.gates[i];
    if (gate.kind != domain::GateKind::kWebhook) continue;
    const std::string id = new_uuid();
    std::string sealed = keys_of(call.context.parts)
                             .seal(gate.secret.reveal(), services::gate_context(call.org(), id));
    Params params = Params().text(id).text(call.org()).text(deployment);
    params.integer(static_cast<std::int64_t>(i)).text(std::move(sealed));
    co_await tx.query(sql::kGateSecretInsert, std::move(params));
  }
}

// What is to run on machines is in the audit log, but for what may be secret or long.
bj::object audited(const bj::object& made) {
  bj::object out{{"target", made.at("target")}};
  if (const bj::value* release = made.if_contains("release")) out["release"] = *release;
  const bj::value* given = made.if_contains("host_command");
  if (given == nullptr) return out;
  bj::object command = given->as_object();
  command.erase("environment");
  if (const bj::value* script = command.if_contains("script")) {
    const bj::string& text = script->as_string();
    command["script"] = "sha256:" + to_hex(crypto::sha256({text.data(), text.size()}));
  }
  out["host_command"] = std::move(command);
  return out;
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

Task<void> check_plan(postgres::Transaction& tx, const Call& call, const DeploymentRequest& request,
                      const ResolvedDeployment& resolved) {
  if (request.plan_hash.empty()) co_return;
  const auto seen = co_await services::survey(tx, call.org(), resolved.claim, resolved.release);
  if (plan_hash(request, resolved, seen) == request.plan_hash) co_return;
  throw Error(Code::kPreconditionFailed,
              "the plan is not the same any more: devices, their rollouts or what is asked for "
              "have changed since")
      .with("devices", std::to_string(seen.devices))
      .hint("look at the plan again, and send its hash: flock deploy --plan");
}

Task<net::Reply> create_deployment(Call& call) {
  const DeploymentRequest request = read_deployment(read_body(call.request));
  co_await check_gates(call, request.plan);
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const ResolvedDeployment resolved = co_await resolve(tx, call, request, id);
    co_await check_plan(tx, call, request, resolved);
    co_await services::check_reach(tx, call.org(), resolved.claim, request.allow_empty);
    co_await tx.query(sql::kDeploymentInsert, insert_params(call, request, resolved));
    co_await keep_secrets(tx, call, id, request.plan);
    const auto rows = co_await tx.query(sql::kDeploymentGet, Params().text(call.org()).text(id));
    const bj::object made = deployment_json(rows.rows.at(0));
    co_return Change{"deployment", id, request.release.empty() ? "host command" : request.release,
                     call.answer(201, made, kPassing), audited(made)};
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

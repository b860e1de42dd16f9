// SPDX-License-Identifier: Apache-2.0
// Who may call what: every operation of the document against every role, every scope, every way of
// not being let in, and another tenant. What is expected stands here once more, apart from the
// code; an operation that is missing here fails the test.
#include <gtest/gtest.h>

#include <cstdio>

#include "domain/rbac.h"
#include "services/credentials.h"
#include "targets/api_itest.h"
#include "targets/itest_document.h"
#include "testing/run_task.h"

namespace flock::targets::itest {
namespace {

struct Expected {
  const char* operation;
  const char* least;  // "public", "signed_in" or a role
  const char* scope;
  bool in_fleets = true;  // also for who is limited to fleets
};
constexpr Expected kExpected[] = {
    {"setUp", "public", ""},
    {"getSignInConfig", "public", ""},
    {"getRegistryToken", "public", ""},
    {"getKeys", "public", ""},
    {"getOpenApi", "public", ""},
    {"registerDevice", "public", ""},
    {"renewDeviceToken", "public", ""},
    {"whoAmI", "signed_in", ""},
    {"listOrganizations", "signed_in", ""},
    {"createOrganization", "signed_in", ""},
    {"acceptInvitation", "signed_in", ""},
    {"getOrganization", "viewer", "organization:read"},
    {"changeOrganization", "admin", "organization:write", false},
    {"listMembers", "viewer", "members:read", false},
    {"changeMember", "admin", "members:write", false},
    {"removeMember", "admin", "members:write", false},
    {"listInvitations", "viewer", "members:read", false},
    {"createInvitation", "admin", "members:write", false},
    {"revokeInvitation", "admin", "members:write", false},
    {"listApiKeys", "admin", "tokens:read", false},
    {"createApiKey", "admin", "tokens:write", false},
    {"getApiKey", "admin", "tokens:read", false},
    {"revokeApiKey", "admin", "tokens:write", false},
    {"listAuditEvents", "admin", "audit:read", false},
    {"exportAuditEvents", "admin", "audit:read", false},
    {"getAuditHead", "admin", "audit:read", false},
    {"listFleets", "viewer", "fleets:read"},
    {"createFleet", "developer", "fleets:write"},
    {"getFleet", "viewer", "fleets:read"},
    {"renameFleet", "developer", "fleets:write"},
    {"deleteFleet", "developer", "fleets:write"},
    {"listProvisioningKeys", "developer", "keys:read"},
    {"createProvisioningKey", "developer", "keys:write"},
    {"getProvisioningKey", "developer", "keys:read"},
    {"changeProvisioningKey", "developer", "keys:write"},
    {"revokeProvisioningKey", "developer", "keys:write"},
    {"listPreregistrations", "developer", "keys:read"},
    {"createPreregistration", "developer", "keys:write"},
    {"deletePreregistration", "developer", "keys:write"},
    {"listDeviceRequests", "developer", "keys:read"},
    {"getDeviceRequest", "developer", "keys:read"},
    {"approveDeviceRequest", "developer", "keys:write"},
    {"rejectDeviceRequest", "developer", "keys:write"},
    {"listDevices", "viewer", "devices:read"},
    {"getDevice", "viewer", "devices:read"},
    {"updateDevice", "developer", "devices:write"},
    {"listDeviceHistory", "viewer", "devices:read"},
    {"moveDevice", "developer", "devices:write"},
    {"decommissionDevice", "developer", "devices:write"},
    {"undeleteDevice", "developer", "devices:write"},
    {"clearCloneSuspicion", "developer", "devices:write"},
    {"listDeviceEvents", "viewer", "devices:read"},
    {"listDeviceCommands", "viewer", "devices:read"},
    {"createDeviceCommand", "developer", "commands:write"},
    {"getDeviceCommand", "viewer", "devices:read"},
    {"cancelDeviceCommand", "developer", "commands:write"},
    {"commandDevices", "developer", "commands:write"},
    {"followEvents", "viewer", "devices:read"},
    {"getDeviceMetrics", "viewer", "devices:read"},
    {"listMetrics", "viewer", "devices:read"},
    {"getLatestMetrics", "viewer", "devices:read"},
    {"listDeviceLogs", "viewer", "logs:read"},
    {"listLogs", "viewer", "logs:read"},
    {"followLogs", "viewer", "logs:read"},
    {"batchUpdateDevices", "developer", "devices:write"},
    {"listOperations", "viewer", "devices:read"},
    {"getOperation", "viewer", "devices:read"},
    {"removeDevice", "developer", "devices:write"},
    {"revokeDevice", "developer", "devices:write"},
    {"listReleases", "viewer", "releases:read"},
    {"createRelease", "developer", "releases:write"},
    {"getRelease", "viewer", "releases:read"},
    {"replaceRelease", "developer", "releases:write"},
    {"describeRelease", "developer", "releases:write"},
    {"deleteRelease", "developer", "releases:write"},
    {"finalizeRelease", "developer", "releases:write"},
    {"invalidateRelease", "developer", "releases:write"},
    {"diffReleases", "viewer", "releases:read"},
    {"getReleaseRetention", "viewer", "releases:read"},
    {"setReleaseRetention", "admin", "organization:write", false},
    {"listDeployments", "viewer", "deployments:read"},
    {"createDeployment", "developer", "deployments:write"},
    {"planDeployment", "viewer", "deployments:read"},
    {"getDeployment", "viewer", "deployments:read"},
    {"listRollouts", "viewer", "deployments:read"},
    {"getRollout", "viewer", "deployments:read"},
    {"listRolloutDevices", "viewer", "deployments:read"},
    {"listRolloutDecisions", "viewer", "deployments:read"},
    {"watchRollout", "viewer", "deployments:read"},
    {"approveRollout", "developer", "deployments:write"},
    {"pauseRollout", "developer", "deployments:write"},
    {"resumeRollout", "developer", "deployments:write"},
    {"listRolloutFailures", "viewer", "deployments:read"},
    {"skipSoakOfRollout", "developer", "deployments:write"},
    {"retryRollout", "developer", "deployments:write"},
    {"advanceRollout", "developer", "deployments:write"},
    {"finishRollout", "developer", "deployments:write"},
    {"abortRollout", "developer", "deployments:write"},
    {"rollBackRollout", "developer", "deployments:write"},
    {"listOrganizationVariables", "viewer", "variables:read"},
    {"getOrganizationVariable", "viewer", "variables:read"},
    {"setOrganizationVariable", "developer", "variables:write"},
    {"unsetOrganizationVariable", "developer", "variables:write"},
    {"importOrganizationVariables", "developer", "variables:write"},
    {"listFleetVariables", "viewer", "variables:read"},
    {"getFleetVariable", "viewer", "variables:read"},
    {"setFleetVariable", "developer", "variables:write"},
    {"unsetFleetVariable", "developer", "variables:write"},
    {"importFleetVariables", "developer", "variables:write"},
    {"listDeviceVariables", "viewer", "variables:read"},
    {"getDeviceVariable", "viewer", "variables:read"},
    {"setDeviceVariable", "developer", "variables:write"},
    {"unsetDeviceVariable", "developer", "variables:write"},
    {"importDeviceVariables", "developer", "variables:write"},
    {"getDeviceEnvironment", "viewer", "variables:read"},
    {"listEventSubscriptions", "admin", "subscriptions:read", false},
    {"createEventSubscription", "admin", "subscriptions:write", false},
    {"getEventSubscription", "admin", "subscriptions:read", false},
    {"changeEventSubscription", "admin", "subscriptions:write", false},
    {"deleteEventSubscription", "admin", "subscriptions:write", false},
    {"rotateEventSubscriptionSecret", "admin", "subscriptions:write", false},
};

// The resource types whose ids stand in paths, by the path before the id.
constexpr const char* kResources[] = {
    "/v1/organizations", "/v1/members",           "/v1/invitations",     "/v1/api-keys",
    "/v1/fleets",        "/v1/provisioning-keys", "/v1/devices",         "/v1/releases",
    "/v1/deployments",   "/v1/rollouts",          "/v1/device-requests", "/v1/event-subscriptions",
    "/v1/operations",
};

// The example that the document gives.
std::string body_of(const Operation& operation) {
  return operation.body ? bj::serialize(operation.body->at("example")) : "";
}

const Expected* expected_of(const std::string& operation) {
  for (const Expected& each : kExpected) {
    if (operation == each.operation) return &each;
  }
  return nullptr;
}

// Streams that end only when their reader goes: asked about a device that is not there for the
// caller, they refuse.
bool is_endless(const Operation& operation) {
  return operation.id == "followEvents" || operation.id == "followLogs";
}

// The pattern with `id` in every hole; nothing is changed by what is called.
std::string target_of(const Operation& operation, const std::string& id) {
  std::string target = operation.pattern;
  if (const std::size_t at = target.find("{name}"); at != std::string::npos)
    target.replace(at, 6, "LOG_LEVEL");
  for (std::size_t at; (at = target.find('{')) != std::string::npos;)
    target.replace(at, target.find('}') - at + 1, id);
  if (operation.id == "diffReleases") target += "?to=" + id;
  if (is_endless(operation)) return target + "?device=" + id;
  return operation.method == "GET" ? target : target + "?validate_only=true";
}

struct Caller {
  std::string name, token;
  std::function<bool(const Expected&)> may;
  bool known = true;  // anybody at all
};

class AccessMatrix : public StackTest {};

Task<std::vector<Caller>> callers(Backend& backend, const std::string& owner,
                                  const std::string& fleet) {
  std::vector<Caller> out;
  const auto role_may = [](std::string role, bool limited) {
    return [role, limited](const Expected& expected) {
      const std::string least = expected.least;
      if (least == "signed_in") return true;
      return *domain::parse_role(role) >= *domain::parse_role(least) &&
             (!limited || expected.in_fleets);
    };
  };
  for (const std::string& role : domain::role_names()) {
    out.push_back({role, co_await backend.make_key(owner, role), role_may(role, false)});
    out.push_back({role + " of one fleet",
                   co_await backend.make_key(owner, role, {}, std::vector<std::string>{fleet}),
                   role_may(role, true)});
  }
  for (const std::string& scope : domain::permission_names()) {
    const auto may = [scope](const Expected& expected) {
      return std::string(expected.least) == "signed_in" || scope == expected.scope;
    };
    out.push_back({"owner's key with the scope " + scope,
                   co_await backend.make_key(owner, "owner", std::vector<std::string>{scope}),
                   may});
  }
  const auto never = [](const Expected&) { return false; };
  const std::string expired = co_await backend.make_key(owner, "owner");
  const std::string revoked = co_await backend.make_key(owner, "owner");
  const auto change = [&](const char* statement, const std::string& key) {
    return backend.db.query(postgres::Scope::system(), statement,
                            postgres::Params().bytes(services::hash_key(key)));
  };
  co_await change("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE hash = $1",
                  expired);
  co_await change("UPDATE api_keys SET revoked_at = now() WHERE hash = $1", revoked);
  services::DeviceTokens tokens(backend.signing, backend.stack.settings.public_url,
                                Duration(60'000));
  const services::DeviceIdentity device{DeviceId::fresh(), OrgId::fresh(), FleetId::fresh()};
  for (auto& [name, token] : std::vector<std::pair<std::string, std::string>>{
           {"nobody", ""},
           {"a key that was never made", "flk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
           {"an expired key", expired},
           {"a revoked key", revoked},
           {"a device", tokens.issue(device, system_clock().now()).text}})
    out.push_back({name, token, never, false});
  co_return out;
}

TEST_F(AccessMatrix, EveryOperationForEveryCaller) {
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        const std::string owner = co_await backend.make_tenant("matrix");
        Api setup(backend.executor, backend.stack, owner);
        const bj::value fleet =
            co_await setup.call("POST", "/v1/fleets", bj::object{{"name", "mine"}});
        std::size_t tried = 0;
        const std::vector<Operation>& all = operations();
        const auto people = co_await callers(backend, owner, text(fleet, "id"));
        for (const Operation& operation : all) {
          const Expected* expected = expected_of(operation.id);
          if (expected == nullptr) {
            ADD_FAILURE() << operation.id << " is missing from the matrix";
            continue;
          }
          const std::string target = target_of(operation, new_uuid());
          for (const Caller& caller : people) {
            Api api(backend.executor, backend.stack, caller.token);
            co_await api.call(operation.method, target, body_of(operation));
            ++tried;
            const int status = api.last.status;
            const std::string place = caller.name + " calls " + operation.id + ": " +
                                      std::to_string(status) + " " + api.last.body;
            if (std::string(expected->least) == "public") {
              EXPECT_NE(api.last.headers.get("WWW-Authenticate").value_or(""), "Basic") << place;
            } else if (!caller.known) {
              EXPECT_EQ(status, 401) << place;
            } else if (caller.may(*expected)) {
              EXPECT_NE(status, 401) << place;
              const bool about_permission =
                  api.last.body.find("needs the permission") != std::string::npos;
              EXPECT_FALSE(status == 403 && about_permission) << place;
              EXPECT_LT(status, 500) << place;
            } else {
              EXPECT_EQ(status, 403) << place;
              EXPECT_NE(api.last.body.find(expected->scope), std::string::npos) << place;
            }
          }
        }
        EXPECT_EQ(all.size(), std::size(kExpected)) << "the matrix names what is not there";
        co_await backend.heard();
        for (const auto& event : backend.audited)
          EXPECT_TRUE(event.action() == "createFleet") << event.action();
        std::printf("access matrix: %zu operations x %zu callers = %zu requests\n", all.size(),
                    people.size(), tried);
        co_await backend.stop();
      },
      Duration(120'000));
}

// One of each resource, by the path before its id.
Task<std::map<std::string, std::string>> make_one_of_each(Backend& backend, Api& api,
                                                          FakeDevice& device) {
  std::map<std::string, std::string> ids;
  const bj::value me = co_await api.call("GET", "/v1/whoami");
  ids["/v1/organizations"] = text(me.at("organization"), "id");
  ids["/v1/api-keys"] = text(me, "id");
  ids["/v1/members"] = new_uuid();
  co_await backend.db.query(
      postgres::Scope::system(),
      "WITH u AS (INSERT INTO users(id, issuer, subject) VALUES ($1::uuid, 'test', $1::text) "
      "RETURNING id) "
      "INSERT INTO members(org_id, user_id, role) SELECT $2, id, 'viewer' FROM u",
      postgres::Params().text(ids["/v1/members"]).text(ids["/v1/organizations"]));
  const auto make = [&](const char* path, bj::object body) -> Task<bj::value> {
    bj::value made = co_await api.call("POST", path, std::move(body));
    EXPECT_EQ(api.last.status, 201) << path << api.last.body;
    ids[path] = text(made, "id");
    co_return made;
  };
  co_await make("/v1/invitations", {{"email", "ada@example.com"}, {"role", "viewer"}});
  co_await make("/v1/fleets", {{"name", "walled"}});
  const bj::value key = co_await make("/v1/provisioning-keys", {{"fleet_id", "walled"}});
  co_await device.join(api, text(key, "secret"));
  ids["/v1/devices"] = device.id;
  const bj::value operation = co_await api.call(
      "POST", "/v1/devices:batchUpdate",
      bj::object{{"device_ids", {device.id}}, {"set_labels", {{"site", "oslo"}}}});
  ids["/v1/operations"] = text(operation, "id");
  for (const std::string& owner : {"/v1/organizations/" + ids["/v1/organizations"],
                                   std::string("/v1/fleets/walled"), "/v1/devices/" + device.id})
    co_await api.call("PUT", owner + "/variables/LOG_LEVEL", bj::object{{"value", "info"}});
  const bj::value guarded =
      co_await api.call("POST", "/v1/provisioning-keys",
                        bj::object{{"fleet_id", "walled"}, {"approval_required", true}});
  const bj::value pending = co_await api.call(
      "POST", "/v1/devices/register",
      registration(text(guarded, "secret"), crypto::Key::generate(crypto::Key::Kind::kP256)));
  ids["/v1/device-requests"] = text(pending, "device_request_id");
  co_await make("/v1/event-subscriptions", {{"name", "ops"},
                                            {"url", "https://hooks.acme.example/flock"},
                                            {"event_types", bj::array{"*"}}});
  ids["/v1/releases"] = co_await backend.put_release(api.token, "1", {{"linux/amd64", "sha256:a"}});
  const bj::value deployment =
      co_await make("/v1/deployments", {{"release_id", "1"}, {"target", {{"fleet_id", "walled"}}}});
  co_await eventually("a rollout", [&]() -> Task<bool> {
    const bj::value now = co_await api.call("GET", "/v1/deployments/" + text(deployment, "id"));
    if (now.as_object().contains("rollout_id")) ids["/v1/rollouts"] = text(now, "rollout_id");
    co_return ids.contains("/v1/rollouts");
  });
  co_return ids;
}

TEST_F(AccessMatrix, AnotherTenantFindsNothing) {
  flock::testing::run_task(
      []() -> Task<void> {
        Backend backend(co_await asio::this_coro::executor, *Stack::get());
        co_await backend.start();
        Api mine(backend.executor, backend.stack, co_await backend.make_tenant("walled in"));
        Api other(backend.executor, backend.stack, co_await backend.make_tenant("outside"));
        FakeDevice device(backend);
        const auto ids = co_await make_one_of_each(backend, mine, device);
        std::size_t tried = 0;
        for (const Operation& operation : operations()) {
          const std::size_t hole = operation.pattern.find("/{");
          if (hole == std::string::npos) {
            if (operation.method != "GET" || !expected_of(operation.id) ||
                std::string(expected_of(operation.id)->least) == "public")
              continue;
            if (is_endless(operation)) {
              co_await other.call("GET", target_of(operation, device.id));
              EXPECT_EQ(other.last.status, 404) << operation.id << " " << other.last.body;
              continue;
            }
            co_await other.call("GET", operation.pattern);
            ++tried;
            for (const auto& [path, id] : ids)
              EXPECT_EQ(other.last.body.find(id), std::string::npos)
                  << operation.id << " shows " << path << " of another tenant";
            continue;
          }
          const auto id = ids.find(operation.pattern.substr(0, hole));
          if (id == ids.end()) {
            ADD_FAILURE() << operation.id << ": no object of another tenant is made for it";
            continue;
          }
          co_await other.call(operation.method, target_of(operation, id->second),
                              body_of(operation));
          ++tried;
          EXPECT_EQ(other.last.status, 404) << operation.id << " " << other.last.body;
          if (operation.method != "GET" || operation.id == "watchRollout" ||
              operation.id == "getDeviceCommand")
            continue;
          co_await mine.call(operation.method, target_of(operation, id->second));
          EXPECT_EQ(mine.last.status, 200) << operation.id;
        }
        EXPECT_EQ(ids.size(), std::size(kResources));
        std::printf("tenant walls: %zu requests by another tenant\n", tried);
        co_await backend.stop();
      },
      Duration(60'000));
}

}  // namespace
}  // namespace flock::targets::itest

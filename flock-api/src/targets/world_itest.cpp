// SPDX-License-Identifier: Apache-2.0
#include "targets/itest_world.h"

#include <gtest/gtest.h>

#include "crypto/jwt.h"

namespace flock::targets::itest {
namespace {

constexpr const char* kCompose = "services:\n  web:\n    image: registry.example/acme/web:1\n";

// What the organization's objects are kept by: an operation that needs one in a state of its own
// has its own.
std::string place_of(const Operation& operation) {
  for (const char* id : {"undeleteDevice", "replaceRelease", "finalizeRelease"}) {
    if (operation.id == id) return id;
  }
  if (operation.pattern.starts_with("/v1/rollouts/{id}/actions/")) return operation.id;
  return operation.pattern.substr(0, operation.pattern.find("/{"));
}

crypto::Key fresh_key() { return crypto::Key::generate(crypto::Key::Kind::kP256); }

std::string filled(std::string pattern, const std::string& hole, const std::string& value) {
  const std::string whole = "{" + hole + "}";
  if (const std::size_t at = pattern.find(whole); at != std::string::npos)
    pattern.replace(at, whole.size(), value);
  return pattern;
}

}  // namespace

Task<bj::value> World::post(std::string path, bj::object body) {
  bj::value made = co_await api_.call("POST", path, std::move(body));
  if (api_.last.status >= 300)
    throw Error(Code::kInternal, "the world cannot be made")
        .with("path", path)
        .with("answer", api_.last.body);
  co_return made;
}

Task<void> World::open() {
  co_await push_image(backend_.executor, backend_.stack.registry_host(), "acme/web", "1",
                      {"amd64"});
  const bj::value me = co_await api_.call("GET", "/v1/whoami");
  org_ = text(me.at("organization"), "id");
  fleet_ = text(co_await post("/v1/fleets", {{"name", "Home"}}), "id");
  secret_ = text(co_await post("/v1/provisioning-keys", {{"fleet_id", "home"}}), "secret");
  guarded_ = text(
      co_await post("/v1/provisioning-keys", {{"fleet_id", "home"}, {"approval_required", true}}),
      "secret");
  device_ =
      text(co_await post("/v1/devices/register", registration(secret_, device_key_)), "device_id");
  operation_ = text(co_await post("/v1/devices:batchUpdate",
                                  {{"device_ids", {device_}}, {"set_labels", {{"site", "oslo"}}}}),
                    "id");
  release_ = co_await backend_.put_release(api_.token, "1.0.0", {{"linux/amd64", "sha256:a"}});
  co_await roll_out();
  const auto tables = co_await backend_.db.query(
      postgres::Scope::system(),
      "SELECT table_name AS name FROM information_schema.columns WHERE column_name = 'org_id' AND "
      "table_schema = current_schema() ORDER BY 1");
  for (const auto& table : tables.rows) {
    const std::string name = table.text("name");
    count_rows_ += (count_rows_.empty() ? "SELECT " : " || ") + ("(SELECT '" + name) +
                   " ' || count(*) || ' ' || coalesce(sum(hashtext((to_jsonb(t) - "
                   "'last_used_at')::text)), 0) || E'\\n' FROM " +
                   name + " t WHERE org_id = $1)";
  }
  count_rows_ += " AS rows";
}

// A rollout that has ended: nobody is in its fleet. The scheduler goes; from here on only requests
// change anything.
Task<void> World::roll_out() {
  co_await post("/v1/fleets", {{"name", "Empty"}});
  deployment_ = text(co_await post("/v1/deployments",
                                   {{"release_id", "1.0.0"}, {"target", {{"fleet_id", "empty"}}}}),
                     "id");
  co_await eventually("the rollout has ended", [&]() -> Task<bool> {
    const bj::value page = co_await api_.call("GET", "/v1/rollouts");
    if (page.at("items").as_array().empty()) co_return false;
    rollout_ = text(page.at_pointer("/items/0"), "id");
    co_return page.at_pointer("/items/0").as_object().contains("ended_at");
  });
  co_await backend_.targets.back()->drain();
  co_await backend_.targets.back()->stop();
}

std::map<std::string, std::vector<bj::value>> World::known() const {
  const bj::value fleet(fleet_), device(device_);
  return {
      {"fleet_id", {"home", fleet}},
      {"move_to_fleet_id", {"home", fleet}},
      {"fleet_ids[]", {"home", fleet}},
      {"device_ids[]", {device}},
      {"release_id", {"1.0.0", bj::value(release_)}},
      {"to", {"1.0.0", bj::value(release_)}},
      {"compose", {kCompose}},
      {"email", {"ada@example.com", "Bob+x@example.org"}},
      {"url", {"https://hooks.acme.example/flock"}},
      {"event_types[]", {"rollout.completed", "device.*", "*"}},
      {"allowed_networks[]", {"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"}},
      {"scopes[]", {"devices:read", "fleets:read"}},
      {"expected_count", {1}},
      {"filter", {bj::value("id = \"" + device_ + "\"")}},
      {"order_by", {"id", "id desc"}},
      {"page_token", {""}},
      {"kind", {"immediate"}},
      {"thumbprint", {bj::value(device_key_.thumbprint())}},
      {"public_key", {bj::value(device_key_.public_pem())}},
      {"tags[]", {"stable", "site:oslo"}},
      {"tag", {"stable"}},
      {"service", {"web"}},
      {"scope", {"repository:acme/web:pull,push"}},
      {"format", {"jsonl", "csv"}},
      {"max_failed_ratio", {0, 0.25, 1}},
      {"remove_labels[]", {"site", "stage"}},
  };
}

std::map<std::string, std::vector<bj::object>> World::bodies() const {
  bj::object joining = registration(secret_, fresh_key());
  joining["name"] = "gw-17";
  joining["agent_version"] = "0.1.0";
  joining["wireguard_public_key"] = "x";
  joining["hardware"] = bj::object{
      {"architecture", "arm"}, {"variant", "v7"},     {"os", "x"},         {"kernel", "6.1"},
      {"hostname", "gw"},      {"machine_id", "m-1"}, {"memory_bytes", 1}, {"cpus", 4}};
  return {{"registerDevice", {joining, registration(guarded_, device_key_)}},
          {"renewDeviceToken",
           {{{"device_id", device_},
             {"assertion", crypto::sign_jwt(device_key_, assertion_claims(device_))}}}}};
}

Task<std::string> World::make_device() {
  co_return text(co_await post("/v1/devices/register", registration(secret_, fresh_key())),
                 "device_id");
}

Task<std::string> World::make_request() {
  co_return text(co_await post("/v1/devices/register", registration(guarded_, fresh_key())),
                 "device_request_id");
}

Task<std::string> World::make_member() {
  const std::string id = new_uuid();
  co_await backend_.db.query(
      postgres::Scope::system(),
      "WITH u AS (INSERT INTO users(id, issuer, subject) VALUES ($1::uuid, 'test', $1::text) "
      "RETURNING id) "
      "INSERT INTO members(org_id, user_id, role) SELECT $2, id, 'viewer' FROM u",
      postgres::Params().text(id).text(org_));
  co_return id;
}

Task<std::string> World::make_draft() {
  co_return text(co_await post("/v1/releases", {{"draft", true}, {"compose", kCompose}}), "id");
}

Task<std::string> World::make(std::string place, const std::string& operation) {
  if (place == "/v1/organizations") co_return org_;
  if (place == "/v1/operations") co_return operation_;
  if (place == "/v1/deployments") co_return deployment_;
  if (place == "/v1/rollouts") co_return rollout_;
  if (place.ends_with("Rollout")) co_return co_await rollout_for(place);
  if (place == "/v1/members") co_return co_await make_member();
  if (place == "/v1/devices") co_return co_await make_device();
  if (place == "/v1/device-requests") co_return co_await make_request();
  if (place == "replaceRelease" || place == "finalizeRelease") co_return co_await make_draft();
  if (place == "/v1/releases")
    co_return co_await backend_.put_release(api_.token, chance_.letters(12),
                                            {{"linux/amd64", "sha256:b"}});
  if (place == "undeleteDevice") {
    const std::string id = co_await make_device();
    co_await api_.call("DELETE", "/v1/devices/" + id);
    co_return id;
  }
  bj::object body;
  if (place == "/v1/fleets") body = {{"name", chance_.letters(12)}};
  if (place == "/v1/invitations") body = {{"email", "ada@example.com"}, {"role", "viewer"}};
  if (place == "/v1/api-keys") body = {{"name", "ci"}, {"role", "viewer"}};
  if (place == "/v1/provisioning-keys") body = {{"fleet_id", "home"}, {"mode", "PREREGISTERED"}};
  if (place == "/v1/event-subscriptions")
    body = {{"name", chance_.letters(12)},
            {"url", "https://hooks.acme.example/"},
            {"event_types", bj::array{"*"}}};
  if (body.empty())
    throw Error(Code::kInternal, "nothing is made for this path").with("operation", operation);
  co_return text(co_await post(place, std::move(body)), "id");
}

// In a state in which it can be told to do this, by somebody who did not make it.
Task<std::string> World::rollout_for(std::string operation) {
  const std::string state = operation == "approveRollout"    ? "AWAITING_APPROVAL"
                            : operation == "resumeRollout"   ? "PAUSED"
                            : operation == "rollBackRollout" ? "COMPLETED"
                                                             : "RUNNING";
  co_await backend_.db.query(
      postgres::Scope::system(),
      "WITH other AS (UPDATE deployments SET created_by = 'user:ada' WHERE rollout_id = $1::uuid) "
      "UPDATE rollouts SET state = $2, progress = '{}', ended_at = CASE WHEN $2 = 'COMPLETED' THEN "
      "now() END WHERE id = $1::uuid",
      postgres::Params().text(rollout_).text(state));
  if (operation == "retryRollout")
    co_await backend_.db.query(
        postgres::Scope::system(),
        "INSERT INTO rollout_devices(org_id, rollout_id, device_id, state, online) VALUES ($1, $2, "
        "$3, 'FAILED', false) ON CONFLICT (rollout_id, device_id) DO UPDATE SET state = 'FAILED'",
        postgres::Params().text(org_).text(rollout_).text(device_));
  co_return rollout_;
}

Task<std::string> World::path_for(const Operation& operation,
                                  const std::map<std::string, std::string>& given) {
  std::string path = operation.pattern;
  for (const auto& [hole, value] : given) path = filled(path, hole, value);
  if (path.find('{') == std::string::npos) co_return path;
  const std::string place = place_of(operation);
  std::string& id = there_[place];
  if (id.empty()) id = co_await make(place, operation.id);
  path = filled(path, "id", id);
  if (path.find("{name}") != std::string::npos) {
    path = filled(path, "name", "LOG_LEVEL");
    std::string& set = there_[path];
    if (set.empty() && !given.contains("id"))
      co_await api_.call("PUT", path, bj::object{{"value", "info"}});
    set = "set";
  }
  if (path.find("{device}") != std::string::npos) {
    std::string& known = there_["{device}"];
    if (known.empty() && !given.contains("id"))
      known = text(co_await post("/v1/provisioning-keys/" + id + "/devices",
                                 {{"thumbprint", fresh_key().thumbprint()}}),
                   "id");
    path = filled(path, "device", known.empty() ? new_uuid() : known);
  }
  if (path.find("{command}") != std::string::npos) {
    std::string& known = there_["{command}"];
    if (known.empty() && !given.contains("id"))
      known = text(co_await post("/v1/devices/" + id + "/commands", {{"type", "identify"}}), "id");
    path = filled(path, "command", known.empty() ? new_uuid() : known);
  }
  co_return path;
}

void World::used(const Operation& operation) {
  if (operation.method == "GET") return;
  const std::string place = place_of(operation);
  if (operation.pattern.find("{name}") == std::string::npos &&
      operation.pattern.find("variables") == std::string::npos) {
    if (operation.pattern.find("{device}") == std::string::npos) there_.erase(place);
    there_.erase("{device}");
    there_.erase("{command}");
  }
  std::erase_if(there_, [](const auto& each) { return each.second == "set"; });
}

Task<std::string> World::rows() {
  const auto rows = co_await backend_.db.query(postgres::Scope::system(), count_rows_.c_str(),
                                               postgres::Params().text(org_));
  co_return rows.rows.at(0).text("rows");
}

}  // namespace flock::targets::itest

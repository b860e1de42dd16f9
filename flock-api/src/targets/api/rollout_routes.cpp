// SPDX-License-Identifier: Apache-2.0
// Deployments and rollouts, with the rollout's event stream.
#include <algorithm>

#include "async/deadline.h"
#include "async/loop.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "net/sse.h"
#include "targets/api/streams.h"

namespace flock::targets::api {
namespace {

// What the scheduler moves by itself.
constexpr std::string_view kPassing[] = {"state", "reason", "counts", "rollout_id", "ended_at"};
constexpr Duration kLookAnyway{5000};  // a change is told on the bus; the broker may be away
constexpr Duration kLookApart{200};    // a rollout of many devices changes all the time
constexpr std::size_t kStreamPage = 1000;
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
      {"strategy", {{"kind", "immediate"}}},
      {"soak", to_string(Duration(row.integer("soak_ms")))},
      {"failure_timeout", to_string(Duration(row.integer("failure_timeout_ms")))},
      {"max_failed_ratio", row.real("max_failed_ratio")},
      {"state", row.text("state")}};
  if (const auto rollout = row.optional_text("rollout_id")) out["rollout_id"] = *rollout;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

bj::object rollout_json(const Row& row) {
  bj::object counts;
  for (const char* key : {"total", "pending", "delivered", "downloading", "starting", "soaking",
                          "confirmed", "failed", "superseded"})
    counts[key] = row.integer(key);
  bj::object out{
      {"id", row.text("id")},
      {"deployment_id", row.text("deployment_id")},
      {"release", {{"id", row.text("release_id")}, {"version", row.text("release_version")}}},
      {"state", row.text("state")},
      {"counts", std::move(counts)}};
  if (const auto fleet = row.optional_text("fleet_id")) out["fleet_id"] = *fleet;
  if (const auto reason = row.optional_text("reason")) out["reason"] = *reason;
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "ended_at", row.optional_time("ended_at"));
  return out;
}

bj::object rollout_device_json(const Row& row) {
  bj::object out{{"device_id", row.text("device_id")},
                 {"name", row.text("name")},
                 {"state", row.text("state")},
                 {"desired_version", row.integer("desired_version")}};
  if (const auto reason = row.optional_text("reason")) out["reason"] = *reason;
  set_time(out, "updated_at", row.time("updated_at"));
  return out;
}

Task<bj::object> find_rollout(Context& c, Scope scope, std::string id) {
  const RolloutId rollout = RolloutId::parse(id);
  Params params = Params().text(scope.org()).text(rollout.text());
  const auto rows =
      co_await c.parts.db.query(std::move(scope), sql::kRolloutGet, std::move(params));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such rollout")
        .with("rollout", id)
        .hint("flock rollouts lists them");
  co_return rollout_json(rows.rows.front());
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
  if (const bj::object* strategy = in.optional_object("strategy")) {
    const bj::value copy(*strategy);
    json::Reader inner(copy, "/strategy", in);
    if (inner.string("kind") != "immediate")
      inner.problem("kind", "unsupported", "the strategy must be immediate");
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

Task<net::Reply> list_rollouts(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kRolloutList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(rollout_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_rollout(Call& call) {
  const bj::object rollout =
      co_await find_rollout(call.context, call.scope(), call.parameter("id"));
  co_return call.answer(200, rollout, kPassing);
}

Task<net::Reply> list_rollout_devices(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kRolloutDevices,
      Params().text(call.org()).text(id).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(rollout_device_json(row));
  co_return list_reply(std::move(items), page, "device_id");
}

// Sends what differs from what was sent; the present state first, so that a reader who resumes
// misses nothing.
class RolloutStream final : public EventSource {
 public:
  RolloutStream(Context& c, Scope scope, std::string id)
      : c_(c), scope_(std::move(scope)), id_(std::move(id)), follower_(c.events, std::nullopt) {}

  Task<std::string> next(Duration limit, bool& over) override {
    const SteadyPoint now = std::chrono::steady_clock::now();
    if (!stale_ && now < looked_ + kLookAnyway) {
      const auto events = co_await follower_.next(limit);
      for (const ResourceEvent& event : events)
        stale_ = stale_ || event.subject == id_ || event.type == "gap";
      if (!stale_) co_return "";
    }
    const Duration since =
        std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - looked_);
    if (since < kLookApart) co_await sleep_for(kLookApart - since);
    try {
      stale_ = false;
      looked_ = std::chrono::steady_clock::now();
      co_return co_await changes(over);
    } catch (const Error& error) {
      if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout) throw;
      // The database is away for a moment: the reader keeps its place.
    }
    co_await sleep_for(limit);
    stale_ = true;
    co_return "";
  }
  std::string goodbye(const std::string& reason) override {
    return event("end", bj::object{{"state", "RUNNING"}, {"reason", reason}});
  }

 private:
  Task<std::string> changes(bool& settled) {
    std::string text;
    const bj::object rollout = co_await find_rollout(c_, scope_, id_);
    std::string after;
    for (bool more = true; more;) {
      const auto rows = co_await c_.parts.db.query(
          scope_, sql::kRolloutDevices,
          Params().text(scope_.org()).text(id_).text(after).integer(kStreamPage));
      for (const Row& row : rows.rows) {
        after = row.text("device_id");
        const std::string device = bj::serialize(rollout_device_json(row));
        std::string& sent = devices_[after];
        if (sent == device) continue;
        sent = device;
        text += event("device", device);
      }
      more = rows.rows.size() == kStreamPage;
    }
    const std::string now = bj::serialize(rollout);
    if (now != rollout_) {
      rollout_ = now;
      text += event("rollout", now);
    }
    settled = rollout.at("state") != "RUNNING";
    if (settled) {
      bj::object end{{"state", rollout.at("state")}};
      if (const bj::value* reason = rollout.if_contains("reason")) end["reason"] = *reason;
      text += event("end", end);
    }
    co_return text;
  }

  std::string event(const char* name, const bj::value& data) {
    return event(name, bj::serialize(data));
  }
  std::string event(const char* name, std::string data) {
    return net::format_sse({std::to_string(++sequence_), name, std::move(data)});
  }

  Context& c_;
  Scope scope_;
  std::string id_, rollout_;
  std::map<std::string, std::string> devices_;
  std::int64_t sequence_ = 0;
  EventHub::Follower follower_;
  bool stale_ = true;
  SteadyPoint looked_;
};

Task<net::Reply> stream_rollout(Call& call) {
  const std::string id = call.parameter("id");
  co_await find_rollout(call.context, call.scope(), id);  // a problem before the first byte
  co_return stream_reply(call, std::make_shared<RolloutStream>(call.context, call.scope(), id));
}

}  // namespace

void add_rollout_routes(Context& c) {
  constexpr auto kReads = Permission::kDeploymentsRead;
  c.add(allowed("listDeployments", "GET", "/v1/deployments", kReads), list_deployments);
  c.add(allowed("createDeployment", "POST", "/v1/deployments", Permission::kDeploymentsWrite),
        create_deployment);
  c.add(allowed("getDeployment", "GET", "/v1/deployments/{id}", kReads), get_deployment);
  c.add(allowed("listRollouts", "GET", "/v1/rollouts", kReads), list_rollouts);
  c.add(allowed("getRollout", "GET", "/v1/rollouts/{id}", kReads), get_rollout);
  c.add(allowed("listRolloutDevices", "GET", "/v1/rollouts/{id}/devices", kReads),
        list_rollout_devices);
  c.add(allowed("watchRollout", "GET", "/v1/rollouts/{id}/events", kReads), stream_rollout);
}

}  // namespace flock::targets::api

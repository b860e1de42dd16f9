// SPDX-License-Identifier: Apache-2.0
// Environment variables of an organization, a fleet or a device. The value of a secret goes in and
// never comes out.
#include <algorithm>
#include <set>

#include "domain/variables.h"
#include "services/sealing.h"
#include "stores/postgres/variable_statements.h"
#include "targets/api/call.h"
#include "workload/workload.h"

namespace flock::targets::api {
namespace {

using domain::Level;

constexpr std::size_t kMostImported = 500;
// Of one owner, as stored. A device gets those of three owners, once for each service, in one
// message (domain::kDesiredBytes).
constexpr std::int64_t kMostVariables = 500, kMostBytes = 64 * 1024;

// Whose variables a request is about.
struct Owner {
  Level level;
  std::string id, name;
  std::optional<std::string> workload;  // of a device that is to run something
};

struct Setting {
  std::string service, name;  // service "": every service
  Secret value;
  std::optional<bool> secret;
};

Task<postgres::Rows> ask(Call& call, postgres::Transaction* tx, const char* statement,
                         Params params) {
  if (tx != nullptr) co_return co_await tx->query(statement, std::move(params));
  co_return co_await call.query(statement, std::move(params));
}

Task<Owner> find_owner(Call& call, Level level, postgres::Transaction* tx = nullptr) {
  const std::string wanted = call.parameter("id");
  if (level == Level::kOrganization) {
    if (wanted != call.org() && wanted != call.who.org_slug)
      throw Error(Code::kNotFound, "no such organization").with("organization", wanted);
    co_return Owner{level, call.org(), call.who.org_slug, {}};
  }
  if (level == Level::kFleet) {
    const auto fleets =
        co_await ask(call, tx, sql::kFleetGet, Params().text(call.org()).text(wanted));
    if (fleets.empty())
      throw Error(Code::kNotFound, "no such fleet")
          .with("fleet", wanted)
          .hint("flock fleets lists them");
    co_return Owner{level, fleets.rows.front().text("id"), fleets.rows.front().text("slug"), {}};
  }
  const auto devices =
      co_await ask(call, tx, sql::kDeviceForVariables, Params().text(call.org()).text(wanted));
  if (devices.empty())
    throw Error(Code::kNotFound, "no such device")
        .with("device", wanted)
        .hint("flock devices lists them");
  const Row& device = devices.rows.front();
  if (devices.rows.size() > 1 && device.text("id") != wanted)
    throw Error(Code::kConflict, "several devices have this name")
        .with("device", wanted)
        .hint("name it by its id");
  co_return Owner{level, device.text("id"), device.text("name"), device.optional_text("workload")};
}

bj::object variable_json(const Row& row) {
  const bool secret = row.boolean("secret");
  bj::object out{{"id", row.text("id")},
                 {"level", row.text("level")},
                 {"name", row.text("name")},
                 {"secret", secret},
                 {"updated_by", row.text("updated_by")}};
  if (!row.text("service").empty()) out["service"] = row.text("service");
  if (!secret) out["value"] = row.text("value");
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "updated_at", row.time("updated_at"));
  return out;
}

// The part of a request that names one variable.
struct Name {
  std::string name, service;
};
Name read_name(const Call& call) {
  Name out{call.parameter("name"), call.request.query("service").value_or("")};
  std::vector<Problem> problems;
  if (const auto fault = domain::name_fault(out.name))
    problems.push_back({"name", "invalid", *fault});
  if (const auto fault = domain::service_fault(out.service); fault && !out.service.empty())
    problems.push_back({"?service", "invalid", *fault});
  if (!problems.empty())
    throw Error(Code::kInvalidArgument, "this names no variable").problems(std::move(problems));
  return out;
}

Task<postgres::Rows> find_variable(Call& call, const Owner& owner, const std::string& service,
                                   const std::string& name, postgres::Transaction* tx = nullptr) {
  return ask(call, tx, sql::kVariableGet,
             Params().text(call.org()).text(owner.id).text(service).text(name));
}

Error no_such_variable(const Name& wanted) {
  return Error(Code::kNotFound, "no such variable")
      .with("name", wanted.name)
      .with("service", wanted.service)
      .hint("flock env ls lists them; one of a single service is named with its service");
}

// Throws for who may see the owner's variables but not change them, and waits for others who do.
Task<Owner> open_for_change(Call& call, Level level, postgres::Transaction& tx) {
  Owner owner = co_await find_owner(call, level, &tx);
  if (level == Level::kOrganization && call.who.fleets)
    throw Error(Code::kForbidden,
                "your access is limited to some fleets; these variables reach every fleet")
        .hint("set it for a fleet or a device");
  co_await tx.query(sql::kVariablesLock, Params().text(owner.id));
  co_return owner;
}

// The last step of every change.
Task<void> spread(Call& call, const Owner& owner, postgres::Transaction& tx) {
  const auto size = co_await tx.query(sql::kVariableSize, Params().text(call.org()).text(owner.id));
  const Row& row = size.rows.at(0);
  if (row.integer("count") > kMostVariables || row.integer("bytes") > kMostBytes)
    throw Error(Code::kUnprocessable,
                "these are too many variables for one " + std::string(to_string(owner.level)))
        .hint("at most " + std::to_string(kMostVariables) + ", and 64 KiB in all");
  const char* mark = owner.level == Level::kOrganization ? sql::kStaleOrganization
                     : owner.level == Level::kFleet      ? sql::kStaleFleet
                                                         : sql::kStaleDevice;
  co_await tx.query(mark, Params().text(call.org()).text(owner.id));
}

// Makes it or replaces it; a secret stays one unless it is said that it is none. Returns the row.
Task<Row> store(Call& call, const Owner& owner, const Setting& wanted, postgres::Transaction& tx,
                const Row* before) {
  const bool secret = wanted.secret.value_or(before != nullptr && before->boolean("secret"));
  const auto as = [&](Level level) {
    return owner.level == level ? std::optional(owner.id) : std::nullopt;
  };
  std::optional<std::string> plain, sealed;
  if (secret)
    sealed = keys_of(call.context.parts)
                 .seal(wanted.value.reveal(),
                       services::variable_context(call.org(), to_string(owner.level), owner.id,
                                                  wanted.service, wanted.name));
  else
    plain = wanted.value.reveal();
  Params params;
  params.text(new_uuid()).text(call.org()).text(std::string(to_string(owner.level)));
  params.text(as(Level::kFleet)).text(as(Level::kDevice));
  params.text(wanted.service).text(wanted.name).text(plain).text(sealed);
  params.text(call.who.email.empty() ? call.who.name : call.who.email);
  co_await tx.query(sql::kVariableSet, std::move(params));
  const auto rows = co_await find_variable(call, owner, wanted.service, wanted.name, &tx);
  co_return rows.rows.at(0);
}

// A hint only, without content: the scheduler also looks by itself.
Task<void> hint_scheduler(Call& call) {
  mqtt::Message hint;
  hint.topic = "flock/internal/v1/variables/changed";
  hint.qos = mqtt::Qos::kAtMostOnce;
  if (call.context.parts.bus.connected()) co_await call.context.parts.bus.publish(std::move(hint));
}

// Names, never values: what is plain today may turn out to be a password tomorrow.
bj::object audit_detail(const Owner& owner, const std::string& service) {
  bj::object out{{"level", to_string(owner.level)}, {"owner", owner.name}};
  if (!service.empty()) out["service"] = service;
  return out;
}

Task<net::Reply> list_variables(Call& call, Level level) {
  allow_query(call.request, {"page_size", "page_token", "service"});
  const Page page = read_page(call.request);
  const std::string service = call.request.query("service").value_or("");
  if (const auto fault = domain::service_fault(service); fault && !service.empty())
    throw bad_parameter("service", *fault);
  const Owner owner = co_await find_owner(call, level);
  const auto rows = co_await call.query(sql::kVariableList, Params()
                                                                .text(call.org())
                                                                .text(owner.id)
                                                                .text(service)
                                                                .text(page.after)
                                                                .integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(variable_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> get_variable(Call& call, Level level) {
  allow_query(call.request, {"service"});
  const Name wanted = read_name(call);
  const Owner owner = co_await find_owner(call, level);
  const auto rows = co_await find_variable(call, owner, wanted.service, wanted.name);
  if (rows.empty()) throw no_such_variable(wanted);
  co_return call.answer(200, variable_json(rows.rows.front()));
}

Setting read_setting(json::Reader& in) {
  Setting out;
  out.value = Secret(in.string("value", {.min = 0, .max = domain::kVariableValueBytes}));
  if (const auto fault = domain::value_fault(out.value.reveal()))
    in.problem("value", "invalid", *fault);
  out.secret = in.optional_boolean("secret");
  return out;
}

Task<net::Reply> set_variable(Call& call, Level level) {
  const Name name = read_name(call);
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  Setting wanted = read_setting(in);
  in.finish();
  wanted.name = name.name;
  wanted.service = name.service;
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Owner owner = co_await open_for_change(call, level, tx);
    const auto found = co_await find_variable(call, owner, name.service, name.name, &tx);
    const Row* before = found.first();
    if (before != nullptr)
      call.check_match(variable_json(*before));
    else if (call.request.headers.get("If-Match"))
      throw Error(Code::kPreconditionFailed, "there is no such variable any more");
    const Row now = co_await store(call, owner, wanted, tx, before);
    co_await spread(call, owner, tx);
    bj::object detail = audit_detail(owner, name.service);
    detail["secret"] = now.boolean("secret");
    co_return Change{"variable", now.text("id"), name.name,
                     call.answer(before != nullptr ? 200 : 201, variable_json(now)),
                     std::move(detail)};
  };
  co_return co_await call.mutate(work, [&] { return hint_scheduler(call); });
}

Task<net::Reply> unset_variable(Call& call, Level level) {
  const Name name = read_name(call);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Owner owner = co_await open_for_change(call, level, tx);
    const auto found = co_await find_variable(call, owner, name.service, name.name, &tx);
    if (found.empty()) throw no_such_variable(name);
    const Row& before = found.rows.front();
    call.check_match(variable_json(before));
    co_await tx.query(sql::kVariableUnset,
                      Params().text(call.org()).text(owner.id).text(name.service).text(name.name));
    co_await spread(call, owner, tx);
    co_return Change{"variable", before.text("id"), name.name, json_reply(204, nullptr),
                     audit_detail(owner, name.service)};
  };
  co_return co_await call.mutate(work, [&] { return hint_scheduler(call); });
}

std::vector<Setting> read_settings(json::Reader& in) {
  std::vector<Setting> out;
  const bj::array* list = in.optional_array("variables");
  if (list == nullptr || list->empty() || list->size() > kMostImported) {
    in.problem("variables", "invalid",
               "must have 1 to " + std::to_string(kMostImported) + " variables");
    return out;
  }
  std::set<std::pair<std::string, std::string>> seen;
  for (std::size_t i = 0; i < list->size(); ++i) {
    json::Reader each((*list)[i], in.pointer("variables") + "/" + std::to_string(i), in);
    const std::string name = each.string("name", {.min = 0, .max = 32'768}),
                      service =
                          each.optional_string("service", {.min = 1, .max = 255}).value_or("");
    Setting setting = read_setting(each);
    setting.name = name;
    setting.service = service;
    if (const auto fault = domain::name_fault(name)) each.problem("name", "invalid", *fault);
    if (const auto fault = domain::service_fault(service); fault && !service.empty())
      each.problem("service", "invalid", *fault);
    if (!seen.emplace(service, name).second) each.problem("name", "repeated", "is there twice");
    each.finish();
    out.push_back(std::move(setting));
  }
  return out;
}

// All or nothing. What is not named stays as it is.
Task<net::Reply> import_variables(Call& call, Level level) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::vector<Setting> settings = read_settings(in);
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Owner owner = co_await open_for_change(call, level, tx);
    bj::array items, names;
    for (const Setting& setting : settings) {
      const auto found = co_await find_variable(call, owner, setting.service, setting.name, &tx);
      const Row now = co_await store(call, owner, setting, tx, found.first());
      items.push_back(variable_json(now));
      names.push_back(bj::value(setting.name));
    }
    co_await spread(call, owner, tx);
    bj::object detail = audit_detail(owner, "");
    detail["names"] = std::move(names);
    co_return Change{"variable", owner.id, owner.name,
                     json_reply(200, bj::object{{"items", std::move(items)}}), std::move(detail)};
  };
  co_return co_await call.mutate(work, [&] { return hint_scheduler(call); });
}

bj::object effective_json(const domain::Variable& variable) {
  bj::object out{{"origin", to_string(variable.level)}, {"secret", variable.secret}};
  if (!variable.secret) out["value"] = variable.value;
  if (variable.level != Level::kRelease && !variable.service.empty())
    out["service"] = variable.service;
  return out;
}

// What each service of the release gets, and why.
Task<net::Reply> get_environment(Call& call) {
  allow_query(call.request, {});
  const Owner device = co_await find_owner(call, Level::kDevice);
  const auto rows =
      co_await call.query(sql::kVariablesOfDevice, Params().text(call.org()).text(device.id));
  std::vector<domain::Variable> variables;
  for (const Row& row : rows.rows) {
    const bool secret = row.boolean("secret");
    variables.push_back({domain::parse_level(row.text("level")).value(), row.text("service"),
                         row.text("name"), secret ? "" : row.text("value"), secret});
  }
  const auto workload =
      device.workload ? workload::from_json(*device.workload) : workload::Workload();
  bj::array services;
  for (const workload::Service& service : workload.services) {
    bj::array list;
    for (const auto& [name, effective] : resolve(service.environment, service.name, variables)) {
      bj::object item = effective_json(effective.chosen);
      item["name"] = name;
      bj::array overrides;
      for (const auto& hidden : effective.overridden) overrides.push_back(effective_json(hidden));
      item["overrides"] = std::move(overrides);
      list.push_back(std::move(item));
    }
    services.push_back(bj::object{{"name", service.name}, {"variables", std::move(list)}});
  }
  co_return call.answer(200,
                        bj::object{{"device_id", device.id}, {"services", std::move(services)}});
}

using LevelRoute = Task<net::Reply> (*)(Call&, Level);
Context::Route at(Level level, LevelRoute route) {
  return [level, route](Call& call) { return route(call, level); };
}

}  // namespace

void add_variable_routes(Context& c) {
  constexpr auto kReads = Permission::kVariablesRead, kWrites = Permission::kVariablesWrite;
  for (const auto& [level, noun, place] :
       {std::tuple(Level::kOrganization, "Organization", "/v1/organizations/{id}"),
        std::tuple(Level::kFleet, "Fleet", "/v1/fleets/{id}"),
        std::tuple(Level::kDevice, "Device", "/v1/devices/{id}")}) {
    const std::string what(noun), all = std::string(place) + "/variables", one = all + "/{name}";
    c.add(allowed("list" + what + "Variables", "GET", all, kReads), at(level, list_variables));
    c.add(allowed("get" + what + "Variable", "GET", one, kReads), at(level, get_variable));
    Operation set = allowed("set" + what + "Variable", "PUT", one, kWrites);
    set.query = "service";
    c.add(std::move(set), at(level, set_variable));
    Operation unset = allowed("unset" + what + "Variable", "DELETE", one, kWrites);
    unset.query = "service";
    c.add(std::move(unset), at(level, unset_variable));
    c.add(allowed("import" + what + "Variables", "POST",
                  std::string(place) + "/actions/import-variables", kWrites),
          at(level, import_variables));
  }
  c.add(allowed("getDeviceEnvironment", "GET", "/v1/devices/{id}/environment", kReads),
        get_environment);
}

}  // namespace flock::targets::api

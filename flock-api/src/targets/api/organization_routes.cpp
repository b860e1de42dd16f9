// SPDX-License-Identifier: Apache-2.0
// The organizations that the caller is in.
#include "stores/postgres/account_statements.h"
#include "stores/postgres/retention_statements.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

bj::object organization_json(const Call& call, const Row& row) {
  const Settings& settings = call.context.parts.settings;
  const auto days = [&](const char* column, std::int64_t configured) {
    return row.optional_integer(column).value_or(configured);
  };
  bj::object out{{"id", row.text("id")}, {"name", row.text("name")}, {"slug", row.text("slug")}};
  set_time(out, "created_at", row.time("created_at"));
  out["retention"] = {
      {"telemetry_days", days("telemetry_retention_days", settings.retention_telemetry_days)},
      {"logs_days", days("logs_retention_days", settings.retention_logs_days)}};
  return out;
}

// A person may be in several; an API key is in one.
Task<net::Reply> list_organizations(Call& call) {
  allow_query(call.request, {});
  bj::array items;
  if (call.who.kind == Principal::Kind::kUser) {
    const auto rows = co_await call.context.parts.db.query(Scope::system(), sql::kMembershipsOfUser,
                                                           Params().text(call.who.id));
    for (const Row& row : rows.rows) {
      bj::object item{{"id", row.text("org_id")},
                      {"name", row.text("org_name")},
                      {"slug", row.text("org_slug")},
                      {"role", row.text("role")}};
      set_time(item, "created_at", row.time("created_at"));
      items.push_back(std::move(item));
    }
  } else {
    const auto rows = co_await call.query(sql::kOrganizationGet, Params().text(call.org()));
    for (const Row& row : rows.rows) {
      bj::object item = organization_json(call, row);
      item["role"] = to_string(*call.who.role);
      items.push_back(std::move(item));
    }
  }
  co_return json_reply(200, bj::object{{"items", std::move(items)}, {"next_page_token", ""}});
}

Task<net::Reply> create_organization(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  const std::string slug = read_slug(in, name);
  in.finish();
  if (call.who.kind != Principal::Kind::kUser)
    throw Error(Code::kForbidden, "an API key belongs to one organization and cannot make another")
        .hint("sign in as a person: flock login");
  const OrgId org = OrgId::fresh();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    try {
      co_await tx.query(sql::kOrganizationInsert, Params().text(org.text()).text(name).text(slug));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "there is an organization of this name already")
          .with("slug", slug);
    }
    co_await tx.query(
        sql::kMemberInsert,
        Params().text(org.text()).text(call.who.id).text(std::string("owner")).text(std::nullopt));
    const auto made = co_await tx.query(sql::kOrganizationGet, Params().text(org.text()));
    bj::object out = organization_json(call, made.rows.at(0));
    out["role"] = "owner";
    co_return Change{"organization", org.text(), name, call.answer(201, out), {}, org};
  };
  net::Reply reply = co_await call.mutate_in(Scope::system(), work);
  call.context.principals.forget();
  co_return reply;
}

// The one organization that the request is about; any other is not there.
Task<Row> own_organization(Call& call, postgres::Transaction* tx = nullptr) {
  const std::string& wanted = call.parameter("id");
  if (wanted != call.org() && wanted != call.who.org_slug)
    throw Error(Code::kNotFound, "no such organization")
        .with("organization", wanted)
        .hint("flock orgs lists those you are in");
  Params params = Params().text(call.org());
  const auto rows = tx != nullptr ? co_await tx->query(sql::kOrganizationGet, std::move(params))
                                  : co_await call.query(sql::kOrganizationGet, std::move(params));
  co_return rows.rows.at(0);
}

Task<net::Reply> get_organization(Call& call) {
  const Row row = co_await own_organization(call);
  co_return call.answer(200, organization_json(call, row));
}

struct OrganizationChange {
  std::optional<std::string> name;
  std::optional<std::int64_t> telemetry_days, logs_days;  // 0: as configured
};

OrganizationChange read_change(const bj::value& body) {
  json::Reader in(body);
  OrganizationChange out;
  out.name = in.optional_string("name", {.min = 1, .max = 100});
  if (const bj::value* value = in.optional_value("retention")) {
    json::Reader retention(*value, "/retention", in);
    const json::Reader::Range days{0, stores::kMaxRetentionDays};
    out.telemetry_days = retention.optional_integer("telemetry_days", days);
    out.logs_days = retention.optional_integer("logs_days", days);
    retention.finish();
  }
  if (!out.name && !out.telemetry_days && !out.logs_days)
    in.problem("name", "required", "nothing to change: name or retention");
  in.finish();
  return out;
}

std::optional<std::string> as_text(const std::optional<std::int64_t>& value) {
  return value ? std::optional(std::to_string(*value)) : std::nullopt;
}

// Of the two, what differs.
bj::object differences(const bj::object& before, const bj::object& now) {
  bj::object out;
  for (const char* key : {"name", "retention"}) {
    if (before.at(key) != now.at(key))
      out[key] = {{"before", before.at(key)}, {"now", now.at(key)}};
  }
  return out;
}

Task<net::Reply> change_organization(Call& call) {
  const bj::value body = read_body(call.request);
  const OrganizationChange change = read_change(body);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    co_await tx.query(sql::kOrganizationLock, Params().text(call.org()));
    const bj::object before = organization_json(call, co_await own_organization(call, &tx));
    call.check_match(before);
    if (change.name)
      co_await tx.query(sql::kOrganizationRename, Params().text(call.org()).text(*change.name));
    co_await tx.query(sql::kRetentionSet, Params()
                                              .text(call.org())
                                              .text(as_text(change.telemetry_days))
                                              .text(as_text(change.logs_days)));
    const bj::object now = organization_json(call, co_await own_organization(call, &tx));
    co_return Change{"organization", call.org(), std::string(now.at("name").as_string()),
                     call.answer(200, now), differences(before, now)};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_organization_routes(Context& c) {
  c.add(signed_in("listOrganizations", "GET", "/v1/organizations"), list_organizations);
  c.add(signed_in("createOrganization", "POST", "/v1/organizations"), create_organization);
  c.add(allowed("getOrganization", "GET", "/v1/organizations/{id}", Permission::kOrganizationRead),
        get_organization);
  c.add(allowed("changeOrganization", "PATCH", "/v1/organizations/{id}",
                Permission::kOrganizationWrite),
        change_organization);
}

}  // namespace flock::targets::api

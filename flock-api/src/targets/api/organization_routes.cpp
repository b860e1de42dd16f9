// SPDX-License-Identifier: Apache-2.0
// The organizations that the caller is in.
#include "stores/postgres/account_statements.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

bj::object organization_json(const Row& row) {
  bj::object out{{"id", row.text("id")}, {"name", row.text("name")}, {"slug", row.text("slug")}};
  set_time(out, "created_at", row.time("created_at"));
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
      bj::object item = organization_json(row);
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
    co_return Change{"organization",
                     org.text(),
                     name,
                     call.answer(201, organization_json(made.rows.at(0))),
                     {},
                     org};
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
  co_return call.answer(200, organization_json(row));
}

Task<net::Reply> rename_organization(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string name = in.string("name", {.min = 1, .max = 100});
  in.finish();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    co_await tx.query(sql::kOrganizationLock, Params().text(call.org()));
    const Row before = co_await own_organization(call, &tx);
    call.check_match(organization_json(before));
    co_await tx.query(sql::kOrganizationRename, Params().text(call.org()).text(name));
    const Row now = co_await own_organization(call, &tx);
    co_return Change{"organization",
                     call.org(),
                     name,
                     call.answer(200, organization_json(now)),
                     {{"name", name}, {"before", before.text("name")}}};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_organization_routes(Context& c) {
  c.add(signed_in("listOrganizations", "GET", "/v1/organizations"), list_organizations);
  c.add(signed_in("createOrganization", "POST", "/v1/organizations"), create_organization);
  c.add(allowed("getOrganization", "GET", "/v1/organizations/{id}", Permission::kOrganizationRead),
        get_organization);
  c.add(allowed("renameOrganization", "PATCH", "/v1/organizations/{id}",
                Permission::kOrganizationWrite),
        rename_organization);
}

}  // namespace flock::targets::api

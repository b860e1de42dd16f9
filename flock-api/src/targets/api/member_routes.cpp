// SPDX-License-Identifier: Apache-2.0
// Members of an organization, and invitations to become one.
#include <algorithm>

#include "stores/postgres/account_statements.h"
#include "targets/api/access.h"

namespace flock::targets::api {
namespace {

constexpr Duration kLongestInvitation{std::int64_t{30} * 86'400'000};
constexpr Duration kInvitation{std::int64_t{7} * 86'400'000};

bj::object member_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"name", row.text("name")},
                 {"email", row.text("email")},
                 {"role", row.text("role")}};
  if (const auto fleets = fleets_json(row)) out["fleet_ids"] = *fleets;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

Task<net::Reply> list_members(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kMemberList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(member_json(row));
  co_return list_reply(std::move(items), page);
}

Task<Row> find_member(Call& call, postgres::Transaction& tx) {
  const std::string& id = call.parameter("id");
  const auto rows = co_await tx.query(sql::kMemberGet, Params().text(call.org()).text(id));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such member")
        .with("member", id)
        .hint("flock members lists them");
  co_return rows.rows.front();
}

// An organization without an owner could never be helped.
Task<void> keep_an_owner(Call& call, postgres::Transaction& tx, const std::string& leaving) {
  const auto owners = co_await tx.query(sql::kOwnersLock, Params().text(call.org()));
  if (owners.rows.size() == 1 && owners.rows.front().text("id") == leaving)
    throw Error(Code::kConflict, "this is the last owner of the organization")
        .hint("make somebody else owner first: flock members role MEMBER owner");
}

Task<net::Reply> change_member(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const Access access = read_access(in);
  in.finish();
  const auto fleets = co_await resolve_fleets(call, access);
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    co_await tx.query(sql::kOrganizationLock, Params().text(call.org()));
    const Row before = co_await find_member(call, tx);
    call.check_match(member_json(before));
    check_grant(call.who, *domain::parse_role(before.text("role")));
    check_grant(call.who, access.role);
    if (access.role != domain::Role::kOwner) co_await keep_an_owner(call, tx, before.text("id"));
    co_await tx.query(sql::kMemberUpdate,
                      fleets_param(Params()
                                       .text(call.org())
                                       .text(before.text("id"))
                                       .text(std::string(to_string(access.role))),
                                   fleets));
    const Row now = co_await find_member(call, tx);
    co_return Change{"member",
                     before.text("id"),
                     before.text("email"),
                     call.answer(200, member_json(now)),
                     {{"role", to_string(access.role)}, {"before", before.text("role")}}};
  };
  net::Reply reply = co_await call.mutate(work);
  call.context.principals.forget();
  co_return reply;
}

Task<net::Reply> remove_member(Call& call) {
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row member = co_await find_member(call, tx);
    check_grant(call.who, *domain::parse_role(member.text("role")));
    co_await keep_an_owner(call, tx, member.text("id"));
    co_await tx.query(sql::kMemberRemove, Params().text(call.org()).text(member.text("id")));
    co_return Change{"member", member.text("id"), member.text("email"), json_reply(204, nullptr)};
  };
  net::Reply reply = co_await call.mutate(work);
  call.context.principals.forget();
  co_return reply;
}

// --- Invitations
// ----------------------------------------------------------------------------------

bj::object invitation_json(const Row& row) {
  bj::object out{{"id", row.text("id")},
                 {"email", row.text("email")},
                 {"role", row.text("role")},
                 {"state", row.text("state")},
                 {"invited_by", row.text("invited_by")}};
  if (const auto fleets = fleets_json(row)) out["fleet_ids"] = *fleets;
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "expires_at", row.time("expires_at"));
  return out;
}

Task<net::Reply> list_invitations(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kInvitationList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(invitation_json(row));
  co_return list_reply(std::move(items), page);
}

Task<net::Reply> create_invitation(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string email = in.string("email", {.min = 3, .max = 254});
  if (std::count(email.begin(), email.end(), '@') != 1 || email.front() == '@' ||
      email.back() == '@' || email.find_first_of(" \t\r\n<>,;") != std::string::npos)
    in.problem("email", "invalid", "must be an address such as ada@example.com");
  const Access access = read_access(in);
  const TimePoint expires = read_expiry(in, "expires_in", kLongestInvitation)
                                .value_or(system_clock().now() + kInvitation);
  in.finish();
  check_grant(call.who, access.role);
  const auto fleets = co_await resolve_fleets(call, access);
  const services::FreshKey key = services::make_key("fli_");
  const std::string id = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    Params params = fleets_param(
        Params().text(id).text(call.org()).text(email).text(std::string(to_string(access.role))),
        fleets);
    co_await tx.query(sql::kInvitationInsert,
                      std::move(params.bytes(key.hash).text(call.who.name).time(expires)));
    const auto made = co_await tx.query(sql::kInvitationGet, Params().text(call.org()).text(id));
    bj::object out = invitation_json(made.rows.at(0));
    out["secret"] = key.secret;
    co_return Change{
        "invitation", id, email, json_reply(201, out), {{"role", to_string(access.role)}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> revoke_invitation(Call& call) {
  const std::string id = KeyId::parse(call.parameter("id"), "invitation id").text();
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto rows = co_await tx.query(sql::kInvitationGet, Params().text(call.org()).text(id));
    if (rows.empty()) throw Error(Code::kNotFound, "no such invitation").with("id", id);
    const auto done = co_await tx.query(sql::kInvitationRevoke, Params().text(call.org()).text(id));
    if (done.affected == 0)
      throw Error(Code::kConflict, "the invitation was accepted already")
          .hint("remove the member instead: flock members rm MEMBER");
    co_return Change{"invitation", id, rows.rows.front().text("email"), json_reply(204, nullptr)};
  };
  co_return co_await call.mutate(work);
}

// Whoever holds the invitation's secret and is signed in becomes a member; it works once. The
// address is where it was sent to, not who may use it: providers do not always tell addresses.
Task<net::Reply> accept_invitation(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string secret = in.string("token", {.min = 1, .max = 100});
  in.finish();
  if (call.who.kind != Principal::Kind::kUser)
    throw Error(Code::kForbidden, "only a person can accept an invitation")
        .hint("sign in: flock login");
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const auto rows =
        co_await tx.query(sql::kInvitationByHash, Params().bytes(services::hash_key(secret)));
    if (rows.empty())
      throw Error(Code::kNotFound, "no such invitation").hint("copy it again; it begins with fli_");
    const Row& invitation = rows.rows.front();
    if (invitation.text("state") != "PENDING")
      throw Error(Code::kConflict, "the invitation is no longer open: " + invitation.text("state"))
          .hint("ask for another one");
    const OrgId org = OrgId::trusted(invitation.text("org_id"));
    try {
      co_await tx.query(sql::kMemberInsert, Params()
                                                .text(org.text())
                                                .text(call.who.id)
                                                .text(invitation.text("role"))
                                                .text(array_text(invitation)));
    } catch (const Error& error) {
      if (error.code() != Code::kConflict) throw;
      throw Error(Code::kConflict, "you are a member already").hint("flock whoami");
    }
    co_await tx.query(sql::kInvitationAccepted,
                      Params().text(org.text()).text(invitation.text("id")));
    const auto made =
        co_await tx.query(sql::kMemberGet, Params().text(org.text()).text(call.who.id));
    bj::object out = member_json(made.rows.at(0));
    const auto joined = co_await tx.query(sql::kOrganizationGet, Params().text(org.text()));
    const Row& organization = joined.rows.at(0);
    out["organization"] = {{"id", org.text()},
                           {"slug", organization.text("slug")},
                           {"name", organization.text("name")}};
    co_return Change{"member",
                     call.who.id,
                     call.who.email,
                     json_reply(201, out),
                     {{"invitation", invitation.text("id")}, {"role", invitation.text("role")}},
                     org};
  };
  net::Reply reply = co_await call.mutate_in(Scope::system(), work);
  call.context.principals.forget();
  co_return reply;
}

}  // namespace

void add_member_routes(Context& c) {
  c.add(allowed("listMembers", "GET", "/v1/members", Permission::kMembersRead), list_members);
  c.add(allowed("changeMember", "PATCH", "/v1/members/{id}", Permission::kMembersWrite),
        change_member);
  c.add(allowed("removeMember", "DELETE", "/v1/members/{id}", Permission::kMembersWrite),
        remove_member);
  c.add(allowed("listInvitations", "GET", "/v1/invitations", Permission::kMembersRead),
        list_invitations);
  c.add(allowed("createInvitation", "POST", "/v1/invitations", Permission::kMembersWrite),
        create_invitation);
  c.add(allowed("revokeInvitation", "DELETE", "/v1/invitations/{id}", Permission::kMembersWrite),
        revoke_invitation);
  c.add(signed_in("acceptInvitation", "POST", "/v1/invitations/accept"), accept_invitation);
}

}  // namespace flock::targets::api

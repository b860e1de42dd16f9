// SPDX-License-Identifier: Apache-2.0
// Releases: made as a draft or final, tagged, found invalid, compared, deleted.
#include "services/releases.h"

#include <algorithm>

#include "domain/filter.h"
#include "domain/order.h"
#include "domain/release_diff.h"
#include "stores/postgres/account_statements.h"
#include "targets/api/call.h"
#include "workload/workload.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostTags = 32;
constexpr std::string_view kStates[] = {"DRAFT", "FINAL", "INVALID"};

bj::object release_json(const Row& row) {
  bj::array services;
  for (const auto& service : workload::from_json(row.text("workload")).services) {
    bj::array platforms;
    for (const auto& [platform, digest] : service.digests)
      platforms.push_back(bj::object{{"platform", platform}, {"digest", digest}});
    services.push_back(bj::object{{"name", service.name},
                                  {"image", service.image},
                                  {"repository", service.repository},
                                  {"platforms", std::move(platforms)}});
  }
  bj::object out{{"id", row.text("id")},
                 {"version", row.text("version")},
                 {"state", row.text("state")},
                 {"tags", json::parse(row.text("tags"))},
                 {"services", std::move(services)},
                 {"notes", json::parse(row.text("notes"))},
                 {"compose", row.text("compose")},
                 {"digest", row.text("digest")}};
  if (const auto note = row.optional_text("note")) out["note"] = *note;
  if (const auto reason = row.optional_text("invalid_reason")) out["invalid_reason"] = *reason;
  set_time(out, "created_at", row.time("created_at"));
  set_time(out, "finalized_at", row.optional_time("finalized_at"));
  return out;
}

Row only(const postgres::Rows& rows, const std::string& id) {
  if (rows.empty())
    throw Error(Code::kNotFound, "no such release")
        .with("release", id)
        .hint("flock releases lists them");
  return rows.rows.front();
}

Task<Row> find_release(Call& call, std::string name) {
  const auto rows = co_await call.query(sql::kReleaseGet, Params().text(call.org()).text(name));
  co_return only(rows, name);
}

Task<Row> find_release_in(postgres::Transaction& tx, const Call& call, const char* statement,
                          std::string name) {
  const auto rows = co_await tx.query(statement, Params().text(call.org()).text(name));
  co_return only(rows, name);
}

Task<net::Reply> get_release(Call& call) {
  const Row row = co_await find_release(call, call.parameter("id"));
  co_return call.answer(200, release_json(row));
}

bool is_tag(std::string_view tag) {
  return std::all_of(tag.begin(), tag.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == ':' || c == '/';
  });
}

std::vector<std::string> read_tags(json::Reader& in) {
  std::vector<std::string> tags = in.optional_strings("tags", kMostTags, {.min = 1, .max = 63});
  for (std::size_t i = 0; i < tags.size(); ++i) {
    if (!is_tag(tags[i]))
      item_problem(in, "tags", std::to_string(i), "has letters, digits and - _ . : / only");
  }
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  return tags;
}

Task<net::Reply> create_release(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  services::NewRelease release;
  release.version = in.optional_string("version", {.min = 1, .max = 64});
  if (release.version && is_uuid(*release.version))
    in.problem("version", "invalid", "must not look like an id");
  if (release.version && release.version->find('/') != std::string::npos)
    in.problem("version", "invalid", "must not hold a slash");
  if (const std::string fault = domain::version_fault(release.version.value_or("")); !fault.empty())
    in.problem("version", "invalid", fault);
  release.note = in.optional_string("note", {.min = 0, .max = 2000});
  release.compose = in.string("compose", {.min = 1, .max = 256 * 1024});
  release.tags = read_tags(in);
  release.draft = in.optional_boolean("draft").value_or(false);
  in.finish();
  // The registry is asked before the transaction: it may take its time.
  const services::LockedRelease locked =
      co_await services::lock_release(call.context.registry, std::move(release));
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const ReleaseId id = co_await services::store_release(tx, call.who.org, locked);
    const Row row = co_await find_release_in(tx, call, sql::kReleaseGet, id.text());
    const bj::object made = release_json(row);
    co_return Change{"release",
                     id.text(),
                     row.text("version"),
                     call.answer(201, made),
                     {{"digest", made.at("digest")}, {"state", made.at("state")}}};
  };
  co_return co_await call.mutate(work);
}

// Locks the release, checks If-Match, lets `change` do its part, and answers with what is then.
using ChangeRelease = std::function<Task<bj::object>(postgres::Transaction&, const Row&)>;
Task<net::Reply> change_release(Call& call, ChangeRelease change) {
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row before = co_await find_release_in(tx, call, sql::kReleaseLock, call.parameter("id"));
    call.check_match(release_json(before));
    bj::object detail = co_await change(tx, before);
    const Row now = co_await find_release_in(tx, call, sql::kReleaseGet, before.text("id"));
    co_return Change{"release", now.text("id"), now.text("version"),
                     call.answer(200, release_json(now)), std::move(detail)};
  };
  co_return co_await call.mutate(work);
}

void require_draft(const Row& release) {
  if (release.text("state") == "DRAFT") return;
  throw Error(Code::kConflict, "the release is no draft: what was made final never changes")
      .with("release", release.text("version"))
      .hint("make another release");
}

Task<net::Reply> replace_release(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  services::NewRelease fresh;
  fresh.compose = in.string("compose", {.min = 1, .max = 256 * 1024});
  in.finish();
  // Said before the registry is asked, and again with the release locked.
  const Row before = co_await find_release(call, call.parameter("id"));
  require_draft(before);
  const services::LockedRelease locked =
      co_await services::lock_release(call.context.registry, std::move(fresh));
  co_return co_await change_release(
      call, [&](postgres::Transaction& tx, const Row& row) -> Task<bj::object> {
        require_draft(row);
        co_await tx.query(sql::kReleaseReplace, Params()
                                                    .text(call.org())
                                                    .text(row.text("id"))
                                                    .text(locked.compose)
                                                    .text(locked.workload)
                                                    .text(locked.digest)
                                                    .text(locked.notes));
        co_return bj::object{{"digest", locked.digest}, {"before", row.text("digest")}};
      });
}

Task<net::Reply> describe_release(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const auto note = in.optional_string("note", {.min = 0, .max = 2000});
  const bool has_tags = in.optional_value("tags") != nullptr;
  const std::vector<std::string> tags = has_tags ? read_tags(in) : std::vector<std::string>();
  if (!note && !has_tags) in.problem("", "required", "must have a note or tags");
  in.finish();
  co_return co_await change_release(
      call, [&](postgres::Transaction& tx, const Row& row) -> Task<bj::object> {
        Params params;
        params.text(call.org()).text(row.text("id"));
        params.text(note ? (note->empty() ? std::nullopt : note) : row.optional_text("note"));
        std::vector<std::string> wanted = tags;
        if (!has_tags) {
          for (const bj::value& tag : json::parse(row.text("tags")).as_array())
            wanted.emplace_back(tag.as_string());
        }
        co_await tx.query(sql::kReleaseDescribe, std::move(params.texts(wanted)));
        co_return bj::object(body.as_object());
      });
}

Task<net::Reply> finalize_release(Call& call) {
  co_return co_await change_release(
      call, [&](postgres::Transaction& tx, const Row& row) -> Task<bj::object> {
        require_draft(row);
        co_await tx.query(sql::kReleaseFinalize, Params().text(call.org()).text(row.text("id")));
        co_return bj::object{{"digest", row.text("digest")}};
      });
}

Task<net::Reply> invalidate_release(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string reason = in.string("reason", {.min = 1, .max = 500});
  in.finish();
  co_return co_await change_release(
      call, [&](postgres::Transaction& tx, const Row& row) -> Task<bj::object> {
        if (row.text("state") == "DRAFT")
          throw Error(Code::kConflict, "the release is a draft")
              .with("release", row.text("version"))
              .hint("delete it, or replace its compose file");
        co_await tx.query(sql::kReleaseInvalidate,
                          Params().text(call.org()).text(row.text("id")).text(reason));
        co_return bj::object{{"reason", reason}};
      });
}

Task<net::Reply> delete_release(Call& call) {
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const Row release = co_await find_release_in(tx, call, sql::kReleaseLock, call.parameter("id"));
    call.check_match(release_json(release));
    const std::string id = release.text("id"), version = release.text("version");
    const services::ReleaseUse use = co_await services::release_use(tx, call.who.org, id);
    if (use.any())
      throw Error(Code::kConflict, "the release is needed: " + use.describe())
          .with("release", version)
          .hint("deploy another release there first");
    co_await tx.query(sql::kReleaseDelete, Params().text(call.org()).text(id));
    co_return Change{
        "release", id, version, json_reply(204, nullptr), {{"digest", release.text("digest")}}};
  };
  // Also what is out of the caller's sight may need it.
  co_return co_await call.mutate_in(Scope::tenant(call.who.org), work);
}

bj::array fields_json(const std::vector<domain::FieldChange>& fields) {
  bj::array out;
  for (const auto& each : fields) {
    bj::object change{{"field", each.field}};
    if (!each.from.empty()) change["from"] = json::parse(each.from);
    if (!each.to.empty()) change["to"] = json::parse(each.to);
    out.push_back(std::move(change));
  }
  return out;
}

Task<net::Reply> diff_release(Call& call) {
  allow_query(call.request, {"to"});
  const auto other = call.request.query("to");
  if (!other || other->empty())
    throw Error(Code::kInvalidArgument, "with which release?")
        .problems({{"?to", "required", "is the id or version of the other release"}});
  const Row from = co_await find_release(call, call.parameter("id"));
  const Row to = co_await find_release(call, *other);
  const domain::ReleaseDiff diff = domain::diff_releases(workload::from_json(from.text("workload")),
                                                         workload::from_json(to.text("workload")));
  const auto name = [](const Row& row) {
    return bj::object{{"id", row.text("id")}, {"version", row.text("version")}};
  };
  bj::array services;
  for (const auto& service : diff.services)
    services.push_back(bj::object{{"name", service.name},
                                  {"change", to_string(service.change)},
                                  {"fields", fields_json(service.fields)}});
  co_return json_reply(200, bj::object{{"from", name(from)},
                                       {"to", name(to)},
                                       {"equal", diff.empty()},
                                       {"services", std::move(services)},
                                       {"fields", fields_json(diff.others)}});
}

const domain::FieldTable& release_fields() {
  using domain::FieldType;
  static const domain::FieldTable fields = {
      {"id", FieldType::kId, "r.id", {}, true, false},
      {"created_at", FieldType::kTime, "r.created_at", {}, true, false},
      {"version", FieldType::kVersion, "r.version", {}, true, true},
      {"state", FieldType::kEnum, "r.state", {kStates, std::end(kStates)}, false, false},
      {"note", FieldType::kText, "r.note", {}, false, true},
  };
  return fields;
}

struct ReleaseQuery {
  std::string state, tag, version_prefix;
  domain::Filter filter;
  domain::Order order;
  // What the page token belongs to.
  std::string text() const {
    return state + "\n" + tag + "\n" + version_prefix + "\n" + domain::to_text(filter);
  }
};

ReleaseQuery read_query(const net::Request& request) {
  allow_query(request,
              {"page_size", "page_token", "state", "tag", "version_prefix", "filter", "order_by"});
  ReleaseQuery out;
  out.state = request.query("state").value_or("");
  if (!out.state.empty() && std::ranges::find(kStates, out.state) == std::end(kStates))
    throw bad_parameter("state", "must be DRAFT, FINAL or INVALID");
  out.tag = request.query("tag").value_or("");
  out.version_prefix = request.query("version_prefix").value_or("");
  out.filter = domain::parse_filter(request.query("filter").value_or(""), release_fields());
  const std::string order = request.query("order_by").value_or("");
  out.order = domain::parse_order(order.empty() ? "id desc" : order, release_fields());
  return out;
}

Task<net::Reply> list_releases(Call& call) {
  const ReleaseQuery query = read_query(call.request);
  const std::int64_t size = read_page_size(call.request);
  const domain::FieldTable& fields = release_fields();
  std::string columns, conditions;
  const auto keys = domain::key_columns(query.order, fields);
  for (std::size_t i = 0; i < keys.size(); ++i)
    columns += ", " + keys[i] + " AS key_" + std::to_string(i);
  Params params;
  params.text(call.org()).text(query.state).text(query.tag).text(query.version_prefix);
  int next = 5;
  const auto add = [&](const domain::Sql& part) {
    conditions += " AND (" + part.text + ")";
    for (const std::string& value : part.values) params.text(value), ++next;
  };
  if (!query.filter.parts.empty() || query.filter.kind == domain::Filter::Kind::kTerm)
    add(domain::compile_sql(query.filter, fields, next, system_clock().now()));
  if (const auto token = call.request.query("page_token"); token && !token->empty()) {
    const auto after = domain::decode_cursor(*token, query.order, fields, query.text());
    add(domain::after_sql(query.order, fields, after, next));
  }
  params.integer(size + 1);
  const std::string statement = sql::kReleaseListColumns + columns + sql::kReleaseListFrom +
                                conditions + " ORDER BY " + domain::order_sql(query.order, fields) +
                                " LIMIT $" + std::to_string(next) + "::bigint";
  const auto rows = co_await call.query(statement.c_str(), std::move(params));
  bj::array items;
  std::string token;
  for (const Row& row : rows.rows) {
    if (static_cast<std::int64_t>(items.size()) == size) break;
    items.push_back(release_json(row));
  }
  if (rows.rows.size() > items.size()) {
    domain::CursorKeys last;
    for (std::size_t i = 0; i < keys.size(); ++i)
      last.push_back(rows.rows[items.size() - 1].optional_text("key_" + std::to_string(i)));
    token = domain::encode_cursor(query.order, query.text(), last);
  }
  co_return json_reply(200, bj::object{{"items", std::move(items)}, {"next_page_token", token}});
}

bj::object retention_json(const postgres::Rows& rows) {
  bj::object out;
  if (rows.empty()) return out;
  for (const char* key : {"keep_last", "keep_days"}) {
    if (const auto value = rows.rows.front().optional_integer(key)) out[key] = *value;
  }
  return out;
}

Task<net::Reply> get_retention(Call& call) {
  const auto rows = co_await call.query(sql::kRetentionGet, Params().text(call.org()));
  co_return call.answer(200, retention_json(rows));
}

Task<net::Reply> set_retention(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const auto last = in.optional_integer("keep_last", {.min = 1, .max = 100'000}),
             days = in.optional_integer("keep_days", {.min = 1, .max = 36'500});
  in.finish();
  const auto number = [](const std::optional<std::int64_t>& value) {
    return value ? std::optional(std::to_string(*value)) : std::nullopt;
  };
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    co_await tx.query(sql::kOrganizationLock, Params().text(call.org()));
    const auto before = co_await tx.query(sql::kRetentionGet, Params().text(call.org()));
    call.check_match(retention_json(before));
    co_await tx.query(sql::kRetentionPut,
                      Params().text(call.org()).text(number(last)).text(number(days)));
    const auto now = co_await tx.query(sql::kRetentionGet, Params().text(call.org()));
    co_return Change{"release_retention", call.org(), call.who.org_slug,
                     call.answer(200, retention_json(now)), bj::object(body.as_object())};
  };
  co_return co_await call.mutate(work);
}

}  // namespace

void add_release_routes(Context& c) {
  const Permission read = Permission::kReleasesRead, write = Permission::kReleasesWrite;
  c.add(allowed("listReleases", "GET", "/v1/releases", read), list_releases);
  c.add(allowed("createRelease", "POST", "/v1/releases", write), create_release);
  c.add(allowed("getRelease", "GET", "/v1/releases/{id}", read), get_release);
  c.add(allowed("replaceRelease", "PUT", "/v1/releases/{id}", write), replace_release);
  c.add(allowed("describeRelease", "PATCH", "/v1/releases/{id}", write), describe_release);
  c.add(allowed("deleteRelease", "DELETE", "/v1/releases/{id}", write), delete_release);
  c.add(allowed("finalizeRelease", "POST", "/v1/releases/{id}/actions/finalize", write),
        finalize_release);
  c.add(allowed("invalidateRelease", "POST", "/v1/releases/{id}/actions/invalidate", write),
        invalidate_release);
  c.add(allowed("diffReleases", "GET", "/v1/releases/{id}/diff", read), diff_release);
  c.add(allowed("getReleaseRetention", "GET", "/v1/release-retention", read), get_retention);
  c.add(allowed("setReleaseRetention", "PUT", "/v1/release-retention",
                Permission::kOrganizationWrite),
        set_retention);
}

}  // namespace flock::targets::api

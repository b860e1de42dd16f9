// SPDX-License-Identifier: Apache-2.0
#include "services/releases.h"

#include "targets/api/context.h"
#include "workload/workload.h"

namespace flock::targets::api {
namespace {

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
                 {"state", "FINAL"},
                 {"services", std::move(services)},
                 {"notes", json::parse(row.text("notes"))},
                 {"compose", row.text("compose")},
                 {"digest", row.text("digest")}};
  if (const auto note = row.optional_text("note")) out["note"] = *note;
  set_time(out, "created_at", row.time("created_at"));
  return out;
}

Task<bj::object> find_release(Context& c, OrgId org, std::string id) {
  const auto rows = co_await c.parts.db.query(Scope::tenant(org), sql::kReleaseGet,
                                              Params().text(org.text()).text(id));
  if (rows.empty())
    throw Error(Code::kNotFound, "no such release")
        .with("release", id)
        .hint("flock releases lists them");
  co_return release_json(rows.rows.front());
}

Task<net::Reply> create(Context& c, Principal who, net::Request request) {
  const bj::value body = read_body(request);
  json::Reader in(body);
  services::NewRelease release;
  release.version = in.optional_string("version", {.min = 1, .max = 64});
  if (release.version && is_uuid(*release.version))
    in.problem("version", "invalid", "must not look like an id");
  release.note = in.optional_string("note", {.min = 0, .max = 2000});
  release.compose = in.string("compose", {.min = 1, .max = 256 * 1024});
  in.finish();
  const ReleaseId id =
      co_await services::create_release(c.parts.db, c.registry, who.org, std::move(release));
  co_return json_reply(201, co_await find_release(c, who.org, id.text()));
}

Task<net::Reply> list(Context& c, Principal who, net::Request request) {
  allow_query(request, {"page_size", "page_token"});
  const Page page = read_page(request);
  const auto rows = co_await c.parts.db.query(
      Scope::tenant(who.org), sql::kReleaseList,
      Params().text(who.org.text()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(release_json(row));
  co_return list_reply(std::move(items), page);
}

}  // namespace

void add_release_routes(Context& c) {
  using P = Principal;
  using Q = net::Request;
  using A = net::Parameters;
  c.add("GET", "/v1/releases", [&c](P who, Q q, A) { return list(c, who, std::move(q)); });
  c.add("POST", "/v1/releases", [&c](P who, Q q, A) { return create(c, who, std::move(q)); });
  c.add("GET", "/v1/releases/{id}", [&c](P who, Q, A a) -> Task<net::Reply> {
    co_return json_reply(200, co_await find_release(c, who.org, a["id"]));
  });
}

}  // namespace flock::targets::api

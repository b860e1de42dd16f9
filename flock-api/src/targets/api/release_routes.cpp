// SPDX-License-Identifier: Apache-2.0
#include "services/releases.h"

#include "targets/api/call.h"
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

bj::object only_release(const postgres::Rows& rows, const std::string& id) {
  if (rows.empty())
    throw Error(Code::kNotFound, "no such release")
        .with("release", id)
        .hint("flock releases lists them");
  return release_json(rows.rows.front());
}

Task<net::Reply> get_release(Call& call) {
  const std::string& id = call.parameter("id");
  const auto rows = co_await call.query(sql::kReleaseGet, Params().text(call.org()).text(id));
  co_return call.answer(200, only_release(rows, id));
}

Task<net::Reply> create_release(Call& call) {
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  services::NewRelease release;
  release.version = in.optional_string("version", {.min = 1, .max = 64});
  if (release.version && is_uuid(*release.version))
    in.problem("version", "invalid", "must not look like an id");
  release.note = in.optional_string("note", {.min = 0, .max = 2000});
  release.compose = in.string("compose", {.min = 1, .max = 256 * 1024});
  in.finish();
  // The registry is asked before the transaction: it may take its time.
  const services::LockedRelease locked =
      co_await services::lock_release(call.context.registry, std::move(release));
  const auto work = [&](postgres::Transaction& tx) -> Task<Change> {
    const ReleaseId id = co_await services::store_release(tx, call.who.org, locked);
    const auto rows =
        co_await tx.query(sql::kReleaseGet, Params().text(call.org()).text(id.text()));
    const bj::object made = only_release(rows, id.text());
    co_return Change{"release",
                     id.text(),
                     std::string(made.at("version").as_string()),
                     call.answer(201, made),
                     {{"digest", made.at("digest")}}};
  };
  co_return co_await call.mutate(work);
}

Task<net::Reply> list_releases(Call& call) {
  allow_query(call.request, {"page_size", "page_token"});
  const Page page = read_page(call.request);
  const auto rows = co_await call.query(
      sql::kReleaseList, Params().text(call.org()).text(page.after).integer(page.size + 1));
  bj::array items;
  for (const Row& row : rows.rows) items.push_back(release_json(row));
  co_return list_reply(std::move(items), page);
}

}  // namespace

void add_release_routes(Context& c) {
  c.add(allowed("listReleases", "GET", "/v1/releases", Permission::kReleasesRead), list_releases);
  c.add(allowed("createRelease", "POST", "/v1/releases", Permission::kReleasesWrite),
        create_release);
  c.add(allowed("getRelease", "GET", "/v1/releases/{id}", Permission::kReleasesRead), get_release);
}

}  // namespace flock::targets::api

// SPDX-License-Identifier: Apache-2.0
#include "services/comparison.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>

#include "stores/postgres/gate_statements.h"

namespace flock::services {
namespace {

namespace bj = boost::json;
namespace sql = postgres::sql;
using namespace domain;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// How far a comparison is.
struct Progress {
  Evidence evidence;
  std::int64_t since_ms = 0;
  std::string began_at = "-infinity", device = "00000000-0000-0000-0000-000000000000";  // the last
  std::int64_t place = INT64_MAX;  // of the last of the others
};

Progress read_progress(const std::string& text) {
  const bj::object stored = bj::parse(text).as_object();
  const auto number = [&](const char* key) { return stored.at(key).to_number<std::int64_t>(); };
  Progress out;
  Evidence& e = out.evidence;
  e = {number("updated"), number("updated_bad"), number("others"), number("others_bad"), {}, 0};
  e.most = stored.at("most").to_number<double>();
  const bj::array& capital = stored.at("capital").as_array();
  for (std::size_t i = 0; i < std::min(capital.size(), e.capital.size()); ++i)
    e.capital[i] = capital[i].to_number<double>();
  out.since_ms = number("since_ms");
  out.began_at = stored.at("began_at").as_string();
  out.device = stored.at("device").as_string();
  out.place = number("place");
  return out;
}

std::string progress_text(const Progress& progress) {
  const Evidence& e = progress.evidence;
  bj::array capital;
  for (const double value : e.capital) capital.emplace_back(value);
  return bj::serialize(bj::object{{"updated", e.updated},
                                  {"updated_bad", e.updated_bad},
                                  {"others", e.others},
                                  {"others_bad", e.others_bad},
                                  {"most", e.most},
                                  {"capital", std::move(capital)},
                                  {"since_ms", progress.since_ms},
                                  {"began_at", progress.began_at},
                                  {"device", progress.device},
                                  {"place", progress.place}});
}

// Updated devices whose time has come: up to the first that must be waited for.
std::vector<Row> ready(const postgres::Rows& rows) {
  std::vector<Row> out;
  for (const Row& row : rows.rows) {
    const bool settled = row.boolean("settled");
    if (!settled && row.boolean("online")) break;
    out.push_back(row);
  }
  return out;
}

Task<postgres::Rows> others(postgres::Database& db, const Comparison& c, std::int64_t below,
                            std::int64_t count) {
  co_return co_await db.query(Scope::system(), sql::kOtherDevices,
                              Params().text(c.org).text(c.rollout).integer(below).integer(count));
}

Task<Progress> begin(postgres::Database& db, const Comparison& c) {
  const auto stored = co_await db.query(
      Scope::system(), sql::kEvidence,
      Params().text(c.org).text(c.rollout).integer(static_cast<std::int64_t>(c.index)));
  if (!stored.empty()) {
    Progress progress = read_progress(stored.rows.front().text("evidence"));
    if (progress.since_ms >= c.accepted_ms) co_return progress;
    // An operator accepted what there was. Devices that were counted are not counted again.
    progress.evidence = {};
    progress.since_ms = c.at_ms;
    co_return progress;
  }
  Progress progress;
  progress.since_ms = c.at_ms;
  co_return progress;
}

Task<void> learn_usual(postgres::Database& db, const Comparison& c, Progress& progress) {
  // Of few a quarter, so that some are left to bet on.
  const auto rows = co_await others(db, c, progress.place, 4 * kOthersToLearn);
  const std::size_t some = (rows.rows.size() + 3) / 4;
  std::int64_t bad = 0;
  for (std::size_t i = 0; i < some; ++i) bad += rows.rows[i].boolean("bad") ? 1 : 0;
  learn(progress.evidence, static_cast<std::int64_t>(some), bad);
  if (some > 0) progress.place = rows.rows[some - 1].integer("place");
}

}  // namespace

Task<Evidence> gather(postgres::Database& db, Comparison c, std::string& kept) {
  Progress progress = co_await begin(db, c);
  const auto rows = co_await db.query(Scope::system(), sql::kUpdatedDevices,
                                      Params()
                                          .text(c.org)
                                          .text(c.rollout)
                                          .integer(c.gate.after.count())
                                          .text(progress.began_at)
                                          .text(progress.device)
                                          .integer(progress.place));
  const std::vector<Row> updated = ready(rows);
  if (!updated.empty() && progress.evidence.others == 0) co_await learn_usual(db, c, progress);
  const auto settled =
      std::ranges::count_if(updated, [](const Row& row) { return row.boolean("settled"); });
  const auto beside = co_await others(db, c, progress.place, settled * kOthersForEach);
  const auto available = static_cast<std::int64_t>(beside.rows.size());
  const std::int64_t each = settled > 0 ? std::max<std::int64_t>(available / settled, 1) : 0;
  std::int64_t used = 0;
  for (const Row& device : updated) {
    if (device.boolean("settled")) {
      if (used + each > available) break;  // nobody is left to compare with
      std::int64_t bad = 0;
      for (std::int64_t i = used; i < used + each; ++i)
        bad += beside.rows.at(static_cast<std::size_t>(i)).boolean("bad") ? 1 : 0;
      bet(progress.evidence, device.boolean("bad"), each, bad, c.gate.tolerance);
      used += each;
    }
    progress.began_at = device.text("began_at");
    progress.device = device.text("device_id");
  }
  if (used > 0)
    progress.place = beside.rows.at(static_cast<std::size_t>(used - 1)).integer("place");
  kept = progress_text(progress);
  co_return progress.evidence;
}

}  // namespace flock::services

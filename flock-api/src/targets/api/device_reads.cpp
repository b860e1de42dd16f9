// SPDX-License-Identifier: Apache-2.0
#include "targets/api/device_reads.h"

#include <unordered_map>

#include "stores/postgres/device_read_statements.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostTogether = 100;

using Answers = std::vector<std::optional<FoundDevice>>;

Task<Answers> read(postgres::Database& db, stores::LiveState& live,
                   std::vector<const DeviceRead*> reads) {
  const postgres::Scope& scope = reads.front()->scope;
  std::vector<std::string> wanted;
  for (const DeviceRead* one : reads) wanted.push_back(one->id);
  const auto rows = co_await db.query(scope, postgres::sql::kDevicesGet,
                                      postgres::Params().text(scope.org()).texts(wanted));
  std::unordered_map<std::string_view, std::size_t> places;
  std::vector<DeviceId> ids;
  for (const postgres::Row& row : rows.rows) {
    places.emplace(row.text("id"), ids.size());
    ids.push_back(DeviceId::trusted(row.text("id")));
  }
  const auto reported = co_await live.get_reported(std::move(ids));
  Answers answers;
  for (const std::string& id : wanted) {
    const auto place = places.find(id);
    if (place == places.end())
      answers.emplace_back();
    else
      answers.push_back(FoundDevice{rows.rows[place->second], reported[place->second]});
  }
  co_return answers;
}

}  // namespace

DeviceReads::DeviceReads(Executor executor, postgres::Database& db, stores::LiveState& live)
    : batcher_(std::move(executor), kMostTogether,
               [&db, &live](std::vector<const DeviceRead*> reads) {
                 return read(db, live, std::move(reads));
               }) {}

Task<std::optional<FoundDevice>> DeviceReads::find(postgres::Scope scope, std::string id) {
  std::string lane = scope.org() + scope.fleets();
  co_return co_await batcher_.ask(std::move(lane), {std::move(scope), std::move(id)});
}

}  // namespace flock::targets::api

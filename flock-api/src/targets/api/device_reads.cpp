// SPDX-License-Identifier: Apache-2.0
#include "targets/api/device_reads.h"

#include <unordered_map>

#include "async/batcher.h"
#include "stores/postgres/device_read_statements.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostTogether = 100;

struct DeviceRead {
  postgres::Scope scope;
  std::string id;
};
using Answers = std::vector<FoundDevicePtr>;

FoundDevicePtr found_device(postgres::Row row, std::optional<std::string> live) {
  const bj::object device = device_json(row, live);
  std::string body = bj::serialize(device), etag = etag_of(device, kDevicePassing);
  return std::make_shared<const FoundDevice>(std::move(row), std::move(live), std::move(body),
                                             std::move(etag));
}

}  // namespace

struct DeviceReads::Impl {
  Impl(Executor executor, postgres::Database& d, stores::LiveState& l)
      : db(d), live(l), batcher(std::move(executor), kMostTogether, [this](auto reads) {
          return read(std::move(reads));
        }) {}

  Task<Answers> read(std::vector<const DeviceRead*> reads) {
    const postgres::Scope& scope = reads.front()->scope;
    std::vector<std::string> wanted;
    for (const DeviceRead* one : reads) wanted.push_back(one->id);
    auto rows = co_await db.query(scope, postgres::sql::kDevicesGet,
                                  postgres::Params().text(scope.org()).texts(wanted));
    std::vector<DeviceId> ids;
    for (const postgres::Row& row : rows.rows) ids.push_back(DeviceId::trusted(row.text("id")));
    auto reported = co_await live.get_reported(std::move(ids));
    std::unordered_map<std::string_view, FoundDevicePtr> found;
    for (std::size_t i = 0; i < rows.rows.size(); ++i) {
      auto device = found_device(std::move(rows.rows[i]), std::move(reported[i]));
      const std::string_view id = device->row.text("id");
      found.emplace(id, std::move(device));
    }
    Answers answers;
    for (const std::string& id : wanted) {
      const auto place = found.find(id);
      answers.push_back(place != found.end() ? place->second : nullptr);
    }
    co_return answers;
  }

  postgres::Database& db;
  stores::LiveState& live;
  Batcher<DeviceRead, FoundDevicePtr> batcher;  // a lane for each scope
};

DeviceReads::DeviceReads(Executor executor, postgres::Database& db, stores::LiveState& live)
    : impl_(std::make_unique<Impl>(std::move(executor), db, live)) {}
DeviceReads::~DeviceReads() = default;

Task<FoundDevicePtr> DeviceReads::find(postgres::Scope scope, std::string id) {
  std::string lane = scope.org() + scope.fleets();
  co_return co_await impl_->batcher.ask(std::move(lane), {std::move(scope), std::move(id)});
}

}  // namespace flock::targets::api

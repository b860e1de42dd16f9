// SPDX-License-Identifier: Apache-2.0
#include "targets/api/device_reads.h"

#include <algorithm>
#include <unordered_map>

#include "async/batcher.h"
#include "async/scope.h"
#include "stores/postgres/device_read_statements.h"
#include "targets/api/devices.h"

namespace flock::targets::api {
namespace {

constexpr std::size_t kMostTogether = 32;
// While one's answers are written, the next one's questions are on their way.
constexpr std::size_t kRoundTrips = 2;
constexpr std::size_t kMostKept = 24 << 20;  // bytes
// Versions tell changes in one server's history apart, not that a backup was restored.
constexpr Duration kKeptFor{60'000};

struct DeviceRead {
  postgres::Scope scope;
  std::string id;
};

// What was read, with the versions of its rows.
struct Kept : FoundDevice {
  explicit Kept(FoundDevice found) : FoundDevice(std::move(found)) {}
  std::string row_version, fleet_id, fleet_version;
  SteadyPoint until;

  // About what it takes.
  std::size_t bytes() const { return 2048 + 2 * body.size() + (live ? live->size() : 0); }
};
using KeptPtr = std::shared_ptr<const Kept>;

KeptPtr kept_of(Row row, std::optional<std::string> live) {
  const bj::object device = device_json(row, live);
  auto out = std::make_shared<Kept>(FoundDevice{
      std::move(row), std::move(live), bj::serialize(device), etag_of(device, kDevicePassing)});
  out->row_version = out->row.text("row_version");
  out->fleet_id = out->row.text("fleet_id");
  out->fleet_version = out->row.text("fleet_version");
  out->until = std::chrono::steady_clock::now() + kKeptFor;
  return out;
}

}  // namespace

// What was read is kept with the versions of its rows. A request asks for the versions, and reads
// what has another one: so nobody is answered with what was not so when he asked, or of a row that
// PostgreSQL does not show him, whoever read it first.
struct DeviceReads::Impl {
  using Devices = std::vector<KeptPtr>;
  using Reports = std::vector<std::optional<std::string>>;

  Impl(Executor executor, postgres::Database& d, stores::LiveState& l)
      : db(d),
        live(l),
        batcher(std::move(executor), kMostTogether, kRoundTrips,
                [this](auto reads) { return read(std::move(reads)); }) {}

  Task<std::vector<FoundDevicePtr>> read(std::vector<const DeviceRead*> reads) {
    const postgres::Scope& scope = reads.front()->scope;
    std::vector<std::string> ids;
    std::vector<DeviceId> asked;
    for (const DeviceRead* one : reads) {
      ids.push_back(one->id);
      asked.push_back(DeviceId::trusted(one->id));
    }
    Devices devices;
    Reports reports;
    std::vector<Task<void>> both;
    both.push_back(store(unchanged(scope, ids), devices));
    both.push_back(store(live.get_reported(std::move(asked)), reports));
    co_await run_all(std::move(both));
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (devices[i] && devices[i]->live != reports[i]) devices[i] = nullptr;
    }
    co_await read_others(scope, ids, reports, devices);
    co_return std::vector<FoundDevicePtr>(std::make_move_iterator(devices.begin()),
                                          std::make_move_iterator(devices.end()));
  }

  template <class T>
  static Task<void> store(Task<T> what, T& place) {
    place = co_await std::move(what);
  }

  // What is kept of those whose rows are as they were and seen by `scope`; null for the others.
  Task<Devices> unchanged(postgres::Scope scope, const std::vector<std::string>& ids) {
    const SteadyPoint now = std::chrono::steady_clock::now();
    Devices devices(ids.size());
    std::vector<std::string> fleets;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const auto found = kept.find(ids[i]);
      if (found == kept.end() || found->second->until < now) continue;
      devices[i] = found->second;
      if (std::find(fleets.begin(), fleets.end(), devices[i]->fleet_id) == fleets.end())
        fleets.push_back(devices[i]->fleet_id);
    }
    if (fleets.empty()) co_return devices;
    Params params = Params().text(scope.org()).texts(ids).texts(fleets);
    const postgres::Rows rows =
        co_await db.query(std::move(scope), sql::kDeviceVersions, std::move(params));
    std::unordered_map<std::string_view, std::string_view> versions;
    for (const Row& row : rows.rows) versions.emplace(row.text("id"), row.text("version"));
    const auto is = [&](const std::string& id, const std::string& version) {
      const auto found = versions.find(id);
      return found != versions.end() && found->second == version;
    };
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const KeptPtr& device = devices[i];
      if (device &&
          !(is(ids[i], device->row_version) && is(device->fleet_id, device->fleet_version)))
        devices[i] = nullptr;
    }
    co_return devices;
  }

  // Reads the rows of those that are null in `devices`; who is not there stays null.
  Task<void> read_others(postgres::Scope scope, const std::vector<std::string>& ids,
                         const Reports& reports, Devices& devices) {
    std::unordered_map<std::string_view, std::vector<std::size_t>> places;
    std::vector<std::string> wanted;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (devices[i]) continue;
      std::vector<std::size_t>& of_one = places[ids[i]];
      if (of_one.empty()) wanted.push_back(ids[i]);
      of_one.push_back(i);
    }
    if (wanted.empty()) co_return;
    Params params = Params().text(scope.org()).texts(wanted);
    postgres::Rows rows = co_await db.query(std::move(scope), sql::kDevicesGet, std::move(params));
    for (Row& row : rows.rows) {
      const std::vector<std::size_t>& of_one = places.at(row.text("id"));
      const KeptPtr device = kept_of(std::move(row), reports[of_one.front()]);
      for (const std::size_t place : of_one) devices[place] = device;
      keep(device);
    }
  }

  void keep(const KeptPtr& device) {
    KeptPtr& place = kept[device->row.text("id")];
    if (place) kept_bytes -= place->bytes();
    place = device;
    kept_bytes += device->bytes();
    if (kept_bytes <= kMostKept) return;
    kept.clear();
    kept_bytes = 0;
  }

  postgres::Database& db;
  stores::LiveState& live;
  Batcher<DeviceRead, FoundDevicePtr> batcher;    // a lane for each scope
  std::unordered_map<std::string, KeptPtr> kept;  // by id, whoever asked for it
  std::size_t kept_bytes = 0;
};

DeviceReads::DeviceReads(Executor executor, postgres::Database& db, stores::LiveState& live)
    : impl_(std::make_unique<Impl>(std::move(executor), db, live)) {}
DeviceReads::~DeviceReads() = default;

Task<FoundDevicePtr> DeviceReads::find(postgres::Scope scope, std::string id) {
  std::string lane = scope.org() + scope.fleets();
  return impl_->batcher.ask(std::move(lane), {std::move(scope), std::move(id)});
}

}  // namespace flock::targets::api

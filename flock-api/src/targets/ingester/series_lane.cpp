// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/series_lane.h"

#include <algorithm>

#include "async/blocking.h"
#include "async/deadline.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"

namespace flock::targets::ingester {
namespace {

using internal::v1::SpooledMessage;

constexpr std::size_t kRows = 5000, kMessages = 512;
constexpr Duration kWait{200}, kRetry{1000}, kAnswer{2000};
constexpr std::size_t kInboxBytes = 64 << 20;
constexpr std::size_t kDrainBytes = 1 << 20;
constexpr int kGapRounds = 1000;
constexpr std::size_t kOwnMost = 10'000;

// The store is away or busy: what it was given may be given again. Anything else is the fault of
// what it was given.
bool is_away(const Error& error) {
  return error.code() == Code::kUnavailable || error.code() == Code::kTimeout;
}

SpoolOptions spool_options(const SeriesLane::Options& options,
                           std::function<void(std::string_view)> on_drop) {
  SpoolOptions out;
  out.directory = options.spool_directory;
  out.limit_bytes = options.spool_bytes;
  out.segment_bytes = static_cast<std::size_t>(
      std::clamp<std::int64_t>(options.spool_bytes / 16, 64 << 10, 8 << 20));
  out.record_bytes = 2 * domain::kUplinkBytes;
  out.on_drop = std::move(on_drop);
  return out;
}

}  // namespace

bool SeriesLane::Batch::full() const { return rows.count() >= kRows || items.size() >= kMessages; }

SeriesLane::SeriesLane(Executor executor, stores::TimeSeries& series, Devices& devices,
                       Quarantine& quarantine, Options options)
    : series_(series),
      devices_(devices),
      quarantine_(quarantine),
      options_(std::move(options)),
      inbox_(std::move(executor), kInboxBytes),
      spool_(spool_options(options_, [this](std::string_view record) { note_dropped(record); })),
      meters_(options_.name) {
  if (!spool_.empty())
    log::info("messages wait on disk for the time series",
              {{"lane", options_.name}, {"messages", spool_.waiting_records()}});
}

void SeriesLane::add(Source source, Kind kind, std::string payload,
                     std::optional<mqtt::Delivery> delivery) {
  own_.push_back({std::move(source), kind, std::move(payload), std::move(delivery), 1});
  inbox_.hold(1);
  inbox_.wake();
}

bool SeriesLane::behind() const noexcept { return own_.size() >= kOwnMost; }

Task<void> SeriesLane::run() {
  for (;;) {
    Batch batch;
    co_await gather(batch);
    co_await keep(std::move(batch));
    if (!spool_.empty() && std::chrono::steady_clock::now() >= retry_at_) co_await drain();
    if (inbox_.wants_more()) options_.reconnect();
  }
}

// Until it is full or old enough. With something on disk it waits only when the store is away.
Task<void> SeriesLane::gather(Batch& batch) {
  std::optional<SteadyPoint> until;
  for (;;) {
    while (!own_.empty()) {
      append(batch.rows, spooled(own_.front().source, own_.front().kind, own_.front().payload));
      batch.items.push_back(std::move(own_.front()));
      own_.pop_front();
    }
    co_await take_arrived(batch);
    if (batch.full()) co_return;
    const SteadyPoint now = std::chrono::steady_clock::now();
    const bool something = !batch.items.empty() || !batch.refused.empty();
    if (something && !until) until = now + kWait;
    if (!held_.empty() || !spool_.empty()) {
      const SteadyPoint retry = std::max(now, retry_at_);
      until = until ? std::min(*until, retry) : retry;
    }
    if (!until) {
      co_await inbox_.wait();
      continue;
    }
    if (*until <= now) co_return;
    co_await inbox_.wait_for(std::chrono::ceil<Duration>(*until - now));
  }
}

Task<void> SeriesLane::take_arrived(Batch& batch) {
  std::vector<mqtt::Delivery> deliveries;
  if (std::chrono::steady_clock::now() >= retry_at_) deliveries.swap(held_);
  inbox_.pop(deliveries, kMessages - std::min(kMessages, batch.items.size() + deliveries.size()));
  if (deliveries.empty()) co_return;
  const bool asked = co_await load_devices(deliveries);
  const std::int64_t now_ms = to_unix_ms(system_clock().now());
  for (mqtt::Delivery& delivery : deliveries) {
    const auto uplink = domain::parse_uplink(delivery.message.topic);
    if (!asked && uplink && devices_.find(uplink->device) == nullptr) {
      held_.push_back(std::move(delivery));
      continue;
    }
    judge(batch, std::move(delivery), now_ms);
  }
}

// False when PostgreSQL could not be asked: what is known goes on, the rest waits.
Task<bool> SeriesLane::load_devices(const std::vector<mqtt::Delivery>& deliveries) {
  std::vector<std::string> ids;
  for (const mqtt::Delivery& delivery : deliveries) {
    const auto uplink = domain::parse_uplink(delivery.message.topic);
    if (uplink && devices_.find(uplink->device) == nullptr) ids.emplace_back(uplink->device);
  }
  if (ids.empty()) co_return true;
  try {
    co_await devices_.load(std::move(ids));
    co_return true;
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    retry_at_ = std::chrono::steady_clock::now() + kRetry;
    if (const auto times = unknown_.count())
      log::warn("cannot ask whose a device is; its messages wait", error,
                {{"lane", options_.name}, {"times", times}});
    co_return false;
  }
}

void SeriesLane::judge(Batch& batch, mqtt::Delivery delivery, std::int64_t now_ms) {
  const auto refuse = [&](std::string reason) {
    batch.poison.push_back(make_poison(delivery.message.topic, delivery.message.payload, reason));
    batch.refused.push_back(std::move(delivery));
  };
  const auto uplink = domain::parse_uplink(delivery.message.topic);
  if (!uplink) return refuse("it came on a topic that no device has");
  Device* const device = devices_.find(uplink->device);
  if (device == nullptr) {  // it was removed or revoked
    batch.refused.push_back(std::move(delivery));
    return;
  }
  device->touched = true;
  // Each message has a time of its own: it stands for the device's where its clock is wrong.
  device->received_ms = std::max(now_ms, device->received_ms + 1);
  Source source{device->org, device->fleet, std::string(uplink->device), device->received_ms};
  if (uplink->leaf == domain::Leaf::kTelemetry) {
    std::string fault = domain::read(delivery.message.payload, telemetry_);
    if (!fault.empty()) return refuse(std::move(fault));
    accept(batch, std::move(source), *device, std::move(delivery), telemetry_);
  } else {
    std::string fault = domain::read(delivery.message.payload, logs_);
    if (!fault.empty()) return refuse(std::move(fault));
    accept(batch, std::move(source), *device, std::move(delivery), logs_);
  }
}

// What is over the device's budget goes: telemetry whole, of logs the lines, so that a gap stays.
template <class Payload>
void SeriesLane::accept(Batch& batch, Source source, Device& device, mqtt::Delivery delivery,
                        Payload& payload) {
  Item item{std::move(source), options_.kind, "", std::nullopt, Inbox::size_of(delivery)};
  if (!domain::take(device.budget, rows_of(payload), item.source.received_ms)) {
    if (const auto times = over_budget_.count())
      log::warn("a device sends more than it may; that is dropped",
                {{"lane", options_.name}, {"device", item.source.device}, {"messages", times}});
    if constexpr (std::is_same_v<Payload, device::v1::TelemetryBatch>) {
      batch.refused.push_back(std::move(delivery));
      return;
    } else {
      payload = only_gaps(payload, device::v1::LogGap::RATE_LIMITED);
      delivery.message.payload = payload.SerializeAsString();
    }
  }
  append(batch.rows, item.source, payload);
  item.payload = std::move(delivery.message.payload);
  item.delivery = std::move(delivery);
  batch.items.push_back(std::move(item));
}

// Returns when the store or the disk has all of it.
Task<void> SeriesLane::keep(Batch batch) {
  const SteadyPoint began = std::chrono::steady_clock::now();
  co_await quarantine_.put(std::move(batch.poison));
  meters_.refused.add(static_cast<double>(batch.refused.size()));
  for (mqtt::Delivery& delivery : batch.refused) {
    inbox_.finished(Inbox::size_of(delivery));
    delivery.ack();
  }
  if (batch.items.empty()) co_return;
  const bool stored = co_await store_or_spool(batch.items, std::move(batch.rows));
  (stored ? meters_.stored : meters_.spooled).add(static_cast<double>(batch.items.size()));
  meters_.took(batch.items.size(), began);
  acknowledge(batch.items);
}

// Tries until one of them has it: what is not kept is not acknowledged. True: the store.
Task<bool> SeriesLane::store_or_spool(const Items& items, stores::Rows rows) {
  if (spool_.empty() && co_await store(items, std::move(rows))) co_return true;
  while (!co_await spool(items)) {
    co_await sleep_for(kRetry);
    // Nothing but the store makes room on a disk that is full.
    while (!spool_.empty() && co_await drain()) {
    }
    if (spool_.empty() && co_await answers() && co_await store(items, rows_of_items(items)))
      co_return true;
  }
  co_return false;
}

// A store that hangs is known as away only when an insertion's whole time has passed; so who was
// turned away asks something short first.
Task<bool> SeriesLane::answers() {
  if (!turned_away_) co_return true;
  try {
    co_await with_deadline(series_.ping(), kAnswer, "asking the time series");
    co_return true;
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
  }
  retry_at_ = std::chrono::steady_clock::now() + kRetry;
  co_return false;
}

stores::Rows SeriesLane::rows_of_items(const Items& items) {
  stores::Rows rows;
  for (const Item& item : items) append(rows, spooled(item.source, item.kind, item.payload));
  return rows;
}

// False when the store is away.
Task<bool> SeriesLane::store(const Items& items, stores::Rows rows) {
  if (rows.count() == 0) co_return true;
  std::string fault;
  try {
    const SteadyPoint began = std::chrono::steady_clock::now();
    // Who follows goes by when a line can be read, which may be long after it came.
    const std::int64_t now_ms = to_unix_ms(system_clock().now());
    for (stores::LogRow& row : rows.logs) row.received_ms = now_ms;
    co_await series_.insert(std::move(rows));
    writes_.observe(Meters::seconds_since(began));
    turned_away_ = false;
    co_return true;
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    fault = error.describe();
    if (is_away(error)) {
      turned_away_ = true;
      retry_at_ = std::chrono::steady_clock::now() + kRetry;
      if (const auto times = away_.count())
        log::warn("the time series are away; messages go to disk", error,
                  {{"lane", options_.name}, {"times", times}});
      co_return false;
    }
  }
  if (items.size() > 1) co_return co_await store_apart(items);
  std::vector<Poison> poison{make_poison(items[0].source.device + "/" + options_.name,
                                         items[0].payload, "the time series refused it: " + fault)};
  co_await quarantine_.put(std::move(poison));
  co_return true;
}

// One message of them is refused: by halves, so that it stands in nobody's way.
Task<bool> SeriesLane::store_apart(const Items& items) {
  const auto middle = items.begin() + static_cast<std::ptrdiff_t>(items.size() / 2);
  const std::pair<Items::const_iterator, Items::const_iterator> halves[] = {{items.begin(), middle},
                                                                            {middle, items.end()}};
  for (const auto& [begin, end] : halves) {
    Items half;
    for (auto at = begin; at != end; ++at)
      half.push_back({at->source, at->kind, at->payload, std::nullopt, 0});
    if (!co_await store(half, rows_of_items(half))) co_return false;
  }
  co_return true;
}

// False when the disk does not take them; some of them may be on it all the same.
Task<bool> SeriesLane::spool(const Items& items) {
  try {
    co_await BlockingPool::shared().run_void([this, &items] { write_spool(items); });
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    if (const auto times = disk_full_.count())
      log::error("messages cannot be written to disk; they wait in the broker", error,
                 {{"lane", options_.name}, {"times", times}});
    co_return false;
  }
  meters_.spool_bytes.set(static_cast<double>(spool_.waiting_bytes()));
  const std::int64_t dropped = spool_.dropped().records;
  if (dropped == dropped_before_) co_return true;
  const std::int64_t more = dropped - std::exchange(dropped_before_, dropped);
  meters_.dropped.add(static_cast<double>(more));
  const auto times = dropped_.count(more);
  if (times > 0)
    log::warn("the spool is full; the oldest messages were dropped",
              {{"lane", options_.name}, {"messages", times}, {"in_all", dropped}});
  co_return true;
}

// On a thread of the pool.
void SeriesLane::write_spool(const Items& items) {
  for (const Item& item : items)
    spool_.append(spooled(item.source, item.kind, item.payload).SerializeAsString(),
                  Spool::Sync::kLater);
  append_gaps();
  spool_.sync();
}

// A record that goes because the spool is full. Its lines leave gaps, which are small.
void SeriesLane::note_dropped(std::string_view record) {
  SpooledMessage message;
  device::v1::LogBatch lines;
  if (!message.ParseFromArray(record.data(), static_cast<int>(record.size())) ||
      message.kind() != SpooledMessage::LOGS || !lines.ParseFromString(message.payload()))
    return;
  const auto [at, fresh] = gaps_.try_emplace(message.device_id(), message);
  device::v1::LogBatch gaps;
  if (!fresh) gaps.ParseFromString(at->second.payload());
  merge_gaps(gaps, only_gaps(lines, device::v1::LogGap::SPOOL_FULL));
  at->second.set_payload(gaps.SerializeAsString());
}

// Behind what is still there: the time series sort by number, not by arrival. Writing them may push
// out another segment, with more of them; the rest waits for the next time.
void SeriesLane::append_gaps() {
  for (int round = 0; !gaps_.empty() && round < kGapRounds; ++round) {
    const SpooledMessage message = std::move(gaps_.begin()->second);
    gaps_.erase(gaps_.begin());
    spool_.append(message.SerializeAsString(), Spool::Sync::kLater);
  }
}

// One stretch of what waits on disk. False when the store does not take it now.
Task<bool> SeriesLane::drain() {
  if (!co_await answers()) co_return false;
  std::vector<std::string> records;
  co_await BlockingPool::shared().run_void([&] { records = spool_.next(kDrainBytes); });
  if (records.empty()) retry_at_ = std::chrono::steady_clock::now() + kRetry;
  Items items;
  std::vector<Poison> poison;
  for (const std::string& record : records) {
    SpooledMessage message;
    stores::Rows rows;
    if (!message.ParseFromString(record) || !append(rows, message)) {
      poison.push_back(make_poison(options_.name, record, "it cannot be read back from the spool"));
      continue;
    }
    items.push_back(
        {{message.org_id(), message.fleet_id(), message.device_id(), message.received_ms()},
         message.kind(),
         message.payload(),
         std::nullopt,
         0});
  }
  co_await quarantine_.put(std::move(poison));
  stores::Rows rows = rows_of_items(items);
  if (!co_await store(items, std::move(rows))) co_return false;
  co_await BlockingPool::shared().run_void([&] { spool_.done(records.size()); });
  meters_.spool_bytes.set(static_cast<double>(spool_.waiting_bytes()));
  if (spool_.empty())
    log::info("the time series have what waited on disk", {{"lane", options_.name}});
  co_return !records.empty();
}

void SeriesLane::acknowledge(Items& items) {
  for (Item& item : items) {
    inbox_.finished(item.bytes);
    if (item.delivery) item.delivery->ack();
  }
}

}  // namespace flock::targets::ingester

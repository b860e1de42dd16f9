// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "domain/uplink.h"
#include "flock/internal/v1/internal.pb.h"
#include "spool/spool.h"
#include "stores/time_series/time_series.h"
#include "targets/ingester/devices.h"
#include "targets/ingester/inbox.h"
#include "targets/ingester/meters.h"
#include "targets/ingester/occasionally.h"
#include "targets/ingester/quarantine.h"
#include "targets/ingester/rows.h"

namespace flock::targets::ingester {

// Takes one kind of message to the time series in batches by rows and by time. While the store is
// away the messages themselves go to a spool on disk, which is emptied in order when it is back;
// when it is full the oldest go, counted, and lines of logs leave gaps. Acknowledged when the store
// or the disk has it.
class SeriesLane {
 public:
  using Kind = internal::v1::SpooledMessage::Kind;
  struct Options {
    Kind kind;  // of what arrives
    std::string name, spool_directory;
    std::int64_t spool_bytes;
    // There is room again for what was let go: it comes with another connection.
    std::function<void()> reconnect;
  };
  // Throws kUnavailable when another process holds the spool.
  SeriesLane(Executor executor, stores::TimeSeries& series, Devices& devices,
             Quarantine& quarantine, Options options);

  void arrived(mqtt::Delivery delivery) { inbox_.push(std::move(delivery)); }
  // What the ingester itself has to say about a device; `delivery` is acknowledged when it is kept.
  void add(Source source, Kind kind, std::string payload, std::optional<mqtt::Delivery> delivery);
  // More waits here than should: whoever add()s must stop for a while.
  bool behind() const noexcept;
  Task<void> run();
  bool idle() const noexcept { return inbox_.idle(); }

 private:
  struct Item {
    Source source;
    Kind kind;
    std::string payload;
    std::optional<mqtt::Delivery> delivery;
    std::size_t bytes = 0;  // that it holds of the inbox
  };
  struct Batch {
    std::vector<Item> items;
    stores::Rows rows;  // of the items
    std::vector<Poison> poison;
    std::vector<mqtt::Delivery> refused;  // to be acknowledged all the same
    bool full() const;
  };
  using Items = std::vector<Item>;

  Task<void> gather(Batch& batch);
  Task<void> take_arrived(Batch& batch);
  Task<bool> load_devices(const std::vector<mqtt::Delivery>& deliveries);
  void judge(Batch& batch, mqtt::Delivery delivery, std::int64_t now_ms);
  template <class Payload>
  void accept(Batch& batch, Source source, Device& device, mqtt::Delivery delivery,
              Payload& payload);
  Task<void> keep(Batch batch);
  Task<bool> store_or_spool(const Items& items, stores::Rows rows);
  Task<bool> answers();
  Task<bool> store(const Items& items, stores::Rows rows);
  Task<bool> store_apart(const Items& items);
  Task<bool> spool(const Items& items);
  void write_spool(const Items& items);
  void note_dropped(std::string_view record);
  void append_gaps();
  Task<bool> drain();
  void acknowledge(Items& items);
  static stores::Rows rows_of_items(const Items& items);

  stores::TimeSeries& series_;
  Devices& devices_;
  Quarantine& quarantine_;
  const Options options_;
  Inbox inbox_;
  std::deque<Item> own_;
  std::vector<mqtt::Delivery> held_;  // of devices that nobody could be asked about
  Spool spool_;
  std::map<std::string, internal::v1::SpooledMessage> gaps_;  // of lines that were dropped
  SteadyPoint retry_at_{};
  bool turned_away_ = false;  // by the store, the last time
  device::v1::TelemetryBatch telemetry_;
  device::v1::LogBatch logs_;
  Occasionally away_, dropped_, disk_full_, over_budget_, unknown_;
  std::int64_t dropped_before_ = 0;
  Meters meters_;
  metrics::Histogram writes_ = store_writes("clickhouse");
};

}  // namespace flock::targets::ingester

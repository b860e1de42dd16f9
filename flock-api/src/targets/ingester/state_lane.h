// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "flock/device/v1/device.pb.h"
#include "targets/ingester/devices.h"
#include "targets/ingester/inbox.h"
#include "targets/ingester/meters.h"
#include "targets/ingester/presence_book.h"
#include "targets/ingester/quarantine.h"
#include "targets/ingester/series_lane.h"
#include "targets/target.h"

namespace flock::targets::ingester {

// Takes reports and events: live state first, then those who must know of a change, then the
// acknowledgement. So nothing is acknowledged that a kill could lose; a batch that cannot be
// finished is done again from its start, which changes nothing the second time.
class StateLane {
 public:
  // `history` keeps steps of updates and turns of presence.
  StateLane(Parts& parts, Devices& devices, PresenceBook& presence, SeriesLane& history,
            Quarantine& quarantine);

  void arrived(mqtt::Delivery delivery) { inbox_.push(std::move(delivery)); }
  Task<void> run();
  bool idle() const noexcept { return inbox_.idle(); }
  // A turn of presence that no message brought.
  void remember(const Turn& turn);

 private:
  // One report of the batch.
  struct Report {
    std::size_t message;
    std::string_view device;
    std::int64_t seq;
    std::uint64_t shape;
    bool online;  // its device already counts as that
  };
  // What one batch comes to.
  struct Work {
    std::int64_t now_ms = 0;
    std::vector<Report> reports;
    std::vector<Heard> heard;
    std::vector<mqtt::Message> messages;
    std::vector<internal::v1::CommandResulted> results;
    std::vector<stores::Told> told;
    std::vector<Poison> poison;
    struct Row {
      Source source;
      SeriesLane::Kind kind;
      std::string payload;
      std::size_t message;
      std::optional<mqtt::Delivery> delivery = std::nullopt;
    };
    std::vector<Row> rows;
  };
  using Batch = std::vector<mqtt::Delivery>;
  using Uplinks = std::vector<std::optional<domain::Uplink>>;  // of each message

  Task<void> process(const Batch& batch, Work& work);
  Task<void> load_devices(const Uplinks& uplinks);
  Task<void> read(const Batch& batch, const Uplinks& uplinks, Work& work);
  std::string read_report(const mqtt::Delivery& delivery, std::size_t index, std::string_view id,
                          Device* device, Work& work);
  std::string read_event(const mqtt::Delivery& delivery, std::size_t index, const std::string& id,
                         Device* device, Work& work);
  Task<void> put_reports(const Batch& batch, Work& work);
  void take_change(const Batch& batch, const Report& report, Device& device, Work& work);
  Task<void> watch_for_clone(std::string id, std::string boot_id, std::int64_t at_ms);
  Task<void> tell_clone(std::string org, std::string id, std::string one, std::string other);
  void finish(Batch& batch, Work& work);

  Parts& parts_;
  Devices& devices_;
  PresenceBook& presence_;
  SeriesLane& history_;
  Quarantine& quarantine_;
  Inbox inbox_;
  device::v1::ReportedState state_;
  device::v1::DeviceEvent event_;
  Meters meters_{"state"};
  metrics::Histogram writes_ = store_writes("valkey");
};

}  // namespace flock::targets::ingester

// SPDX-License-Identifier: Apache-2.0
#include "link/uplink.h"

#include <algorithm>
#include <deque>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "async/backoff.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "link/lost_log.h"
#include "spool/spool.h"

namespace flock::agent {
namespace {

constexpr std::size_t kMemoryBytes = 128 << 10;  // of each kind
constexpr std::size_t kFlightBytes = 64 << 10;   // published at the same time, of each kind
constexpr std::size_t kFlightRecords = 16;
constexpr std::size_t kRecordBytes = 256 << 10;
constexpr std::array<const char*, 3> kFolders{"telemetry", "logs", "events"};

SteadyPoint now() { return std::chrono::steady_clock::now(); }

struct Item {
  std::string payload;
  std::shared_ptr<Event> safe;  // null: nobody waits
};

// From the disk and on its way.
struct Flight {
  std::string payload;
  bool arrived = false;
  bool dropped = false;  // its place on the disk was needed meanwhile
};

// One kind of message.
struct Channel {
  Channel(Executor executor, Upward k) : kind(k), wake(executor), landed(executor) {}
  Upward kind;
  std::optional<Spool> spool;
  std::deque<Item> memory;
  std::size_t memory_bytes = 0;
  std::vector<Flight> flights;
  std::size_t flying = 0;
  SteadyPoint send_at{};  // not before
  Backoff backoff{Duration(1'000), Duration(60'000)};
  Event wake, landed;
};

}  // namespace

struct Uplink::Impl {
  Impl(Executor e, Options o)
      : executor(e), options(std::move(o)), lost(options.directory), idle(e), workers(e) {
    for (const Upward kind : {Upward::kTelemetry, Upward::kLogs, Upward::kEvents})
      channels[static_cast<std::size_t>(kind)].emplace(e, kind);
  }

  Channel& channel(Upward kind) { return *channels[static_cast<std::size_t>(kind)]; }

  void start() {
    lost.load();
    away_since = now();
    for (auto& channel : channels) {
      Channel& c = *channel;
      open(c);
      workers.spawn(name_of(c), work(c));
    }
  }

  static const char* name_of(const Channel& c) {
    return kFolders[static_cast<std::size_t>(c.kind)];
  }

  // False when the disk cannot be used.
  bool open(Channel& c) {
    if (c.spool) return true;
    SpoolOptions out;
    out.directory = options.directory + "/" + name_of(c);
    out.limit_bytes = options.limit_bytes;
    // Small parts go when there is no room, but not a file for each message.
    out.segment_bytes = static_cast<std::size_t>(
        std::clamp<std::int64_t>(options.limit_bytes / 64, 4096, 256 << 10));
    out.record_bytes = kRecordBytes;
    out.on_drop = [this, &c](std::string_view record) { note_drop(c, record); };
    try {
      c.spool.emplace(std::move(out));
    } catch (const Error& error) {
      tell_trouble(error);
    }
    return c.spool.has_value();
  }

  // --- What comes

  void add(Upward kind, Item item) {
    Channel& c = channel(kind);
    c.memory_bytes += item.payload.size();
    c.memory.push_back(std::move(item));
    // Whoever sends more than is waited for: the worker is at a publish that does not end.
    if (stopped || c.memory_bytes > kMemoryBytes) return store_memory(c, stopped ? 0 : 1);
    c.wake.set();
  }

  void set_connected(bool up) {
    if (connected == up) return;
    connected = up;
    if (!up) away_since = now();
    for (auto& channel : channels) {
      const bool crowd = up && channel->kind != Upward::kEvents && has_backlog(*channel);
      channel->backoff.reset();
      channel->send_at = now();
      if (crowd && options.reconnect_spread.count() > 0)
        channel->send_at +=
            Duration(random_below(static_cast<std::uint64_t>(options.reconnect_spread.count())));
      channel->wake.set();
    }
  }

  // --- The worker of one kind

  Task<void> work(Channel& c) {
    for (;;) {
      c.wake.reset();
      const SteadyPoint at = now();
      if (connected && at >= c.send_at) {
        if (has_gaps(c)) {
          co_await tell_gaps(c);
          continue;
        }
        if (has_backlog(c)) {
          store_memory(c);  // behind what is there
          co_await drain(c);
          continue;
        }
        if (!c.memory.empty()) {
          co_await send_first(c);
          continue;
        }
      }
      const Duration pause = until_stored(c);
      if (pause.count() == 0) store_memory(c);
      if (c.memory.empty()) idle.set();
      co_await wait(c, pause, at);
    }
  }

  static bool has_backlog(const Channel& c) { return c.spool && !c.spool->empty(); }
  bool has_gaps(const Channel& c) const { return c.kind == Upward::kLogs && lost.has_gaps(); }

  // How long what is in memory may wait there while it cannot be sent.
  Duration until_stored(const Channel& c) const {
    if (c.memory.empty()) return Duration::max();
    // Behind what is on disk already nothing is won by waiting.
    if (c.kind == Upward::kEvents || connected || has_backlog(c)) return Duration(0);
    const SteadyPoint end = away_since + options.patience;
    return std::max(Duration(0), std::chrono::ceil<Duration>(end - now()));
  }

  // Until there is something to do. `at`: when it was not yet time to send; asked again here it may
  // be, and nobody would wake the worker.
  Task<void> wait(Channel& c, Duration pause, SteadyPoint at) const {
    if (c.memory.empty()) pause = Duration::max();
    const Duration sending = std::chrono::ceil<Duration>(c.send_at - at);
    if (connected && sending.count() > 0) pause = std::min(pause, sending);
    if (pause == Duration::max())
      co_await c.wake.wait();
    else
      co_await c.wake.wait_for(pause);
  }

  Task<void> send_first(Channel& c) {
    try {
      std::string payload = c.memory.front().payload;
      co_await options.publish(c.kind, std::move(payload));
      c.backoff.reset();
      take_first(c);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      note_failure(c, error);
      store_memory(c);
    }
  }

  void note_failure(Channel& c, const Error& error) {
    log::debug("a message did not arrive; it is kept", error, {{"kind", name_of(c)}});
    c.send_at = now() + Duration(1'000) + c.backoff.next();
  }

  static void take_first(Channel& c) {
    if (c.memory.empty()) return;  // it went to the disk meanwhile
    c.memory_bytes -= c.memory.front().payload.size();
    if (c.memory.front().safe) c.memory.front().safe->set();
    c.memory.pop_front();
  }

  // --- The disk

  // All but the first `keep`.
  void store_memory(Channel& c, std::size_t keep = 0) {
    if (c.memory.size() <= keep) return;
    for (std::size_t i = keep; i < c.memory.size(); ++i) store(c, c.memory[i].payload);
    try {
      if (c.spool) c.spool->sync();
    } catch (const Error& error) {
      tell_trouble(error);
    }
    lost.save();
    while (c.memory.size() > keep) {
      c.memory_bytes -= c.memory.back().payload.size();
      if (c.memory.back().safe) c.memory.back().safe->set();
      c.memory.pop_back();
    }
  }

  void store(Channel& c, const std::string& payload) {
    if (!open(c)) return lost.add(c.kind, payload);
    while (disk_bytes() + static_cast<std::int64_t>(payload.size()) + 64 > options.limit_bytes &&
           make_room()) {
    }
    try {
      c.spool->append(payload, Spool::Sync::kLater);
    } catch (const Error& error) {
      tell_trouble(error);
      lost.add(c.kind, payload);
    }
  }

  void tell_trouble(const Error& error) {
    if (std::exchange(in_trouble, true)) return;
    log::error("the disk does not take what cannot be sent; it is counted as lost", error);
  }

  bool make_room() {
    for (auto& channel : channels)
      if (channel->spool && channel->spool->drop_oldest()) return true;
    return false;
  }

  void note_drop(Channel& c, std::string_view record) {
    const auto flight = std::ranges::find(c.flights, false, &Flight::dropped);
    if (flight != c.flights.end())
      flight->dropped = true;  // it may arrive yet
    else
      lost.add(c.kind, record);
  }

  std::int64_t disk_bytes() const {
    std::int64_t sum = 0;
    for (const auto& channel : channels) sum += channel->spool ? channel->spool->disk_bytes() : 0;
    return sum;
  }

  // --- From the disk

  Task<void> drain(Channel& c) {
    std::vector<std::string> records;
    try {
      records = c.spool->next(kFlightBytes);
    } catch (const Error& error) {
      tell_trouble(error);
      note_failure(c, error);
    }
    if (records.size() > kFlightRecords) records.resize(kFlightRecords);
    std::size_t bytes = 0;
    for (std::string& record : records) {
      bytes += record.size();
      c.flights.push_back({std::move(record)});
    }
    if (c.flights.empty()) co_return;
    c.landed.reset();
    c.flying = c.flights.size();
    for (std::size_t i = 0; i < c.flights.size(); ++i) workers.spawn("flight", fly(c, i));
    co_await c.landed.wait();
    land(c, bytes);
  }

  Task<void> fly(Channel& c, std::size_t index) {
    std::string payload = c.flights[index].payload;
    std::exception_ptr cancelled;
    try {
      co_await options.publish(c.kind, std::move(payload));
      c.flights[index].arrived = true;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) cancelled = std::current_exception();
      if (!cancelled && now() >= c.send_at) note_failure(c, error);
    }
    if (--c.flying == 0) c.landed.set();
    if (cancelled) std::rethrow_exception(cancelled);
  }

  void land(Channel& c, std::size_t bytes) {
    const auto missing = std::ranges::find(c.flights, false, &Flight::arrived);
    const auto arrived = static_cast<std::size_t>(missing - c.flights.begin());
    const bool all = missing == c.flights.end();
    c.spool->done(arrived);
    for (const Flight& flight : c.flights)
      if (flight.dropped && !flight.arrived) lost.add(c.kind, flight.payload);
    c.flights.clear();
    lost.save();
    if (!all) return;
    c.backoff.reset();
    in_trouble = false;
    if (has_backlog(c) && options.drain_bytes_per_second > 0)
      c.send_at = now() + Duration(static_cast<std::int64_t>(bytes) * 1000 /
                                   options.drain_bytes_per_second);
    else if (arrived > 0)
      log::info("what waited on disk has arrived", {{"kind", name_of(c)}});
  }

  Task<void> tell_gaps(Channel& c) {
    const std::string gaps = lost.untold();
    try {
      device::v1::LogBatch batch;
      batch.ParseFromString(gaps);
      batch.set_boot_id(options.boot_id);
      batch.set_seq(options.next_seq());
      std::string payload = batch.SerializeAsString();
      co_await options.publish(c.kind, std::move(payload));
      lost.forget(gaps);
      lost.save();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      note_failure(c, error);
    }
  }

  // --- The end

  bool nothing_in_memory() const {
    return std::ranges::all_of(channels, [](const auto& c) { return c->memory.empty(); });
  }

  Task<void> stop(Duration limit) {
    const SteadyPoint end = now() + limit;
    while (connected && !nothing_in_memory() && now() < end) {
      idle.reset();
      co_await idle.wait_for(std::chrono::ceil<Duration>(end - now()));
    }
    workers.cancel();
    co_await workers.join();
    stopped = true;
    for (auto& channel : channels) {
      if (!channel->flights.empty()) land(*channel, 0);
      store_memory(*channel);
    }
    lost.save();
  }

  Executor executor;
  Options options;
  std::array<std::optional<Channel>, 3> channels;
  LostLog lost;
  Event idle;  // something was sent or stored
  bool connected = false, stopped = false;
  bool in_trouble = false;  // the disk refused, and it was told
  SteadyPoint away_since{};
  TaskScope workers;
};

Uplink::Uplink(Executor executor, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
Uplink::~Uplink() = default;
void Uplink::start() { impl_->start(); }
void Uplink::set_connected(bool connected) { impl_->set_connected(connected); }

void Uplink::send(Upward kind, std::string payload) { impl_->add(kind, {std::move(payload), {}}); }

Task<void> Uplink::deliver(Upward kind, std::string payload) {
  const auto safe = std::make_shared<Event>(impl_->executor);
  impl_->add(kind, {std::move(payload), safe});
  co_await safe->wait();
}

Task<void> Uplink::stop(Duration limit) { co_await impl_->stop(limit); }
const Lost& Uplink::lost() const noexcept { return impl_->lost.counts(); }

std::int64_t Uplink::waiting_records() const noexcept {
  std::int64_t sum = 0;
  for (const auto& channel : impl_->channels)
    sum += channel->spool ? channel->spool->waiting_records() : 0;
  return sum;
}

std::int64_t Uplink::waiting_bytes() const noexcept {
  std::int64_t sum = 0;
  for (const auto& channel : impl_->channels)
    sum += channel->spool ? channel->spool->waiting_bytes() : 0;
  return sum;
}

}  // namespace flock::agent

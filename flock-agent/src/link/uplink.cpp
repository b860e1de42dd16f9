// SPDX-License-Identifier: Apache-2.0
#include "link/uplink.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "link/channel.h"
#include "link/disk_queues.h"
#include "link/lost_log.h"

namespace flock::agent {
namespace {

constexpr std::size_t kMemoryBytes = 128 << 10;  // of each kind
constexpr std::size_t kFlightBytes = 64 << 10;   // published at the same time, of each kind
constexpr std::size_t kFlightRecords = 16;
constexpr Duration kDiskPause{1'000};  // before a disk that refused is tried again

SteadyPoint now() { return std::chrono::steady_clock::now(); }

}  // namespace

struct Uplink::Impl {
  Impl(Executor e, Options o)
      : executor(e),
        options(std::move(o)),
        lost(options.directory),
        disk(options.directory, options.limit_bytes,
             [this](Upward kind, std::string_view record) { note_drop(kind, record); }),
        idle(e),
        workers(e) {
    for (const Upward kind : {Upward::kTelemetry, Upward::kLogs, Upward::kEvents})
      channels[static_cast<std::size_t>(kind)].emplace(e, kind);
  }

  Channel& channel(Upward kind) { return *channels[static_cast<std::size_t>(kind)]; }

  void start() {
    lost.load();
    away_since = now();
    for (auto& channel : channels) {
      Channel& c = *channel;
      c.spool = disk.open(c.kind);
      c.waited = c.has_backlog();
      workers.spawn(name_of(c), work(c));
    }
  }

  static const char* name_of(const Channel& c) { return DiskQueues::name_of(c.kind); }

  // --- What comes

  void add(Upward kind, Item item) {
    Channel& c = channel(kind);
    c.push(std::move(item));
    // Events are few, and each is somebody's answer: they go by way of the disk. Whoever sends more
    // than is waited for: the worker is at a publish that does not end.
    const bool due = !connected && until_stored(c).count() == 0;
    if (due || stopped || kind == Upward::kEvents || c.memory_bytes > kMemoryBytes) store_memory(c);
    c.wake.set();
  }

  void set_connected(bool up) {
    if (connected == up) return;
    connected = up;
    met = met || up;
    if (!up) away_since = now();
    for (auto& channel : channels) {
      const bool crowd = up && channel->kind != Upward::kEvents && channel->has_backlog();
      if (!up) {
        channel->release();
        store_due(*channel);
      }
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
        if (c.has_backlog()) {
          store_memory(c);  // behind what is there
          co_await drain(c);
          continue;
        }
        if (!c.memory.empty()) {
          co_await send_first(c);
          continue;
        }
      }
      const Duration pause = store_due(c);
      if (!c.has_backlog()) c.release();
      idle.set();
      co_await wait(c, pause, at);
    }
  }

  bool has_gaps(const Channel& c) const { return c.kind == Upward::kLogs && lost.has_gaps(); }

  // How long what is in memory may wait there while it is not acknowledged.
  Duration until_stored(const Channel& c) const {
    if (c.memory.empty()) return Duration::max();
    // Behind what is on disk already nothing is won by waiting.
    if (c.has_backlog()) return Duration(0);
    SteadyPoint end = now();
    if (connected && c.flying > 0)
      end = c.flown_at + options.patience;
    else if (!connected && (c.kind == Upward::kLogs || !met))
      end = away_since + options.patience;
    return std::max(Duration(0), std::chrono::ceil<Duration>(end - now()));
  }

  // Stores what is due. Returns how long until more is.
  Duration store_due(Channel& c) {
    const Duration pause = until_stored(c);
    if (pause.count() > 0) return pause;
    store_memory(c);
    return c.memory.empty() ? Duration::max() : kDiskPause;
  }

  // Until there is something to do. `at`: when it was not yet time to send; asked again here it may
  // be, and nobody would wake the worker.
  Task<void> wait(Channel& c, Duration pause, SteadyPoint at) const {
    const Duration sending = std::chrono::ceil<Duration>(c.send_at - at);
    if (connected && sending.count() > 0) pause = std::min(pause, sending);
    co_await wait_at_most(c, pause);
  }

  static Task<void> wait_at_most(Channel& c, Duration limit) {
    if (limit == Duration::max())
      co_await c.wake.wait();
    else
      co_await c.wake.wait_for(limit);
  }

  // What is in memory meanwhile goes to the disk when it has to, the flights themselves too.
  Task<void> wait_for_flights(Channel& c) {
    while (c.flying > 0) {
      c.wake.reset();
      co_await wait_at_most(c, store_due(c));
    }
  }

  Task<void> send_first(Channel& c) {
    c.flights.push_back({.payload = {}, .on_disk = false});
    c.first_flies = true;
    std::string payload = c.memory.front().payload;
    launch(c, 0, std::move(payload));
    co_await wait_for_flights(c);
    land(c, 0);
  }

  void launch(Channel& c, std::size_t index, std::string payload) {
    ++c.flying;
    c.flown_at = now();
    workers.spawn("flight", fly(c, index, std::move(payload)));
  }

  Task<void> fly(Channel& c, std::size_t index, std::string payload) {
    std::exception_ptr cancelled;
    try {
      co_await options.publish(c.kind, std::move(payload));
      c.flights[index].arrived = true;
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) cancelled = std::current_exception();
      if (!cancelled && now() >= c.send_at) note_failure(c, error);
    }
    if (--c.flying == 0) c.wake.set();
    if (cancelled) std::rethrow_exception(cancelled);
  }

  void land(Channel& c, std::size_t bytes) {
    const auto missing = std::ranges::find(c.flights, false, &Flight::arrived);
    const auto arrived = static_cast<std::size_t>(missing - c.flights.begin());
    const bool all = missing == c.flights.end();
    if (std::exchange(c.first_flies, false)) {
      if (all) settle(c.pop());
    } else if (c.flights.front().on_disk) {
      c.spool->done(arrived);
    }
    for (const Flight& flight : c.flights)
      if (flight.dropped && !flight.arrived) lost.add(c.kind, flight.payload);
    c.flights.clear();
    lost.save();
    if (!all) return store_memory(c);
    c.backoff.reset();
    if (c.has_backlog()) {
      if (options.drain_bytes_per_second > 0)
        c.send_at = now() + Duration(static_cast<std::int64_t>(bytes) * 1000 /
                                     options.drain_bytes_per_second);
      return;
    }
    c.release();
    if (std::exchange(c.waited, false))
      log::info("what waited on disk has arrived", {{"kind", name_of(c)}});
  }

  void note_failure(Channel& c, const Error& error) {
    log::debug("a message did not arrive; it is kept", error, {{"kind", name_of(c)}});
    c.send_at = now() + Duration(1'000) + c.backoff.next();
    c.waited = true;
    c.release();
  }

  static void settle(const Item& item) {
    if (item.safe) item.safe->set();
  }

  // --- The disk

  // What the disk does not take is lost. Events are kept for the broker, as far as memory goes.
  void store_memory(Channel& c) {
    if (c.memory.empty()) return;
    // Events are not done with the disk when the broker may have them in a moment.
    const bool soon = c.kind == Upward::kEvents && connected && !stopped;
    c.waited = c.waited || !soon;
    while (!c.memory.empty()) {
      const bool stored = disk.store(c.kind, c.memory.front().payload);
      if (!stored && soon && c.memory_bytes <= kMemoryBytes) break;
      Item item = c.pop();
      if (std::exchange(c.first_flies, false))
        note_stored_flight(c, std::move(item.payload), stored);
      else if (!stored)
        lost.add(c.kind, item.payload);
      c.spool = disk.open(c.kind);
      if (item.safe && stored && soon &&
          std::cmp_less_equal(c.spool->waiting_records(), kFlightRecords))
        c.held.push_back(std::move(item.safe));
      else
        settle(item);
    }
    disk.sync(c.kind);
    lost.save();
  }

  // From now on as if it came from the disk.
  void note_stored_flight(Channel& c, std::string payload, bool stored) {
    Flight& flight = c.flights.front();
    flight.payload = std::move(payload);
    flight.dropped = !stored;  // it may arrive yet
    if (!stored) return;
    try {
      c.spool = disk.open(c.kind);
      c.spool->next(1);  // the first that done() speaks of
      flight.on_disk = true;
    } catch (const Error& error) {
      disk.note_trouble(error);  // it comes again
    }
  }

  void note_drop(Upward kind, std::string_view record) {
    Channel& c = channel(kind);
    const auto flight = std::ranges::find(c.flights, false, &Flight::dropped);
    if (flight != c.flights.end())
      flight->dropped = true;  // it may arrive yet
    else
      lost.add(kind, record);
  }

  // --- From the disk

  Task<void> drain(Channel& c) {
    std::vector<std::string> records;
    try {
      records = c.spool->next(kFlightBytes);
    } catch (const Error& error) {
      disk.note_trouble(error);
      note_failure(c, error);
    }
    if (records.size() > kFlightRecords) records.resize(kFlightRecords);
    std::size_t bytes = 0;
    for (std::string& record : records) {
      bytes += record.size();
      c.flights.push_back({std::move(record)});
    }
    if (c.flights.empty()) co_return;
    for (std::size_t i = 0; i < c.flights.size(); ++i) launch(c, i, c.flights[i].payload);
    co_await wait_for_flights(c);
    land(c, bytes);
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

  // Something may be with the broker in a moment.
  bool is_sending() const {
    return std::ranges::any_of(channels, [](const auto& c) {
      return !c->memory.empty() ||
             (c->kind == Upward::kEvents && c->has_backlog() && now() >= c->send_at);
    });
  }

  Task<void> stop(Duration limit) {
    const SteadyPoint end = now() + limit;
    while (connected && is_sending() && now() < end) {
      idle.reset();
      co_await idle.wait_for(std::chrono::ceil<Duration>(end - now()));
    }
    workers.cancel();
    co_await workers.join();
    stopped = true;
    for (auto& channel : channels) {
      if (!channel->flights.empty()) land(*channel, 0);
      store_memory(*channel);
      channel->release();
    }
    lost.save();
  }

  Executor executor;
  Options options;
  std::array<std::optional<Channel>, 3> channels;
  LostLog lost;
  DiskQueues disk;
  Event idle;  // something was sent or stored
  bool connected = false, stopped = false;
  bool met = false;  // there was a connection since start()
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

std::int64_t Uplink::waiting_records() const noexcept { return impl_->disk.waiting_records(); }
std::int64_t Uplink::waiting_bytes() const noexcept { return impl_->disk.waiting_bytes(); }
const std::string& Uplink::disk_trouble() const noexcept { return impl_->disk.trouble(); }

}  // namespace flock::agent

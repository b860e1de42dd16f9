// SPDX-License-Identifier: Apache-2.0
#include "faults/fleet.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"
#include "flock/internal/v1/internal.pb.h"
#include "stores/postgres/statements.h"

namespace flock::faults {
namespace {

using postgres::Params;
using postgres::Scope;

int number_in(const std::string& text) {
  int number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

constexpr const char* kCommandIds = "-0000-7000-8000-";
constexpr const char* kCommands =
    "INSERT INTO device_commands(id, org_id, device_id, kind, state, actor, expires_at) SELECT "
    "($3 || lpad(to_hex(n), 8, '0'))::uuid, $1::uuid, $2::uuid, 'identify', 'SENT', 'faults', "
    "now() + interval '1 day' FROM generate_series(1, $4::integer) n";

mqtt::ClientOptions quick(mqtt::ClientOptions options) {
  options.receive_maximum = 1024;
  options.unacknowledged_most = 65'535;
  options.backoff_first = Duration(20);
  options.backoff_max = Duration(200);
  return options;
}

}  // namespace

// --- Ears
// -------------------------------------------------------------------------------------------------

Ears::Ears(Executor executor, const Stack& stack)
    : bus_(executor, quick(stack.bus("ears-" + new_uuid()))), scope_(executor) {}

Task<void> Ears::open() {
  scope_.spawn("ears", bus_.run());
  co_await bus_.wait_connected();
  mqtt::Subscription told;
  told.filter = "flock/internal/v1/device/#";
  co_await bus_.subscribe(told, [this](mqtt::Delivery delivery) {
    hear(delivery.message);
    delivery.ack();
  });
}

void Ears::hear(const mqtt::Message& message) {
  if (message.topic.ends_with("device/command")) {
    internal::v1::CommandResulted result;
    result.ParseFromString(message.payload);
    Told& told = told_[result.device_id()];
    const int number = command_number(result.result().command_id());
    ++told.commands[number];
    told.first.emplace(number, std::chrono::steady_clock::now());
  } else if (message.topic.ends_with("device/state")) {
    internal::v1::DeviceStateChanged changed;
    changed.ParseFromString(message.payload);
    // Of two ingesters one may tell of an older report after the other: `seq` says so.
    Told& told = told_[changed.device_id()];
    if (changed.state().seq() < told.seq) return;
    told.seq = changed.state().seq();
    told.report = number_in(changed.state().error());
  } else if (message.topic.ends_with("device/presence")) {
    internal::v1::DevicePresence presence;
    presence.ParseFromString(message.payload);
    if (!presence.online()) ++told_[presence.device_id()].offline;
  }
}

// Its session must not outlive it: the broker would keep for it what nobody asks for again.
Task<void> Ears::close() {
  co_await bus_.unsubscribe("flock/internal/v1/device/#");
  co_await bus_.disconnect(Duration(1000));
  scope_.cancel();
  co_await scope_.join();
}

// --- The fleet
// --------------------------------------------------------------------------------------------

Fleet::Fleet(Executor executor, const Stack& stack, postgres::Database& db, FleetOptions options)
    : ears(executor, stack),
      org(new_uuid()),
      executor_(executor),
      stack_(stack),
      db_(db),
      options_(std::move(options)),
      fleet_(new_uuid()),
      run_(new_uuid().substr(28)) {}

Task<std::string> Fleet::register_device() {
  std::string id = new_uuid();
  co_await db_.query(Scope::system(),
                     "INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture) "
                     "VALUES ($1::uuid, $2, $3, $1::uuid::text, $1::uuid::text, 'amd64')",
                     Params().text(id).text(org).text(fleet_));
  co_return id;
}

Task<std::unique_ptr<Device>> Fleet::another() {
  DeviceOptions options = options_.device;
  options.folder = dir_.file(std::to_string(++made_));
  options.seed += static_cast<unsigned>(made_);
  char number[8];
  std::snprintf(number, sizeof number, "%04x", static_cast<unsigned>(made_));
  options.command_id = run_ + kCommandIds + number;
  std::string id = co_await register_device();
  mqtt::ClientOptions bus = stack_.bus(id);
  auto device =
      std::make_unique<Device>(executor_, std::move(bus), std::move(id), std::move(options));
  co_await device->connect();
  co_return device;
}

Task<void> Fleet::open() {
  co_await ears.open();
  co_await db_.query(Scope::system(), postgres::sql::kOrganizationInsert,
                     Params().text(org).text(org).text(org));
  co_await db_.query(Scope::system(),
                     "INSERT INTO fleets(id, org_id, name, slug) VALUES ($1, $2, 'f', 'f')",
                     Params().text(fleet_).text(org));
  for (int i = 0; i < options_.devices; ++i) {
    devices_.push_back(co_await another());
    // What it will say that it did.
    co_await db_.query(Scope::system(), kCommands,
                       Params()
                           .text(org)
                           .text(devices_.back()->id())
                           .text(devices_.back()->command_id())
                           .integer(options_.rounds));
  }
}

double Fleet::per_second() const {
  const double a_round = 4 + 1.0 / kHistoryEvery;
  return a_round * options_.devices * 1000 / static_cast<double>(options_.every.count());
}

// Spread over the round, as devices are.
Task<void> Fleet::speak() {
  const SteadyPoint begin = std::chrono::steady_clock::now();
  const auto share = std::chrono::microseconds(options_.every) / options_.devices;
  auto due = begin;
  while (!stopping_) {
    ++rounds_;
    for (const auto& device : devices_) {
      device->speak(rounds_);
      due += share;
      const SteadyPoint now = std::chrono::steady_clock::now();
      if (due > now + Duration(1))
        co_await sleep_for(std::chrono::ceil<Duration>(due - now));
      else
        co_await yield_now();
    }
  }
  for (const auto& device : devices_) device->flush();
}

Task<void> Fleet::all_sent(Duration limit) {
  const SteadyPoint end = std::chrono::steady_clock::now() + limit;
  while (!std::ranges::all_of(devices_, [](const auto& device) { return device->all_sent(); })) {
    if (std::chrono::steady_clock::now() > end) co_return;
    co_await sleep_for(Duration(50));
  }
}

Task<void> Fleet::close() {
  TaskScope closing(executor_);
  for (const auto& device : devices_) closing.spawn("close", device->close());
  co_await closing.join();
  co_await ears.close();
  db_.close();  // the next one must not find connections of a server that was killed
}

}  // namespace flock::faults

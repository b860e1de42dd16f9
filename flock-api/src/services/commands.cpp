// SPDX-License-Identifier: Apache-2.0
#include "services/commands.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "async/deadline.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "domain/uplink.h"
#include "stores/postgres/command_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using device::v1::CommandResult;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr Duration kLook{2000}, kAgain{1000}, kPublishTime{5000};
constexpr std::size_t kBatch = 200, kLongestMessage = 2000;
constexpr const char* kCommandTopic = "flock/internal/v1/device/command";
constexpr const char* kPresenceTopic = "flock/internal/v1/device/presence";

device::v1::Command command_of(const Row& row) {
  device::v1::Command command;
  command.set_id(row.text("id"));
  command.set_expires_at_ms(to_unix_ms(row.time("expires_at")));
  const std::string& kind = row.text("kind");
  if (kind == "restart_service") {
    command.mutable_restart_service()->set_service(row.text("service"));
  } else if (kind == "reboot") {
    command.mutable_reboot();
  } else if (kind == "identify") {
    command.mutable_identify()->set_seconds(static_cast<std::uint32_t>(row.integer("seconds")));
  } else {
    device::v1::Purge* purge = command.mutable_purge();
    purge->set_service(row.text("service"));
    const boost::json::value volumes = json::parse(row.text("volumes"));
    for (const boost::json::value& volume : volumes.as_array())
      purge->add_volumes(std::string(volume.as_string()));
  }
  return command;
}

const char* state_name(CommandResult::State state) {
  switch (state) {
    case CommandResult::STARTED:
      return "STARTED";
    case CommandResult::DONE:
      return "DONE";
    case CommandResult::FAILED:
      return "FAILED";
    case CommandResult::EXPIRED:
      return "EXPIRED";
    default:
      return nullptr;
  }
}

}  // namespace

Task<void> record_results(postgres::Database& db,
                          std::vector<internal::v1::CommandResulted> results) {
  // Of one command the first word that ends it; that it began only where that is all.
  std::map<std::string_view, const internal::v1::CommandResulted*> last;
  for (const internal::v1::CommandResulted& result : results) {
    const std::string& command = result.result().command_id();
    if (state_name(result.result().state()) == nullptr || !is_uuid(command)) {
      log::debug("what became of a command cannot be read", {{"device", result.device_id()}});
      continue;
    }
    const auto [at, fresh] = last.emplace(command, &result);
    if (!fresh && at->second->result().state() == CommandResult::STARTED) at->second = &result;
  }
  if (last.empty()) co_return;
  std::vector<std::string> orgs, devices, commands, states, messages;
  for (const auto& [command, result] : last) {
    orgs.push_back(result->org_id());
    devices.push_back(result->device_id());
    commands.emplace_back(command);
    states.emplace_back(state_name(result->result().state()));
    messages.push_back(domain::shortened(result->result().message(), kLongestMessage));
  }
  co_await db.query(
      Scope::system(), sql::kCommandResults,
      Params().texts(orgs).texts(devices).texts(commands).texts(states).texts(messages));
}

CommandDriver::CommandDriver(Executor executor, postgres::Database& db, mqtt::Bus& bus)
    : db_(db), bus_(bus), arrival_(executor) {}

Task<void> CommandDriver::subscribe() {
  mqtt::Subscription subscription;
  subscription.filter = std::string("$share/commands/") + kPresenceTopic;
  co_await bus_.subscribe(subscription, [this](mqtt::Delivery delivery) {
    deliveries_.push_back(std::move(delivery));
    arrival_.set();
  });
}

Task<void> CommandDriver::run() {
  for (;;) {
    arrival_.reset();
    if (deliveries_.empty()) co_await arrival_.wait_for(kLook);
    bool failed = false;
    try {
      co_await take();
      co_await expire();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::warn("commands are stuck; it is tried again", error);
      failed = true;
    }
    if (failed) co_await sleep_for(kAgain);
  }
}

// Acknowledged when what they had waited for was sent.
Task<void> CommandDriver::take() {
  const std::size_t count = std::min(deliveries_.size(), kBatch);
  std::vector<std::string> online;
  for (std::size_t i = 0; i < count; ++i) {
    internal::v1::DevicePresence presence;
    if (presence.ParseFromString(deliveries_[i].message.payload) && presence.online() &&
        is_uuid(presence.device_id()))
      online.push_back(presence.device_id());
  }
  co_await send_due(std::move(online));
  for (std::size_t i = 0; i < count; ++i) {
    deliveries_.front().ack();
    deliveries_.pop_front();
  }
}

Task<void> CommandDriver::send_due(std::vector<std::string> came_online) {
  const auto due =
      co_await db_.query(Scope::system(), sql::kCommandsDue, Params().texts(came_online));
  for (const Row& command : due.rows) co_await send(command);
}

Task<void> CommandDriver::send(const Row& row) {
  const device::v1::Command command = command_of(row);
  const Duration left = from_unix_ms(command.expires_at_ms()) - system_clock().now();
  if (left <= Duration(0)) co_return;
  mqtt::Message message;
  message.topic = "devices/" + row.text("device_id") + "/commands";
  message.payload = command.SerializeAsString();
  message.expiry = std::max(left, Duration(1000));
  co_await with_deadline(bus_.publish(std::move(message)), kPublishTime, "sending a command");
  co_await db_.query(Scope::system(), sql::kCommandSent,
                     Params().text(row.text("org_id")).text(row.text("id")));
}

Task<void> CommandDriver::expire() {
  const auto gone = co_await db_.query(Scope::system(), sql::kCommandsExpire);
  for (const Row& row : gone.rows) {
    internal::v1::CommandResulted event;
    event.set_org_id(row.text("org_id"));
    event.set_device_id(row.text("device_id"));
    event.set_at_ms(to_unix_ms(system_clock().now()));
    CommandResult* result = event.mutable_result();
    result->set_command_id(row.text("id"));
    result->set_state(row.text("state") == "FAILED" ? CommandResult::FAILED
                                                    : CommandResult::EXPIRED);
    result->set_message(row.text("message"));
    mqtt::Message message;
    message.topic = kCommandTopic;
    message.payload = event.SerializeAsString();
    co_await with_deadline(bus_.publish(std::move(message)), kPublishTime,
                           "saying that a command expired");
  }
}

}  // namespace flock::services

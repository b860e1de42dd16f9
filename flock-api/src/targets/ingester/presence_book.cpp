// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/presence_book.h"

#include <algorithm>
#include <map>

#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"
#include "flock/internal/v1/internal.pb.h"
#include "stores/postgres/presence_statements.h"
#include "targets/ingester/publish.h"

namespace flock::targets::ingester {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Scope;

constexpr std::size_t kChunk = 5000;  // devices in one statement
constexpr std::int64_t kSilentMost = 1000;
constexpr std::size_t kWaitingMost = 200'000;

// Columns of kPresencePut.
struct Changes {
  std::vector<std::string> ids, online, seq, session, before, agent, silent, turned, reason;
  // `turn`: how it came or went last; null when it did not.
  void add(const std::string& id, const Device& device, const Turn* turn) {
    ids.push_back(id);
    online.emplace_back(device.presence.online ? "true" : "false");
    seq.push_back(std::to_string(device.presence.seq));
    session.push_back(std::to_string(device.presence.session));
    before.push_back(std::to_string(device.presence.before));
    agent.push_back(device.agent_version);
    silent.push_back(std::to_string(device.silent_after.count()));
    turned.push_back(std::to_string(turn != nullptr ? turn->at_ms : 0));
    reason.push_back(turn != nullptr ? turn->reason : "");
  }
  Params params() const {
    Params out;
    out.texts(ids).texts(online).texts(seq).texts(session).texts(before).texts(agent).texts(silent);
    out.texts(turned).texts(reason);
    return out;
  }
};

// True when the row must be written.
bool take(Device& device, const Heard& heard, std::vector<Turn>& turns) {
  const domain::Presence before = device.presence;
  if (domain::take_sign(device.presence, heard.sign, heard.seq)) {
    turns.push_back({device.org, device.fleet, heard.device,
                     std::string(domain::reason_of(heard.sign)), device.presence.online,
                     heard.at_ms, heard.message});
  }
  bool changed = !(device.presence == before);
  const auto set = [&changed](auto& value, const auto& said, bool is_said) {
    if (!is_said || value == said) return;
    value = said;
    changed = true;
  };
  set(device.agent_version, heard.agent_version, !heard.agent_version.empty());
  set(device.silent_after, heard.silent_after, heard.silent_after.count() > 0);
  return changed;
}

// What each device said, in order.
using ByDevice = std::map<std::string, std::vector<const Heard*>, std::less<>>;

}  // namespace

std::string payload_of(const Turn& turn) {
  internal::v1::DevicePresence presence;
  presence.set_org_id(turn.org);
  presence.set_device_id(turn.device);
  presence.set_online(turn.online);
  presence.set_reason(turn.reason);
  presence.set_at_ms(turn.at_ms);
  return presence.SerializeAsString();
}

PresenceBook::PresenceBook(Parts& parts, Devices& devices, Peers& peers,
                           std::function<void(Turn)> turned)
    : parts_(parts),
      devices_(devices),
      peers_(peers),
      turned_(std::move(turned)),
      connected_since_(std::chrono::steady_clock::now()),
      listening_since_(connected_since_) {}

Task<std::vector<Turn>> PresenceBook::apply(std::vector<Heard> heard) {
  std::vector<Turn> turns;
  if (heard.empty()) co_return turns;
  ByDevice by_device;
  for (const Heard& one : heard) by_device[one.device].push_back(&one);
  std::vector<std::string> ids;
  for (const auto& [id, said] : by_device) ids.push_back(id);
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    turns.clear();
    Changes changes;
    const postgres::Rows rows = co_await tx.query(sql::kPresenceLock, Params().texts(ids));
    for (const postgres::Row& row : rows.rows) {
      const std::string& id = row.text("id");
      Device& device = devices_.put(row);
      bool changed = false;
      const std::size_t told = turns.size();
      for (const Heard* one : by_device.at(id)) changed = take(device, *one, turns) || changed;
      if (changed) changes.add(id, device, turns.size() > told ? &turns.back() : nullptr);
      if (!device.presence.online) device.touched = false;  // it was heard from before it went
    }
    if (changes.ids.empty()) co_return;
    co_await tx.query(sql::kPresencePut, changes.params());
    co_await tell(turns);
  };
  std::exception_ptr failure;
  try {
    co_await parts_.db.transaction(Scope::system(), work);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    // What was put into the cache did not become true.
    for (const std::string& id : ids) devices_.forget(id);
    std::rethrow_exception(failure);
  }
  co_return turns;
}

Task<void> PresenceBook::tell(const std::vector<Turn>& turns) {
  std::vector<mqtt::Message> messages;
  for (const Turn& turn : turns)
    messages.push_back(internal_message("device/presence", payload_of(turn)));
  co_await publish_all(parts_.bus, std::move(messages));
}

// --- Wills
// ----------------------------------------------------------------------------------------

bool PresenceBook::wait_with(const Heard& lost) {
  listening();
  if (std::chrono::steady_clock::now() - connected_since_ >= parts_.settings.presence_return)
    return false;
  if (waiting_.size() < kWaitingMost) waiting_.insert_or_assign(lost.device, lost);
  return true;
}

void PresenceBook::heard_of(std::string_view device) {
  if (!waiting_.empty()) waiting_.erase(std::string(device));
}

Task<void> PresenceBook::apply_waiting() {
  if (waiting_.empty() ||
      std::chrono::steady_clock::now() - connected_since_ < parts_.settings.presence_return)
    co_return;
  std::vector<Heard> lost;
  for (auto& [device, heard] : waiting_) {
    if (lost.size() == kChunk) break;
    lost.push_back(heard);
  }
  const std::vector<Turn> turns = co_await apply(lost);
  for (const Heard& heard : lost) waiting_.erase(heard.device);
  for (const Turn& turn : turns) turned_(turn);
}

// --- The sweep
// ------------------------------------------------------------------------------------

void PresenceBook::deaf() { listening_since_ = std::chrono::steady_clock::now(); }

// For how long everything that devices say has come through.
Duration PresenceBook::listening() {
  const SteadyPoint now = std::chrono::steady_clock::now();
  const std::uint64_t connections = parts_.connections ? parts_.connections() : 0;
  if (!parts_.bus.connected() || connections != connections_) {
    connections_ = connections;
    connected_since_ = listening_since_ = now;
  }
  return std::chrono::duration_cast<Duration>(now - listening_since_);
}

Task<void> PresenceBook::sweep() {
  for (;;) {
    co_await sleep_for(parts_.settings.presence_every);
    try {
      co_await sweep_once();
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      deaf();
      log::warn("the presence sweep failed; it is repeated", error);
    }
  }
}

Task<void> PresenceBook::sweep_once() {
  co_await touch();
  co_await apply_waiting();
  co_await peers_.refresh(parts_.bus);
  if (peers_.one_is_down()) deaf();
  while (co_await end_silent(listening())) {
  }
}

Task<void> PresenceBook::touch() {
  const std::vector<std::string> touched = devices_.take_touched();
  for (std::size_t at = 0; at < touched.size(); at += kChunk) {
    const auto begin = touched.begin() + static_cast<std::ptrdiff_t>(at);
    const std::vector<std::string> chunk(
        begin, begin + static_cast<std::ptrdiff_t>(std::min(kChunk, touched.size() - at)));
    co_await parts_.db.query(Scope::system(), sql::kPresenceTouch, Params().texts(chunk));
    co_await devices_.reload(chunk);
  }
}

// True when there may be more of them.
Task<bool> PresenceBook::end_silent(Duration listening) {
  std::vector<Turn> turns;
  const std::int64_t now_ms = to_unix_ms(system_clock().now());
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    turns.clear();
    std::vector<std::string> ids;
    const postgres::Rows rows = co_await tx.query(
        sql::kPresenceSilent, Params().integer(listening.count()).integer(kSilentMost));
    for (const postgres::Row& row : rows.rows) {
      ids.push_back(row.text("id"));
      turns.push_back({row.text("org_id"), row.text("fleet_id"), row.text("id"),
                       std::string(domain::kSilent), false, now_ms, 0});
    }
    if (ids.empty()) co_return;
    co_await tx.query(sql::kPresenceOff,
                      Params().texts(ids).integer(now_ms).text(std::string(domain::kSilent)));
    co_await tell(turns);
  };
  co_await parts_.db.transaction(Scope::system(), work);
  for (const Turn& turn : turns) {
    devices_.forget(turn.device);
    turned_(turn);
  }
  co_return std::cmp_equal(turns.size(), kSilentMost);
}

}  // namespace flock::targets::ingester

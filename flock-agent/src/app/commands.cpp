// SPDX-License-Identifier: Apache-2.0
#include "app/commands.h"

#include <algorithm>

#include "app/command_log.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "host/machine.h"

namespace flock::agent {
namespace {

using device::v1::Command;
using device::v1::CommandResult;
using device::v1::ServiceState;

constexpr std::size_t kAtOnce = 8;
constexpr std::size_t kLongestId = 100;
constexpr std::uint32_t kIdentify = 30, kLongestIdentify = 600;  // seconds
constexpr Duration kGoesDown{120'000};   // a machine that was asked to start again still runs
constexpr Duration kRunsAgain{120'000};  // after a purge
constexpr Duration kBeginning{3'000};
constexpr Duration kLook{250};
constexpr Duration kTellAgain{30'000};

const char* name_of(const Command& command) {
  switch (command.action_case()) {
    case Command::kRestartService:
      return "restart_service";
    case Command::kReboot:
      return "reboot";
    case Command::kIdentify:
      return "identify";
    case Command::kPurge:
      return "purge";
    default:
      return "unknown";
  }
}

// A light that beats for as long as this lives.
class Beating {
 public:
  explicit Beating(std::optional<Light> light) : light_(std::move(light)) {
    beats_ = light_ && light_->set("heartbeat");
  }
  ~Beating() {
    if (beats_) light_->set(light_->usual_trigger);
  }
  Beating(const Beating&) = delete;
  Beating& operator=(const Beating&) = delete;
  bool beats() const noexcept { return beats_; }

 private:
  std::optional<Light> light_;
  bool beats_ = false;
};

}  // namespace

struct Commands::Impl {
  Impl(Executor executor, Reconciler& r, Options o)
      : reconciler(r),
        options(std::move(o)),
        journal(options.data_dir + "/commands.json"),
        untold(executor),
        running(executor) {}

  void take(const std::string& payload, const std::function<void()>& accept) {
    Command command;
    const bool readable = command.ParseFromString(payload);
    if (!readable || command.id().empty() || command.id().size() > kLongestId) {
      log::error("a command cannot be read; it is ignored", {{"bytes", payload.size()}});
      return accept();
    }
    if (CommandEntry* known = journal.find(command.id())) {
      // It comes again because the answer was lost, or its acknowledgement.
      if (known->ended()) known->told = CommandResult::STATE_UNSPECIFIED;
      untold.set();
      return accept();
    }
    log::info("a command", {{"command", name_of(command)}, {"id", command.id()}});
    CommandEntry fresh;
    fresh.id = command.id();
    fresh.boot_id = options.boot_id;
    fresh.command = std::move(command);
    CommandEntry& entry = journal.add(std::move(fresh));
    const std::string refusal = refusal_of(entry);
    if (expired(entry.command))
      end(entry, CommandResult::EXPIRED, "it came after its time");
    else if (!refusal.empty())
      end(entry, CommandResult::FAILED, refusal);
    else
      begin(entry);
    accept();
  }

  bool expired(const Command& command) const {
    return command.expires_at_ms() > 0 &&
           command.expires_at_ms() <= to_unix_ms(options.server_time());
  }

  std::string refusal_of(const CommandEntry& entry) const {
    if (entry.command.action_case() == Command::ACTION_NOT_SET)
      return "flockd " + options.agent_version + " does not know this command";
    if (entry.command.has_reboot() && !options.reboot)
      return "switched off on the device (commands.reboot in its configuration)";
    if (running.size() >= kAtOnce) return "the device is busy with other commands";
    return "";
  }

  // On disk before anything is done: what is not would be done again after a crash.
  void begin(CommandEntry& entry) {
    entry.state = CommandResult::STARTED;
    try {
      journal.save();
    } catch (const Error& error) {
      return end(entry, CommandResult::FAILED,
                 "the device cannot write it down: " + error.message());
    }
    running.spawn("command", carry_out(entry.id));
  }

  void end(CommandEntry& entry, CommandResult::State state, std::string message) {
    entry.state = state;
    entry.message = std::move(message);
    log::info("a command ended", {{"command", name_of(entry.command)},
                                  {"id", entry.id},
                                  {"state", static_cast<int>(state)},
                                  {"message", entry.message}});
    save();
    untold.set();
  }

  void save() {
    try {
      journal.save();
    } catch (const Error& error) {
      log::warn("cannot write down what became of a command", error);
    }
  }

  // Entries that have not ended stay in the journal, so the reference holds.
  Task<void> carry_out(std::string id) {
    CommandEntry& entry = *journal.find(id);
    co_await say_it_began(entry);
    std::string fault;
    try {
      switch (entry.command.action_case()) {
        case Command::kRestartService:
          co_await reconciler.restart(entry.command.restart_service().service());
          break;
        case Command::kReboot:
          co_await reboot(entry);
          break;
        case Command::kIdentify:
          co_await identify(entry.command.identify());
          break;
        default:
          co_await purge(entry);
          break;
      }
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      fault = error.message();
    }
    end(entry, fault.empty() ? CommandResult::DONE : CommandResult::FAILED, fault);
  }

  // A device without a connection does what it has begun all the same.
  Task<void> say_it_began(const CommandEntry& entry) {
    Task<bool> telling = tell(entry);
    try {
      co_await with_deadline(std::move(telling), kBeginning, "telling that a command began");
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
    }
  }

  // Returns only by throwing: a machine that started again finds the command in its journal.
  Task<void> reboot(CommandEntry& entry) {
    co_await options.farewell("a reboot was asked for (command " + entry.id + ")");
    co_await reconciler.take_down([this] { return go_down(options.reboot_command, kGoesDown); });
  }

  Task<void> identify(device::v1::Identify wanted) {
    const std::uint32_t seconds =
        wanted.seconds() == 0 ? kIdentify : std::min(wanted.seconds(), kLongestIdentify);
    const Beating light(find_light(options.root));
    const bool console = write_on_console("Flock: somebody looks for this device", options.root);
    log::info("somebody looks for this device",
              {{"seconds", seconds}, {"light", light.beats()}, {"console", console}});
    if (!light.beats() && !console)
      throw Error(Code::kUnsupported,
                  "the device has nothing to show it with: no light under /sys/class/leds can beat "
                  "and its console cannot be written to");
    co_await sleep_for(Duration(seconds * 1000));
  }

  Task<void> purge(CommandEntry& entry) {
    const device::v1::Purge wanted = entry.command.purge();
    if (!entry.emptied) {
      const auto emptied = [this, id = entry.id] {
        journal.find(id)->emptied = true;
        save();
      };
      co_await reconciler.purge(wanted.service(),
                                {wanted.volumes().begin(), wanted.volumes().end()}, emptied);
    }
    const SteadyPoint late = std::chrono::steady_clock::now() + kRunsAgain;
    for (;;) {
      const ReportedState& report = reconciler.report();
      const auto state =
          std::find_if(report.services().begin(), report.services().end(),
                       [&](const ServiceState& s) { return s.name() == wanted.service(); });
      const bool there = state != report.services().end();
      if (there &&
          (state->state() == ServiceState::RUNNING || state->state() == ServiceState::EXITED))
        co_return;
      if (std::chrono::steady_clock::now() >= late)
        throw Error(Code::kTimeout, "its volumes are empty, but it does not run again: " +
                                        (there ? state->message() : "it is not wanted any more"));
      co_await sleep_for(kLook);
    }
  }

  // What flockd was in the middle of when it ended.
  void resume() {
    std::vector<std::string> begun;
    for (const CommandEntry& entry : journal.entries())
      if (entry.state == CommandResult::STARTED) begun.push_back(entry.id);
    for (const std::string& id : begun) {
      CommandEntry& entry = *journal.find(id);
      if (entry.command.has_purge())
        running.spawn("command", carry_out(id));
      else if (!entry.command.has_reboot())
        end(entry, CommandResult::FAILED, "flockd was stopped in the middle of it");
      else if (entry.boot_id != options.boot_id)
        end(entry, CommandResult::DONE, "");
      else
        end(entry, CommandResult::FAILED, "flockd was started again, but not the machine");
    }
  }

  Task<void> run() {
    resume();
    for (;;) {
      untold.reset();
      bool all = true;
      std::vector<std::string> ids;
      for (const CommandEntry& entry : journal.entries())
        if (entry.ended() && entry.told != entry.state) ids.push_back(entry.id);
      for (const std::string& id : ids)
        if (CommandEntry* entry = journal.find(id)) all = co_await tell(*entry) && all;
      if (!ids.empty()) save();
      if (all)
        co_await untold.wait();
      else
        co_await untold.wait_for(kTellAgain);
    }
  }

  // By id, for the journal may change while the result is on its way.
  Task<bool> tell(const CommandEntry& entry) {
    const std::string id = entry.id;
    const CommandResult::State state = entry.state;
    CommandResult result;
    result.set_command_id(id);
    result.set_state(state);
    result.set_message(entry.message);
    try {
      co_await options.tell(std::move(result));
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot tell what became of a command", error, {{"id", id}});
      co_return false;
    }
    if (CommandEntry* now = journal.find(id)) now->told = state;
    co_return true;
  }

  Reconciler& reconciler;
  Options options;
  CommandLog journal;
  Event untold;
  TaskScope running;
};

Commands::Commands(Executor executor, Reconciler& reconciler, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), reconciler, std::move(options))) {}
Commands::~Commands() = default;
void Commands::load() { impl_->journal.load(); }
void Commands::take(const std::string& payload, std::function<void()> accept) {
  impl_->take(payload, accept);
}
Task<void> Commands::run() { co_await impl_->run(); }
void Commands::on_connected() { impl_->untold.set(); }
Task<void> Commands::stop() {
  impl_->running.cancel();
  co_await impl_->running.join();
}

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "app/ends.h"

#include <csignal>
#include <map>
#include <optional>
#include <set>

#include "async/loop.h"
#include "base/error.h"
#include "base/log.h"
#include "host/machine.h"

namespace flock::agent {
namespace {

using device::v1::Service;

// Between the kernel's deed and the runtime telling of the container's end.
constexpr Duration kKillShows{15'000};
// The runtime writes down who ended a container a moment after it ended: on a busy machine seconds
// after it, which is waited for when the end looks like one that was asked for.
constexpr Duration kEndingWritten{1'500}, kEndingWrittenLate{4'000};

// One run of one container.
struct KnownRun {
  std::string service;
  TimePoint started;
  bool running = false;
};

}  // namespace

struct Ends::Impl {
  Impl(Runtime& r, TaskScope& b, Options o) : runtime(r), background(b), options(std::move(o)) {}

  // Compares with what ran at the last look: a run that is over is looked into at once, for the
  // runtime forgets how it ended when the container starts again.
  Task<void> look(const World& world) {
    const auto kills = read_oom_kills();
    const SteadyPoint at = std::chrono::steady_clock::now();
    if (kills && oom_kills && *kills > *oom_kills) killed_until = at + kKillShows;
    oom_kills = kills;
    const bool killed = at < killed_until;
    std::map<std::string, KnownRun> now;
    for (const Observed& container : world.containers) {
      const KnownRun run{container.service, container.started, container.run == Run::kRunning};
      now[container.id] = run;
      const bool own_start = own_starts.erase(container.id) > 0;
      const auto before = runs.find(container.id);
      const bool known = before != runs.end();
      const bool ran = known && before->second.running;
      const bool another = known && before->second.started != run.started;
      if (container.run == Run::kExited && (!known || ran || another || own_start))
        co_await note_exit(container, world, {known || own_start, killed});
      else if (run.running && ran && another && !own_start)
        note_foreign_end(container.id, before->second);  // somebody started it again
    }
    for (const auto& [id, run] : runs) {
      if (now.contains(id)) continue;
      own_starts.erase(id);
      if (own_ends.erase(id) == 0 && run.running) note_foreign_end(id, run);
    }
    runs.swap(now);
  }

  struct Circumstances {
    // The run was seen, so its end is news. One that ended while flockd did not run is told in the
    // report only, for nobody knows whether it was told before.
    bool watched = false;
    // Just now the kernel ended something because memory ran out. With the older cgroups Podman
    // does not notice that it was a container.
    bool oom_kill = false;
  };

  Task<void> note_exit(Observed container, const World& world, Circumstances then) {
    LastRun last;
    try {
      last = co_await runtime.last_run_of(container.id);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot tell how a container ended", error, {{"service", container.service}});
      last.exit = exit_from_code(container.exit_code);
      last.started = container.started;
    }
    const bool own = own_ends.erase(container.id) > 0;
    bool news = then.watched && !own;
    for (const DesiredState* state : {&world.desired, &world.current})
      for (const Service& service : state->services())
        if (service.name() == container.service && completes(service, container)) news = false;
    if (own) last.exit.set_by(device::v1::Exit::FLOCK);
    if (!own && last.exit.out_of_memory()) last.exit.set_by(device::v1::Exit::KERNEL);
    if (last.exit.by() != device::v1::Exit::BY_UNSPECIFIED)
      tell_exit(container.service, last.exit, news);
    else
      background.spawn("ending",
                       judge_exit(container.id, container.service, last, {news, then.oom_kill}));
  }

  // A run that ended and left nothing to look at: its container was removed or started again.
  void note_foreign_end(const std::string& id, const KnownRun& run) {
    LastRun last;
    last.exit.set_by(device::v1::Exit::OTHERS);
    last.exit.set_at_ms(to_unix_ms(system_clock().now()));
    last.started = run.started;
    background.spawn("ending", judge_exit(id, run.service, std::move(last), {true, false}));
  }

  Task<Ending> ending_of(std::string id, std::string service, TimePoint started) {
    try {
      co_return co_await runtime.ending_of(id, started);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      log::debug("cannot tell who ended a container", error, {{"service", service}});
    }
    co_return Ending();
  }

  Task<void> judge_exit(std::string id, std::string service, LastRun last, Circumstances then) {
    co_await sleep_for(kEndingWritten);
    Ending ending = co_await ending_of(id, service, last.started);
    if (!ending.by_others && last.exit.by() == device::v1::Exit::BY_UNSPECIFIED &&
        last.exit.code() == 0) {
      co_await sleep_for(kEndingWrittenLate);
      ending = co_await ending_of(id, service, last.started);
    }
    if (last.exit.by() == device::v1::Exit::BY_UNSPECIFIED) {
      const bool others = ending.by_others || comes_from_outside(last.exit.signal());
      last.exit.set_by(others ? device::v1::Exit::OTHERS : device::v1::Exit::ITSELF);
      if (!ending.by_others && last.exit.signal() == SIGKILL && then.oom_kill) {
        last.exit.set_by(device::v1::Exit::KERNEL);
        last.exit.set_out_of_memory(true);
      }
    } else if (ending.exit_code) {
      const device::v1::Exit known = exit_from_code(*ending.exit_code);
      last.exit.set_code(known.code());
      last.exit.set_signal(known.signal());
    }
    tell_exit(service, last.exit, then.watched);
  }

  void tell_exit(const std::string& service, const device::v1::Exit& exit, bool news) {
    log::info("a container ended", {{"service", service},
                                    {"code", exit.code()},
                                    {"by", static_cast<int>(exit.by())},
                                    {"out_of_memory", exit.out_of_memory()}});
    options.on_known(service, exit);
    if (news) options.on_news(service, exit);
  }

  // A container may be listed as running when it is not any more, so stopping may fail.
  Task<void> end(std::string id) {
    const auto run = runs.find(id);
    if (run == runs.end() || !run->second.running) co_return;
    own_ends.insert(id);
    try {
      co_await runtime.stop(id);
      LastRun last = co_await runtime.last_run_of(id);
      last.exit.set_by(device::v1::Exit::FLOCK);
      tell_exit(run->second.service, last.exit, false);
      run->second.running = false;
    } catch (const Error& error) {
      if (error.code() != Code::kNotFound) log::debug("cannot stop a container", error);
      if (error.code() == Code::kCancelled) throw;
    }
  }

  Runtime& runtime;
  TaskScope& background;
  Options options;
  std::map<std::string, KnownRun> runs;        // by container id
  std::set<std::string> own_ends, own_starts;  // container ids: what flockd does itself
  std::optional<std::int64_t> oom_kills = read_oom_kills();
  SteadyPoint killed_until = SteadyPoint::min();
};

Ends::Ends(Runtime& runtime, TaskScope& background, Options options)
    : impl_(std::make_unique<Impl>(runtime, background, std::move(options))) {}
Ends::~Ends() = default;
Task<void> Ends::look(const World& world) { co_await impl_->look(world); }
void Ends::know(const Observed& container) {
  impl_->runs[container.id] = {container.service, container.started,
                               container.run == Run::kRunning};
}
Task<void> Ends::end(std::string container) { co_await impl_->end(std::move(container)); }
void Ends::started(const std::string& container) { impl_->own_starts.insert(container); }
void Ends::started_again(const std::string& container) {
  impl_->own_ends.erase(container);
  impl_->runs.erase(container);  // what runs now is another run
  impl_->own_starts.insert(container);
}

}  // namespace flock::agent

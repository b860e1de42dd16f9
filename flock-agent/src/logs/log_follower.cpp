// SPDX-License-Identifier: Apache-2.0
#include "logs/log_follower.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <set>
#include <utility>

#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "logs/kernel_log.h"
#include "logs/rotations.h"
#include "logs/stream.h"

namespace flock::agent {
namespace {

constexpr std::size_t kBatchBytes = 32 << 10;  // and what one read adds
constexpr Duration kTogether{250};             // after the first sign of new lines
constexpr int kReadsInTurn = 32;               // of one service, before the next has its turn

SteadyPoint now() { return std::chrono::steady_clock::now(); }
std::int64_t unix_now() { return to_unix_ms(system_clock().now()); }

}  // namespace

struct LogFollower::Impl {
  Impl(Executor e, Options o)
      : executor(e),
        options(std::move(o)),
        positions_path(options.data_dir + "/log-positions"),
        wake(e),
        read(e),
        finished(e),
        inotify(e),
        rotated(e),
        kernel_ready(e),
        watchers(e) {
    saved = load_positions(positions_path);
  }
  ~Impl() {
    if (rotated.is_open()) rotated.release();            // RotationWatch closes it
    if (kernel_ready.is_open()) kernel_ready.release();  // KernelLog closes it
  }

  // --- What is followed

  void follow(std::vector<Followed> containers) {
    take_rotations();
    std::set<std::string> here;
    for (const Followed& one : containers) {
      here.insert(one.container);
      LogStream& stream = stream_of(one.service);
      if (stream.knows(one.container)) continue;
      if (one.log_path.empty()) {
        if (unreadable.insert(one.container).second)
          log::warn("a container's log is not followed: its log driver is not k8s-file",
                    {{"service", one.service}});
        continue;
      }
      try {
        stream.add_file(one.container, LogFile(one.log_path));
        watch_rotations_of(one);
      } catch (const Error& error) {
        log::debug("a container has no log yet", error, {{"service", one.service}});
      }
    }
    std::erase_if(unreadable, [&](const std::string& id) { return !here.contains(id); });
    for (auto at = rotating.begin(); at != rotating.end();) {
      if (!here.contains(at->second.container)) rotations.remove(at->first);
      at = here.contains(at->second.container) ? std::next(at) : rotating.erase(at);
    }
    for (auto& [name, stream] : streams)
      stream.keep_only([&](const std::string& id) { return here.contains(id); });
    wake.set();
  }

  LogStream& stream_of(const std::string& service) {
    const auto known = streams.find(service);
    if (known != streams.end()) return known->second;
    const RateLimit limit(options.lines_per_second, options.bytes_per_second);
    LogStream& fresh = streams.try_emplace(service, service, limit, sink).first->second;
    if (const auto before = saved.find(service); before != saved.end())
      fresh.restore(before->second, options.boot_id);
    return fresh;
  }

  // --- Files that take the place of others

  // A log is rotated after 10 MB, and twice within one look by a container that writes fast: each
  // file is opened as it comes, and read when it is its turn.
  void watch_rotations_of(const Followed& one) {
    rotating[one.log_path] = one;
    rotations.add(one.log_path);
    take_rotations();
    const LogFile* const newest = stream_of(one.service).newest(one.container);
    if (newest != nullptr && newest->replaced()) note_rotations(one, 1);  // before the watch began
  }

  void take_rotations() {
    // Until there is no more news: what is opened is the newest then, and those that were told of
    // before it are gone.
    for (auto news = rotations.take(); !news.empty(); news = rotations.take())
      for (const auto& [path, times] : news)
        if (const auto one = rotating.find(path); one != rotating.end())
          note_rotations(one->second, times);
  }

  void note_rotations(const Followed& one, int times) {
    try {
      stream_of(one.service).rotated(one.container, times);
    } catch (const Error& error) {
      log::debug("a container's log is gone", error, {{"service", one.service}});
    }
  }

  Task<void> watch_rotations() {
    rotated.assign(rotations.descriptor());
    for (;;) {
      co_await rotated.async_wait(asio::posix::descriptor_base::wait_read, asio::use_awaitable);
      take_rotations();
    }
  }

  // --- The loop

  Task<void> run() {
    start_watching();
    for (;;) {
      const bool last = finishing;
      wake.reset();
      co_await pump(last);
      save_if_due();
      if (last) break;
      read.set();  // the watchers look again
      co_await wait();
    }
    save(true);
    finished.set();
    watchers.cancel();
    co_await watchers.join();
  }

  // Until there may be something to read; then a little longer, for more to come with it.
  Task<void> wait() {
    const bool unsettled =
        std::ranges::any_of(streams, [](const auto& item) { return item.second.waiting(); });
    if (unsettled)
      co_await wake.wait_for(kTogether);
    else if (unsaved)
      co_await wake.wait_for(until(save_at));
    else
      co_await wake.wait();
    if (finishing || (unsettled && !wake.is_set())) co_return;
    const Duration pause =
        std::max(kTogether, std::chrono::ceil<Duration>(pumped + options.batch - now()));
    co_await hurry.wait_for(pause);
  }

  static Duration until(SteadyPoint at) {
    return std::max(Duration(1), std::chrono::ceil<Duration>(at - now()));
  }

  // Everything that is there, each service in its turn.
  Task<void> pump(bool last) {
    pumped = now();
    for (bool more = true; more;) {
      more = false;
      if (kernel) more = co_await read_kernel();
      for (auto& [name, stream] : streams) {
        bool again = true;
        for (int i = 0; again && i < kReadsInTurn; ++i) {
          again = read_some(stream, last);
          if (sink.bytes >= kBatchBytes) co_await cut();
        }
        more = more || again;
        co_await yield_now();
      }
    }
    co_await cut();
  }

  bool read_some(LogStream& stream, bool last) {
    bool again = false;
    take_rotations();
    try {
      again = stream.read(last ? INT64_MAX : unix_now());
    } catch (const Error& error) {
      log::warn("a container's log cannot be read", error, {{"service", stream.service()}});
    }
    watch(stream);
    return again;
  }

  Task<void> cut() {
    for (auto& [name, stream] : streams) stream.cut();
    if (sink.batch.streams_size() > 0) {
      announce();
      sink.batch.set_boot_id(options.boot_id);
      sink.batch.set_seq(options.next_seq());
      std::string payload = sink.batch.SerializeAsString();
      sink.batch = device::v1::LogBatch();  // gives its memory back
      sink.bytes = 0;
      co_await options.deliver(std::move(payload));
      note_unsaved();
    }
    for (auto& [name, stream] : streams) stream.settled();
  }

  // --- The kernel's messages

  std::string kernel_source() const { return "kernel of " + options.boot_id; }

  void start_kernel() {
    const auto from = stream_of("").resume_source(kernel_source());
    try {
      kernel = std::make_unique<KernelLog>(options.kernel_path, from.value_or(0));
    } catch (const Error& error) {
      log::warn("the kernel's messages cannot be followed", error);
    }
  }

  Task<bool> read_kernel() {
    LogStream& stream = stream_of("");
    KernelRecord record;
    for (int i = 0; i < 256; ++i) {
      if (!kernel->read(record)) co_return false;
      if (!stream.begun()) stream.begin_source(record.sequence);
      // The ring went over them.
      const std::int64_t missing = record.sequence - stream.source_offset();
      const std::int64_t at = record.line.at_ms();
      if (missing > 0) stream.add_gap(device::v1::LogGap::UNREADABLE, missing, at, at);
      stream.add_line(std::move(record.line), record.sequence + 1);
      if (sink.bytes >= kBatchBytes) co_await cut();
    }
    co_return true;
  }

  // --- Signs of new lines

  void start_watching() {
    const int descriptor = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (descriptor < 0) throw file_error("watch", "the containers' logs");
    inotify.assign(descriptor);
    watchers.spawn("watch rotations", watch_rotations());
    watchers.spawn("watch logs", watch_loop(inotify, [this] { empty_inotify(); }));
    if (!options.kernel) return;
    start_kernel();
    if (!kernel) return;
    kernel_ready.assign(kernel->descriptor());
    watchers.spawn("watch the kernel", watch_loop(kernel_ready, [] {}));
  }

  // One sign for all that comes until the logs are read.
  Task<void> watch_loop(asio::posix::stream_descriptor& source, std::function<void()> empty) {
    for (;;) {
      co_await source.async_wait(asio::posix::descriptor_base::wait_read, asio::use_awaitable);
      empty();  // before the logs are read: what comes during that is a sign of its own
      wake.set();
      read.reset();
      co_await read.wait();
    }
  }

  void empty_inotify() {
    char events[4096];
    while (::read(inotify.native_handle(), events, sizeof events) > 0) {
    }
  }

  void watch(const LogStream& stream) {
    const LogFile* file = stream.file();
    auto& watched = watches[stream.service()];
    const std::uint64_t inode = file == nullptr ? 0 : file->inode();
    if (watched.inode == inode) return;
    if (watched.descriptor >= 0) ::inotify_rm_watch(inotify.native_handle(), watched.descriptor);
    watched = {};
    if (file == nullptr) return;
    watched.descriptor = ::inotify_add_watch(inotify.native_handle(), file->path().c_str(),
                                             IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
    watched.inode = inode;
    wake.set();  // for what was written before the watch began
  }

  // --- Positions

  // Before numbers are used that a restart does not know of.
  void announce() {
    const auto unknown = [](const auto& item) {
      return item.second.begun() && !item.second.announced;
    };
    if (std::ranges::any_of(streams, unknown)) save(false);
  }

  void note_unsaved() {
    if (!std::exchange(unsaved, true)) save_at = now() + options.save;
  }

  void save_if_due() {
    if (unsaved && now() >= save_at) save(false);
  }

  void save(bool end) {
    for (auto& [name, stream] : streams) {
      if (!stream.begun()) continue;
      Position& position = saved[name] = stream.safe();
      position.boot_id = options.boot_id;
      position.clean = end && position.number == stream.next_number();
      stream.announced = true;
    }
    unsaved = false;
    try {
      save_positions(positions_path, saved);
    } catch (const Error& error) {
      log::warn("the positions in the logs cannot be saved yet", error);
      note_unsaved();
    }
  }

  Executor executor;
  Options options;
  const std::string positions_path;
  Positions saved;
  LogStream::Sink sink;
  std::map<std::string, LogStream> streams;  // by service; "" is the machine
  std::set<std::string> unreadable;          // containers whose logs are elsewhere
  RotationWatch rotations;
  std::map<std::string, Followed> rotating;  // by the path of the log
  std::unique_ptr<KernelLog> kernel;
  struct Watched {
    std::uint64_t inode = 0;
    int descriptor = -1;
  };
  std::map<std::string, Watched> watches;
  SteadyPoint pumped{}, save_at{};
  bool unsaved = false, finishing = false;
  Event wake, read, finished;
  Event hurry{executor};  // to the end
  asio::posix::stream_descriptor inotify, rotated, kernel_ready;
  TaskScope watchers;
};

LogFollower::LogFollower(Executor executor, Options options)
    : impl_(std::make_unique<Impl>(std::move(executor), std::move(options))) {}
LogFollower::~LogFollower() = default;
void LogFollower::follow(std::vector<Followed> containers) { impl_->follow(std::move(containers)); }
Task<void> LogFollower::run() { co_await impl_->run(); }

void LogFollower::finish() {
  impl_->finishing = true;
  impl_->wake.set();
  impl_->hurry.set();
}

Task<bool> LogFollower::wait_finished(Duration limit) {
  co_return co_await impl_->finished.wait_for(limit);
}

}  // namespace flock::agent

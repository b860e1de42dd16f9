// SPDX-License-Identifier: Apache-2.0
#include "host/program.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <optional>
#include <utility>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "host/kernel_files.h"

namespace flock::agent {
namespace {

constexpr Duration kLook{20}, kBusyLook{1};
constexpr Duration kLastWords{500};  // what is left in the pipe when the program has ended
constexpr std::size_t kChunk = 64 << 10;
constexpr int kChunksAtOnce = 16;
constexpr int kStartTimeField = 22;  // of /proc/PID/stat, proc(5)

struct User {
  uid_t id = 0;
  gid_t group = 0;
  std::vector<gid_t> groups;
  std::string home;
};

std::optional<User> find_user(const std::string& name) {
  if (name.empty()) return std::nullopt;
  std::array<char, 4096> buffer{};
  passwd entry{};
  passwd* found = nullptr;
  ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr)
    throw Error(Code::kNotFound, "this machine has no user " + name).with("user", name);
  User user{entry.pw_uid, entry.pw_gid, {}, entry.pw_dir};
  int count = 64;
  user.groups.resize(static_cast<std::size_t>(count));
  if (::getgrouplist(name.c_str(), user.group, user.groups.data(), &count) < 0)
    throw Error(Code::kUnavailable, "the user is in too many groups").with("user", name);
  user.groups.resize(static_cast<std::size_t>(count));
  return user;
}

// A file in memory, which every user can read by its number, and that is gone with the program.
FileDescriptor script_file(const std::string& script) {
  FileDescriptor file(::memfd_create("flock-host-command", 0));  // stays open over exec
  if (file.get() < 0) throw file_error("make", "a file for the script");
  ::fchmod(file.get(), 0555);
  write_all(file.get(), script, "the script");
  return file;
}

std::int64_t start_of(pid_t id, const std::string& root) {
  const auto text = read_kernel_file(root + "/proc/" + std::to_string(id) + "/stat");
  if (!text) return 0;
  const std::size_t name_end = text->rfind(')');  // a name may hold anything
  if (name_end == std::string::npos) return 0;
  const auto words = words_of(std::string_view(*text).substr(name_end + 1));
  constexpr std::size_t kAt = kStartTimeField - 3;  // words[0] is the third field
  const auto number = words.size() > kAt ? number_of(words[kAt]) : std::nullopt;
  return number.value_or(0);
}

// All that is needed between fork and exec, where nothing may be allocated.
struct Launch {
  std::vector<char*> words, environment;
  const char* folder = "/";
  const User* user = nullptr;
  int output = -1, failure = -1;
};

[[noreturn]] void become(const Launch& launch) {
  ::setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);  // flockd ignores it
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ::dup2(null, 0);
  ::dup2(launch.output, 1);
  ::dup2(launch.output, 2);
  bool good = true;
  if (launch.user != nullptr)
    good = ::setgroups(launch.user->groups.size(), launch.user->groups.data()) == 0 &&
           ::setgid(launch.user->group) == 0 && ::setuid(launch.user->id) == 0;
  good = good && ::chdir(launch.folder) == 0;
  if (good) ::execvpe(launch.words.front(), launch.words.data(), launch.environment.data());
  const int error = errno;
  [[maybe_unused]] const ssize_t told = ::write(launch.failure, &error, sizeof error);
  ::_exit(127);
}

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw file_error("make", "a pipe");
    reading = ends[0];
    writing = ends[1];
  }
  ~Pipe() {
    close_writing();
    ::close(reading);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_writing() {
    if (writing >= 0) ::close(writing);
    writing = -1;
  }
  int reading = -1, writing = -1;
};

// A process group with its output. Whatever happens to the one who waits, it ends.
class Running {
 public:
  explicit Running(Program& program) {
    const std::optional<User> user = find_user(program.run_as);
    FileDescriptor script;
    if (!program.script.empty()) {
      script = script_file(program.script);
      program.words.push_back("/proc/self/fd/" + std::to_string(script.get()));
    }
    if (user) program.environment.emplace("HOME", user->home);
    std::vector<std::string> variables;
    for (const auto& [name, value] : program.environment) variables.push_back(name + "=" + value);
    Launch launch;
    for (std::string& word : program.words) launch.words.push_back(word.data());
    for (std::string& variable : variables) launch.environment.push_back(variable.data());
    launch.words.push_back(nullptr);
    launch.environment.push_back(nullptr);
    launch.folder = program.working_directory.c_str();
    launch.user = user ? &*user : nullptr;
    Pipe failure;
    launch.output = output_.writing;
    launch.failure = failure.writing;
    ::fcntl(output_.reading, F_SETFL, O_NONBLOCK);
    pid_ = ::fork();
    if (pid_ < 0) throw Error(Code::kUnavailable, std::string("cannot fork: ") + strerror(errno));
    if (pid_ == 0) become(launch);
    group_ = pid_;
    ::setpgid(pid_, pid_);  // whoever is first
    output_.close_writing();
    failure.close_writing();
    int error = 0;
    if (::read(failure.reading, &error, sizeof error) == sizeof error) {
      ::waitpid(std::exchange(pid_, -1), nullptr, 0);
      throw Error(Code::kUnavailable, "cannot run " + program.words.front() + " in " +
                                          program.working_directory + ": " + strerror(error));
    }
  }
  ~Running() {
    if (pid_ <= 0) return;
    signal_all(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  pid_t id() const { return group_; }
  void signal_all(int number) const { ::kill(-group_, number); }
  // The status once it has ended; what it has begun may go on.
  std::optional<int> ended() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    pid_ = -1;
    return status;
  }
  // True when there may be more at once.
  bool read_into(BoundedOutput& output) {
    std::string chunk(kChunk, '\0');
    for (int i = 0; i < kChunksAtOnce; ++i) {
      const ssize_t got = ::read(output_.reading, chunk.data(), chunk.size());
      if (got == 0) at_end_ = true;
      if (got <= 0) return false;
      output.append(std::string_view(chunk).substr(0, static_cast<std::size_t>(got)));
    }
    return true;
  }
  bool at_end() const { return at_end_; }

 private:
  Pipe output_;
  pid_t pid_ = -1, group_ = -1;
  bool at_end_ = false;
};

}  // namespace

void BoundedOutput::append(std::string_view bytes) {
  const std::size_t room = head_limit_ - std::min(head_limit_, head_.size());
  head_.append(bytes.substr(0, room));
  tail_.append(bytes.substr(std::min(room, bytes.size())));
  if (tail_.size() <= tail_limit_) return;
  const auto over = static_cast<std::ptrdiff_t>(tail_.size() - tail_limit_);
  dropped_bytes_ += over;
  dropped_lines_ += std::count(tail_.begin(), tail_.begin() + over, '\n');
  tail_.erase(tail_.begin(), tail_.begin() + over);
}

std::string BoundedOutput::text() const {
  if (dropped_bytes_ == 0) return head_ + tail_;
  return head_ + "\n[... " + std::to_string(dropped_bytes_) + " bytes left out ...]\n" + tail_;
}

ProcessGroup group_of(pid_t leader, const std::string& root) {
  return {leader, start_of(leader, root)};
}

void kill_group(const ProcessGroup& group, const std::string& root) {
  if (group.id > 1 && group.started != 0 && start_of(group.id, root) == group.started)
    ::kill(-group.id, SIGKILL);
}

Task<ProgramEnd> run_program(Program program, std::function<void(ProcessGroup)> on_started) {
  ProgramEnd end{0, 0, false, BoundedOutput(program.output_limit)};
  Running running(program);
  on_started(group_of(running.id()));
  const auto now = [] { return std::chrono::steady_clock::now(); };
  SteadyPoint late = now() + program.timeout;
  std::optional<int> status;
  while (!(status = running.ended())) {
    const bool busy = running.read_into(end.output);
    if (now() >= late) {
      running.signal_all(end.timed_out ? SIGKILL : SIGTERM);
      end.timed_out = true;
      late = now() + program.grace;
    }
    co_await sleep_for(busy ? kBusyLook : kLook);
  }
  if (end.timed_out) running.signal_all(SIGKILL);  // what it has begun
  // A program that it left behind may hold the pipe open for ever.
  const SteadyPoint enough = now() + kLastWords;
  while (!running.at_end() && now() < enough) {
    if (!running.read_into(end.output)) co_await sleep_for(kLook);
  }
  end.signal = WIFSIGNALED(*status) ? WTERMSIG(*status) : 0;
  end.exit_code = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + end.signal;
  co_return end;
}

}  // namespace flock::agent

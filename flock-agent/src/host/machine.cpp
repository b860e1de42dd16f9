// SPDX-License-Identifier: Apache-2.0
#include "host/machine.h"

#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "async/loop.h"
#include "base/error.h"
#include "host/kernel_files.h"

namespace flock::agent {
namespace {

constexpr Duration kLook{50};
constexpr Duration kRebootCommandTime{60'000};

// False when nothing, or not all of it, could be written.
bool write_to(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) return false;
  const ssize_t written = ::write(fd, text.data(), text.size());
  ::close(fd);
  return written == static_cast<ssize_t>(text.size());
}

// The child of run_to_the_end(): whatever happens to the one who waits, it is reaped.
class Child {
 public:
  explicit Child(std::vector<std::string>& words) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    sigset_t usual;
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);  // flockd ignores it
    ::posix_spawnattr_setsigdefault(&attributes, &usual);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int error =
        ::posix_spawnp(&pid_, arguments.front(), nullptr, &attributes, arguments.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    if (error != 0)
      throw Error(Code::kUnavailable, "cannot run " + words.front() + ": " + std::strerror(error));
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  // The status once it has ended.
  std::optional<int> ended() {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
    pid_ = -1;
    return status;
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace

std::string read_boot_id(const std::string& root) {
  const auto text = read_kernel_file(root + "/proc/sys/kernel/random/boot_id", 64);
  const auto words = text ? words_of(*text) : std::vector<std::string_view>();
  return words.empty() ? "" : std::string(words.front());
}

std::optional<TimePoint> read_boot_time(const std::string& root) {
  const auto text = read_kernel_file(root + "/proc/uptime", 64);
  const auto words = text ? words_of(*text) : std::vector<std::string_view>();
  const auto seconds = words.empty() ? std::nullopt : decimal_of(words.front());
  if (!seconds) return std::nullopt;
  return system_clock().now() - Duration(static_cast<Duration::rep>(*seconds * 1000));
}

std::optional<std::int64_t> read_oom_kills(const std::string& root) {
  const auto text = read_kernel_file(root + "/proc/vmstat");
  return text ? value_of(*text, "oom_kill") : std::nullopt;
}

bool Light::set(const std::string& trigger) const { return write_to(file, trigger + "\n"); }

std::optional<Light> find_light(const std::string& root) {
  const std::string folder = root + "/sys/class/leds";
  std::vector<std::string> names = names_in(folder);
  // What boards call their own lamps: Raspberry Pi's, and "devicename:colour:status" of many.
  const auto is_own = [](const std::string& name) {
    return name == "ACT" || name == "led0" || name.ends_with(":status") ||
           name.ends_with(":heartbeat");
  };
  std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return std::pair(!is_own(a), a) < std::pair(!is_own(b), b);
  });
  for (const std::string& name : names) {
    if (name.starts_with("input")) continue;  // a keyboard's
    const std::string file = folder + "/" + name + "/trigger";
    const auto triggers = read_kernel_file(file);
    if (!triggers) continue;
    Light light{name, file, "none"};
    bool beats = false;
    for (std::string_view word : words_of(*triggers)) {
      if (word.starts_with('[') && word.ends_with(']')) {
        word = word.substr(1, word.size() - 2);
        light.usual_trigger = std::string(word);
      }
      beats = beats || word == "heartbeat";
    }
    if (beats) return light;
  }
  return std::nullopt;
}

bool write_on_console(const std::string& line, const std::string& root) {
  return write_to(root + "/dev/console", "\r\n" + line + "\r\n");
}

Task<void> run_to_the_end(std::vector<std::string> words, Duration limit) {
  Child child(words);
  const SteadyPoint late = std::chrono::steady_clock::now() + limit;
  std::optional<int> status;
  while (!(status = child.ended())) {
    if (std::chrono::steady_clock::now() >= late)
      throw Error(Code::kTimeout, words.front() + " did not end within " + to_string(limit));
    co_await sleep_for(kLook);
  }
  if (WIFSIGNALED(*status))
    throw Error(Code::kUnavailable,
                words.front() + " was ended by signal " + std::to_string(WTERMSIG(*status)));
  if (WEXITSTATUS(*status) != 0)
    throw Error(Code::kUnavailable,
                words.front() + " ended with code " + std::to_string(WEXITSTATUS(*status)));
}

// Only segments that are never written to: what the loader relocated is not in the files.
void forget_used_code() {
  const auto forget = [](dl_phdr_info* object, std::size_t, void*) {
    const auto page = static_cast<ElfW(Addr)>(::sysconf(_SC_PAGESIZE));
    for (int i = 0; i < object->dlpi_phnum; ++i) {
      const ElfW(Phdr)& part = object->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || (part.p_flags & PF_W) != 0 || (part.p_flags & PF_X) == 0)
        continue;
      const ElfW(Addr) begin = (object->dlpi_addr + part.p_vaddr) / page * page;
      const ElfW(Addr) end = object->dlpi_addr + part.p_vaddr + part.p_memsz;
      ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // NOLINT
    }
    return 0;
  };
  ::dl_iterate_phdr(forget, nullptr);
}

Task<void> restart_machine(std::vector<std::string> command) {
  if (command.empty() && ::access("/run/systemd/system", F_OK) == 0)
    command = {"systemctl", "reboot"};
  if (!command.empty()) co_return co_await run_to_the_end(std::move(command), kRebootCommandTime);
  ::sync();
  if (::reboot(RB_AUTOBOOT) != 0)
    throw Error(Code::kUnavailable, std::string("the kernel refuses: ") + std::strerror(errno));
}

Task<void> go_down(std::vector<std::string> command, Duration limit) {
  co_await restart_machine(std::move(command));
  co_await sleep_for(limit);
  throw Error(Code::kUnavailable, "the machine was asked to start again, but still runs");
}

}  // namespace flock::agent

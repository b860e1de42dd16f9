// SPDX-License-Identifier: Apache-2.0
// For tests: flockd in a process that can be killed, and a disk that can be full.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/signal_set.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>

#include "app/agent.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "testing/process.h"

namespace flock::agent {

// A file system of its own, e.g. of "64k". Needs root.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& size) {
    FLOCK_ASSERT(::mount("tmpfs", dir_.path().c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0);
  }
  ~SmallDisk() { ::umount2(dir_.path().c_str(), MNT_DETACH); }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  const std::string& path() const { return dir_.path(); }
  // Leaves about `free_bytes`.
  void fill(std::uintmax_t free_bytes) const {
    const auto room = std::filesystem::space(path()).available;
    std::ofstream out(path() + "/filler");
    const std::string block(4096, 'x');
    for (std::uintmax_t i = 0; free_bytes + i < room && out.flush(); i += block.size())
      out << block;
  }
  void free() const { std::filesystem::remove(path() + "/filler"); }

 private:
  flock::testing::TempDir dir_;
};

// Switches the loopback interface, which is all that a fresh network namespace has.
inline void set_network(bool up) {
  const FileDescriptor any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = static_cast<short>(up ? IFF_UP | IFF_RUNNING : 0);
  if (::ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) throw file_error("set", "lo");
}

// Runs `body` in a child process with a network of its own, which is up. Skips the test where there
// are no network namespaces.
inline void in_own_network(const std::function<void()>& body) {
  constexpr int kNone = 2;
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNET) != 0) ::_exit(kNone);
    set_network(true);
    body();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNone) GTEST_SKIP() << "needs network namespaces";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// flockd in a process of its own.
class Flockd {
 public:
  Flockd(AgentOptions options, const std::string& log) {
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    ::dup2(out, 1);
    ::dup2(out, 2);
    run(std::move(options));
    ::_exit(0);
  }
  ~Flockd() { end(SIGKILL); }
  Flockd(const Flockd&) = delete;
  Flockd& operator=(const Flockd&) = delete;
  // Waits for its end.
  void end(int number) {
    if (pid_ < 0) return;
    ::kill(pid_, number);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  static void run(AgentOptions options) {
    static Agent* running = nullptr;
    Loop loop;
    Agent agent(loop.executor(), std::move(options));
    running = &agent;
    asio::signal_set signals(loop.executor(), SIGTERM);
    signals.async_wait([](const boost::system::error_code& error, int) {
      if (!error) running->stop();
    });
    loop.run(agent.run());
  }
  pid_t pid_ = -1;
};

}  // namespace flock::agent

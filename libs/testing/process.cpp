// SPDX-License-Identifier: Apache-2.0
#include "testing/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/files.h"

namespace flock::testing {
namespace {

std::vector<char*> argument_vector(const std::vector<std::string>& arguments) {
  std::vector<char*> out;
  for (const std::string& argument : arguments) out.push_back(const_cast<char*>(argument.c_str()));
  out.push_back(nullptr);
  return out;
}

// The child's half of fork: never returns.
[[noreturn]] void run_child(const std::vector<char*>& arguments, int input, int output,
                            pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent went between fork and prctl
  ::dup2(input, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

}  // namespace

TempDir::TempDir() {
  char path[] = "/tmp/flock-test-XXXXXX";
  FLOCK_ASSERT(::mkdtemp(path) != nullptr);
  ::chmod(path, 0755);
  path_ = path;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::write(const std::string& name, const std::string& content) const {
  std::ofstream(file(name)) << content;
  return file(name);
}

void Process::start(const std::vector<std::string>& arguments, const std::string& log) {
  stop();
  const std::string program = find_program({arguments[0]});
  if (program.empty())
    throw Error(Code::kNotFound, "program is not installed").with("program", arguments[0]);
  std::vector<std::string> full = arguments;
  full[0] = program;
  const std::vector<char*> argv = argument_vector(full);
  const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) run_child(argv, input, output, parent);
  ::close(input);
  ::close(output);
  FLOCK_ASSERT(pid_ > 0);
}

Process::~Process() { stop(SIGKILL); }

void Process::signal(int number) {
  if (pid_ > 0) ::kill(pid_, number);
}

bool Process::running() {
  if (pid_ <= 0) return false;
  if (::waitpid(pid_, nullptr, WNOHANG) == 0) return true;
  pid_ = -1;
  return false;
}

void Process::stop(int number) {
  if (!running()) return;
  signal(number);
  for (int i = 0; i < 1000 && running(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (!running()) return;
  signal(SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

namespace {

// Where the kernel takes the ports of outgoing connections from (ip(7), ip_local_port_range).
int first_ephemeral_port() {
  std::ifstream range("/proc/sys/net/ipv4/ip_local_port_range");
  int first = 32768;
  range >> first;
  return first;
}

bool bindable(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return bound;
}

}  // namespace

int free_port() {
  static std::mt19937 random(std::random_device{}());
  constexpr int kFirst = 10000;
  std::uniform_int_distribution<int> any(kFirst,
                                         std::max(kFirst + 5000, first_ephemeral_port()) - 1);
  for (int tries = 0; tries < 1000; ++tries) {
    const int port = any(random);
    if (bindable(port)) return port;
  }
  throw Error(Code::kUnavailable, "no TCP port is free");
}

bool port_open(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool open = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return open;
}

void wait_until(const std::string& what, const std::function<bool()>& condition, int seconds) {
  for (int i = 0; i < seconds * 100; ++i) {
    if (condition()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  throw Error(Code::kTimeout, "did not happen in time: " + what);
}

void run_program(const std::vector<std::string>& arguments, const std::string& input) {
  const TempDir dir;
  const std::string log = dir.file("log"), in = dir.write("in", input);
  const std::string program = find_program({arguments[0]});
  if (program.empty())
    throw Error(Code::kNotFound, "program is not installed").with("program", arguments[0]);
  std::vector<std::string> full = arguments;
  full[0] = program;
  const std::vector<char*> argv = argument_vector(full);
  const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  const int from = ::open(in.c_str(), O_RDONLY | O_CLOEXEC);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) run_child(argv, from, output, parent);
  ::close(output);
  ::close(from);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status == 0) return;
  throw Error(Code::kInternal, "a program failed")
      .with("program", arguments[0])
      .with("output", read_file(log).value_or(""));
}

std::string find_program(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    for (const char* folder :
         {"", "/usr/local/bin/", "/usr/bin/", "/usr/sbin/", "/usr/lib/postgresql/15/bin/"}) {
      const std::string path = folder + name;
      if (path.find('/') != std::string::npos && ::access(path.c_str(), X_OK) == 0) return path;
    }
  }
  return "";
}

}  // namespace flock::testing

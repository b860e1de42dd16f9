// SPDX-License-Identifier: Apache-2.0
#include "testing/crash_points.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/error.h"

namespace flock::testing {
namespace {

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  FLOCK_ASSERT(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

int unix_socket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

bool write_all(int fd, const char* data, ssize_t size) {
  while (size > 0) {
    const ssize_t done = ::send(fd, data, static_cast<std::size_t>(size), MSG_NOSIGNAL);
    if (done <= 0) return false;
    data += done;
    size -= done;
  }
  return true;
}

// The first line of a request that changes something, or "".
std::string step_of(const std::string& request) {
  if (!request.starts_with("POST ") && !request.starts_with("DELETE ")) return "";
  return request.substr(0, request.find(" HTTP/"));
}

}  // namespace

CrashPoints::CrashPoints(std::string listen, std::string server) : server_(std::move(server)) {
  ::unlink(listen.c_str());
  listener_ = unix_socket();
  const sockaddr_un address = address_of(listen);
  FLOCK_ASSERT(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  FLOCK_ASSERT(::listen(listener_, 16) == 0);
  acceptor_ = std::thread([this] { accept_loop(); });
}

CrashPoints::~CrashPoints() {
  ending_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
}

void CrashPoints::arm(int mark, std::function<void()> crash) {
  crash_ = std::move(crash);
  mark_ = mark;
  passed_ = 0;
  crashed_ = false;
}

void CrashPoints::accept_loop() {
  std::vector<std::thread> relays;
  while (!ending_) {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) break;
    relays.emplace_back([this, client] { relay(client); });
  }
  for (std::thread& thread : relays) thread.join();
}

// True when the program was killed here.
bool CrashPoints::pass(const std::string& step) {
  if (passed_++ != mark_) return false;
  step_ = step;
  crash_();
  crashed_ = true;
  return true;
}

void CrashPoints::relay(int client) {
  const int server = unix_socket();
  const sockaddr_un address = address_of(server_);
  bool open = ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  std::string step;  // the one whose answer is awaited
  char block[65536];
  while (open && !ending_) {
    pollfd waits[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
    ::poll(waits, 2, 100);
    if (waits[0].revents != 0) {
      const ssize_t got = ::recv(client, block, sizeof block, 0);
      if (got <= 0) break;
      step = step_of(std::string(block, static_cast<std::size_t>(got)));
      open = (step.empty() || !pass(step + ", before")) && write_all(server, block, got);
    }
    if (open && waits[1].revents != 0) {
      const ssize_t got = ::recv(server, block, sizeof block, 0);
      if (got <= 0) break;
      open = (step.empty() || !pass(step + ", done")) && write_all(client, block, got);
      step.clear();
    }
  }
  ::close(client);
  ::close(server);
}

}  // namespace flock::testing

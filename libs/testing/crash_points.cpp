// SPDX-License-Identifier: Apache-2.0
#include "testing/crash_points.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <memory>
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
sockaddr_in address_of(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int listen_at(int fd, const sockaddr* address, socklen_t size) {
  const int yes = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  FLOCK_ASSERT(::bind(fd, address, size) == 0);
  FLOCK_ASSERT(::listen(fd, 16) == 0);
  return fd;
}
int connect_to(int fd, const sockaddr* address, socklen_t size) {
  if (::connect(fd, address, size) == 0) return fd;
  ::close(fd);
  return -1;
}

int unix_socket() { return ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }
int tcp_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return fd;
}

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
std::string http_step(const std::string& request) {
  if (!request.starts_with("POST ") && !request.starts_with("DELETE ")) return "";
  return request.substr(0, request.find(" HTTP/"));
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

// Text that ends with a zero byte; moves `at` behind it.
std::string text_at(const std::string& bytes, std::size_t& at) {
  const std::string text(bytes.c_str() + at);
  at += text.size() + 1;
  return text;
}

bool writes(const std::string& sql) {
  return sql.starts_with("COMMIT") || sql.find("INSERT INTO") != std::string::npos ||
         sql.find("UPDATE ") == 0 || sql.find("DELETE FROM") != std::string::npos ||
         sql.find("(UPDATE ") != std::string::npos || sql.find(") UPDATE ") != std::string::npos;
}

// PostgreSQL's messages 53.7: a statement is parsed once under a name and bound by it later.
class PostgresStatements {
 public:
  std::string read(const std::string& written) {
    std::string step;
    std::size_t at = 0;
    while (at + 5 <= written.size()) {
      const char kind = written[at];
      const std::size_t end = at + 1 + big_endian(written, at + 1);
      if (end > written.size() || end <= at) break;  // the beginning of a session, or a part
      std::size_t in = at + 5;
      if (kind == 'P') {
        const std::string name = text_at(written, in);
        texts_[name] = text_at(written, in);
      }
      if (kind == 'B') {
        text_at(written, in);  // the portal's name
        const std::string& text = texts_[text_at(written, in)];
        if (writes(text)) step = text.substr(0, 80);
      }
      at = end;
    }
    return step;
  }

 private:
  std::map<std::string, std::string> texts_;
};

// MQTT 5, 3.3: the first message that is in it.
std::string mqtt_step(const std::string& written) {
  if (written.size() < 4 || (written[0] & 0xf0) != 0x30) return "";
  std::size_t at = 1;
  while (at < written.size() && (written[at] & 0x80) != 0) ++at;  // the length's bytes
  if (at + 3 > written.size()) return "";
  const auto size = static_cast<std::size_t>(static_cast<unsigned char>(written[at + 1]) << 8 |
                                             static_cast<unsigned char>(written[at + 2]));
  return "PUBLISH " + written.substr(at + 3, size);
}

}  // namespace

CrashPoints::Reader postgres_steps() {
  const auto statements = std::make_shared<PostgresStatements>();
  return [statements](const std::string& written) { return statements->read(written); };
}
CrashPoints::Reader mqtt_steps() { return mqtt_step; }

CrashPoints::CrashPoints(std::string listen, std::string server)
    : readers_([] { return Reader(http_step); }) {
  ::unlink(listen.c_str());
  const sockaddr_un address = address_of(listen);
  listener_ = listen_at(unix_socket(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  connect_ = [server] {
    const sockaddr_un to = address_of(server);
    return connect_to(unix_socket(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  };
  acceptor_ = std::thread([this] { accept_loop(); });
}

CrashPoints::CrashPoints(int listen, int server, std::function<Reader()> readers)
    : readers_(std::move(readers)) {
  const sockaddr_in address = address_of(listen);
  listener_ = listen_at(tcp_socket(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  connect_ = [server] {
    const sockaddr_in to = address_of(server);
    return connect_to(tcp_socket(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  };
  acceptor_ = std::thread([this] { accept_loop(); });
}

CrashPoints::~CrashPoints() {
  ending_ = true;
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  ::close(listener_);
}

void CrashPoints::arm(int mark, std::function<void()> crash) {
  const std::lock_guard lock(mutex_);
  crash_ = std::move(crash);
  mark_ = mark;
  passed_ = 0;
  crashed_ = false;
}

std::string CrashPoints::step() const {
  const std::lock_guard lock(mutex_);
  return step_;
}

void CrashPoints::accept_loop() {
  std::vector<std::thread> relays;
  while (!ending_) {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) break;
    relays.emplace_back([this, client, read = readers_()] { relay(client, read); });
  }
  for (std::thread& thread : relays) thread.join();
}

// True when the program was killed here.
bool CrashPoints::pass(const std::string& step) {
  const std::lock_guard lock(mutex_);
  if (passed_++ != mark_) return false;
  step_ = step;
  crashed_ = true;  // first: who waits for the program to end asks then
  crash_();
  return true;
}

void CrashPoints::relay(int client, const Reader& read) {
  const int server = connect_();
  bool open = server >= 0;
  std::string step;  // the one whose answer is awaited
  char block[65536];
  while (open && !ending_) {
    pollfd waits[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
    ::poll(waits, 2, 100);
    if (waits[0].revents != 0) {
      const ssize_t got = ::recv(client, block, sizeof block, 0);
      if (got <= 0) break;
      step = read(std::string(block, static_cast<std::size_t>(got)));
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
  if (server >= 0) ::close(server);
}

}  // namespace flock::testing

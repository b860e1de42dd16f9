// SPDX-License-Identifier: Apache-2.0
// Erased byte streams: everything above this file speaks to TCP, TLS, unix sockets and tests
// through one type.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "async/task.h"
#include "base/time.h"

namespace flock::net {

// A connected, ordered byte stream. One reader and one writer may be active at a time. Failures are
// Error{kUnavailable} (reset, refused), {kTimeout} (expires_after passed), {kCancelled},
// {kProtocol} (TLS).
class Stream {
 public:
  virtual ~Stream() = default;  // closes
  // 1..size bytes; 0 means the peer ended its side.
  virtual Task<std::size_t> read_some(char* data, std::size_t size) = 0;
  // All of `data`; the memory must live until the task ends.
  virtual Task<void> write(std::string_view data) = 0;
  // What of `data` goes out at once, without waiting and while no write() is active; 0 also when
  // this stream cannot or the connection is broken, which the next write() tells. For short answers
  // in the middle of reading.
  virtual std::size_t try_write(std::string_view data) noexcept {
    static_cast<void>(data);
    return 0;
  }
  // Ends the own side in order (TLS close_notify, then FIN). Best effort, at most a second.
  virtual Task<void> shutdown() = 0;
  // Breaks the connection; a pending operation ends with kCancelled. Idempotent.
  virtual void close() noexcept = 0;
  // From now on every operation, pending or later, ends with kTimeout once `limit` passed; called
  // again it starts anew. Cheap enough to call per message. Duration::max() switches it off.
  virtual void expires_after(Duration limit) = 0;
  // "127.0.0.1:8080", "unix" ...: for logs and rate limits.
  virtual std::string peer() const = 0;
};
using StreamPtr = std::unique_ptr<Stream>;

struct TlsOptions {
  std::string ca_pem;           // trusted roots; empty: the system's
  std::string certificate_pem;  // chain; servers need it, clients may have one
  std::string key_pem;
  std::string server_name;  // client: SNI and the name to verify; empty: the host dialled
  std::string alpn;         // "" or one protocol
};
// Holds the parsed certificates; make it once, use it for many connections. Throws
// Error{kInvalidArgument}.
class TlsContext;
std::shared_ptr<TlsContext> make_tls_client(const TlsOptions& options);
std::shared_ptr<TlsContext> make_tls_server(const TlsOptions& options);

struct Endpoint {
  enum class Kind { kTcp, kTls, kUnix };
  Kind kind = Kind::kTcp;
  std::string host;  // name or address
  std::string port;
  std::string path;  // kUnix
  std::shared_ptr<TlsContext> tls;
  // Asked for each address, as text, before it is called; empty: all may be. What is asked is what
  // is called: a name that leads elsewhere the next moment changes nothing.
  std::function<bool(const std::string& address)> allowed = {};
};
// Resolves (in the blocking pool unless `host` is an address), connects to the addresses in turn,
// shakes hands. kForbidden when no address is allowed. The caller sets the overall limit with
// with_deadline().
Task<StreamPtr> connect(Endpoint endpoint);

// Accepts on a TCP port (0: any free one) or a unix path.
class Listener {
 public:
  // Throws Error{kUnavailable} when the address is taken or not ours. `tls` may be null.
  static std::unique_ptr<Listener> tcp(Executor executor, const std::string& host, int port,
                                       std::shared_ptr<TlsContext> tls = nullptr);
  static std::unique_ptr<Listener> unix_socket(Executor executor, const std::string& path);
  virtual ~Listener() = default;
  // The next connection; with TLS the handshake has NOT happened yet: call handshake() in the
  // connection's own task.
  virtual Task<StreamPtr> accept() = 0;
  virtual void close() noexcept = 0;
  virtual int port() const noexcept = 0;  // 0 for unix
};
// Server-side TLS handshake of an accepted stream; nothing to do for others.
Task<void> handshake(Stream& stream);

// "host:port", "[::1]:80", ":8080" (all addresses). Throws Error{kInvalidArgument}.
struct HostPort {
  std::string host;
  int port = 0;
};
HostPort parse_host_port(std::string_view text);

}  // namespace flock::net

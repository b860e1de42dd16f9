// SPDX-License-Identifier: Apache-2.0
#include "net/socket_stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <vector>

#include "async/blocking.h"
#include "net/tls.h"

namespace flock::net {
namespace {

using tcp = asio::ip::tcp;
using unix_protocol = asio::local::stream_protocol;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

template <class Socket>
class SocketStream final : public Stream {
 public:
  SocketStream(Socket socket, std::string peer)
      : socket_(std::make_shared<Socket>(std::move(socket))), peer_(std::move(peer)) {
    std::weak_ptr<Socket> weak = socket_;
    watchdog_ = std::make_shared<Watchdog>(socket_->get_executor(), [weak] {
      boost::system::error_code ignored;
      // Cancelled, not closed: a server can still tell a slow peer why.
      if (const auto alive = weak.lock()) alive->cancel(ignored);
    });
  }
  ~SocketStream() override { close(); }

  Task<std::size_t> read_some(char* data, std::size_t size) override {
    if (!socket_->is_open() || watchdog_->fired()) throw closed();
    const auto [error, got] = co_await socket_->async_read_some(asio::buffer(data, size), kTuple);
    if (error == asio::error::eof) co_return 0;
    if (error) throw translate(error, peer_, watchdog_->fired());
    co_return got;
  }

  Task<void> write(std::string_view data) override {
    if (!socket_->is_open() || watchdog_->fired()) throw closed();
    const auto [error, sent] =
        co_await asio::async_write(*socket_, asio::buffer(data.data(), data.size()), kTuple);
    if (error) throw translate(error, peer_, watchdog_->fired());
  }

  std::size_t try_write(std::string_view data) noexcept override {
    if (!socket_->is_open() || watchdog_->fired()) return 0;
    const ssize_t sent =
        ::send(socket_->native_handle(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? static_cast<std::size_t>(sent) : 0;
  }

  Task<void> shutdown() override {
    boost::system::error_code ignored;
    socket_->shutdown(Socket::shutdown_send, ignored);
    co_return;
  }

  void close() noexcept override {
    watchdog_->stop();
    boost::system::error_code ignored;
    socket_->close(ignored);
  }

  void expires_after(Duration limit) override { watchdog_->expires_after(limit); }
  std::string peer() const override { return peer_; }

 private:
  Error closed() const {
    return translate(asio::error::operation_aborted, peer_, watchdog_->fired());
  }

  std::shared_ptr<Socket> socket_;
  std::string peer_;
  std::shared_ptr<Watchdog> watchdog_;
};

// Asio opens its descriptors without it, and a program started by this one must not hold our ports.
template <class Socket>
void close_on_exec(Socket& socket) {
  ::fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
}

std::string name_of(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  const std::string host = endpoint.address().is_v6() ? "[" + address + "]" : address;
  return host + ":" + std::to_string(endpoint.port());
}

StreamPtr wrap(tcp::socket socket) {
  close_on_exec(socket);
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const tcp::endpoint peer = socket.remote_endpoint(ignored);
  return std::make_unique<SocketStream<tcp::socket>>(std::move(socket), name_of(peer));
}

Task<std::vector<tcp::endpoint>> resolve(std::string host, std::string port) {
  const Executor executor = co_await asio::this_coro::executor;
  std::uint16_t number = 0;
  const auto [end, bad] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (bad != std::errc() || end != port.data() + port.size()) {
    throw Error(Code::kInvalidArgument, "not a port").with("port", port);
  }
  boost::system::error_code not_an_address;
  const auto address = asio::ip::make_address(host, not_an_address);
  std::vector<tcp::endpoint> endpoints;
  if (!not_an_address) {
    endpoints.emplace_back(address, number);
    co_return endpoints;
  }
  // getaddrinfo blocks. Asio would start a thread of its own for it; the pool is bounded.
  std::function<std::vector<tcp::endpoint>()> job = [host, port] {
    asio::io_context context;
    tcp::resolver resolver(context);
    boost::system::error_code error;
    std::vector<tcp::endpoint> found;
    for (const auto& entry : resolver.resolve(host, port, error)) found.push_back(entry.endpoint());
    if (error || found.empty()) {
      throw Error(Code::kUnavailable, "cannot resolve the host name: " + error.message())
          .with("host", host);
    }
    return found;
  };
  co_return co_await BlockingPool::shared().run<std::vector<tcp::endpoint>>(std::move(job));
}

class TcpListener final : public Listener {
 public:
  TcpListener(tcp::acceptor acceptor, std::shared_ptr<TlsContext> tls)
      : acceptor_(std::move(acceptor)),
        tls_(std::move(tls)),
        port_(acceptor_.local_endpoint().port()) {}

  Task<StreamPtr> accept() override {
    auto [error, socket] = co_await acceptor_.async_accept(kTuple);
    if (error) throw translate(error, "listener", false);
    StreamPtr stream = wrap(std::move(socket));
    if (tls_) stream = tls_server_stream(std::move(stream), tls_);
    co_return stream;
  }
  void close() noexcept override {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
  }
  int port() const noexcept override { return port_; }

 private:
  tcp::acceptor acceptor_;
  std::shared_ptr<TlsContext> tls_;
  int port_;
};

class UnixListener final : public Listener {
 public:
  UnixListener(unix_protocol::acceptor acceptor, std::string path)
      : acceptor_(std::move(acceptor)), path_(std::move(path)) {}
  ~UnixListener() override { close(); }

  Task<StreamPtr> accept() override {
    auto [error, socket] = co_await acceptor_.async_accept(kTuple);
    if (error) throw translate(error, "listener", false);
    close_on_exec(socket);
    co_return std::make_unique<SocketStream<unix_protocol::socket>>(std::move(socket), "unix");
  }
  void close() noexcept override {
    if (!acceptor_.is_open()) return;
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    ::unlink(path_.c_str());
  }
  int port() const noexcept override { return 0; }

 private:
  unix_protocol::acceptor acceptor_;
  std::string path_;
};

}  // namespace

Error translate(const boost::system::error_code& code, const std::string& peer, bool timed_out) {
  if (timed_out)
    return Error(Code::kTimeout, "the peer was silent for too long").with("peer", peer);
  if (code == asio::error::operation_aborted || code == asio::error::bad_descriptor) {
    return Error(Code::kCancelled, "the connection was closed").with("peer", peer);
  }
  if (code == asio::error::eof || code == asio::ssl::error::stream_truncated) {
    return Error(Code::kUnavailable, "the peer closed the connection").with("peer", peer);
  }
  if (code.category() == asio::error::get_ssl_category()) {
    return Error(Code::kProtocol, "TLS failed: " + code.message()).with("peer", peer);
  }
  return Error(Code::kUnavailable, code.message()).with("peer", peer);
}

Task<StreamPtr> connect(Endpoint endpoint) {
  const Executor executor = co_await asio::this_coro::executor;
  if (endpoint.kind == Endpoint::Kind::kUnix) {
    unix_protocol::socket socket(executor);
    if (endpoint.path.size() >= sizeof(sockaddr_un::sun_path)) {
      throw Error(Code::kInvalidArgument, "the socket path is too long")
          .with("path", endpoint.path);
    }
    const auto [error] =
        co_await socket.async_connect(unix_protocol::endpoint(endpoint.path), kTuple);
    if (error) throw translate(error, endpoint.path, false);
    close_on_exec(socket);
    co_return std::make_unique<SocketStream<unix_protocol::socket>>(std::move(socket), "unix");
  }

  std::vector<tcp::endpoint> addresses = co_await resolve(endpoint.host, endpoint.port);
  if (endpoint.allowed) {
    std::erase_if(addresses, [&](const tcp::endpoint& found) {
      return !endpoint.allowed(found.address().to_string());
    });
    if (addresses.empty())
      throw Error(Code::kForbidden, "the host's address is not one that may be called")
          .with("host", endpoint.host);
  }
  tcp::socket socket(executor);
  const auto [error, reached] = co_await asio::async_connect(socket, addresses, kTuple);
  if (error) throw translate(error, endpoint.host + ":" + endpoint.port, false);
  StreamPtr stream = wrap(std::move(socket));
  if (endpoint.kind == Endpoint::Kind::kTls) {
    stream = tls_client_stream(std::move(stream), endpoint.tls, endpoint.host);
    co_await handshake(*stream);
  }
  co_return stream;
}

std::unique_ptr<Listener> Listener::tcp(Executor executor, const std::string& host, int port,
                                        std::shared_ptr<TlsContext> tls) {
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host.empty()          ? "0.0.0.0"
                                              : host == "localhost" ? "127.0.0.1"
                                                                    : host,
                                              error);
  if (error) throw Error(Code::kInvalidArgument, "not an address to listen on").with("host", host);
  asio::ip::tcp::acceptor acceptor(executor);
  const asio::ip::tcp::endpoint endpoint(address, static_cast<std::uint16_t>(port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::ip::tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(1024, error);
  if (error) {
    throw Error(Code::kUnavailable, "cannot listen: " + error.message())
        .with("address", name_of(endpoint))
        .hint("another program may hold the port; choose another one");
  }
  close_on_exec(acceptor);
  return std::make_unique<TcpListener>(std::move(acceptor), std::move(tls));
}

std::unique_ptr<Listener> Listener::unix_socket(Executor executor, const std::string& path) {
  boost::system::error_code error;
  ::unlink(path.c_str());
  unix_protocol::acceptor acceptor(executor);
  acceptor.open(unix_protocol(), error);
  if (!error) acceptor.bind(unix_protocol::endpoint(path), error);
  if (!error) acceptor.listen(128, error);
  if (error)
    throw Error(Code::kUnavailable, "cannot listen: " + error.message()).with("path", path);
  close_on_exec(acceptor);
  return std::make_unique<UnixListener>(std::move(acceptor), path);
}

}  // namespace flock::net

// SPDX-License-Identifier: Apache-2.0
// TLS with OpenSSL memory buffers over an erased Stream: no template of Asio's SSL stream, one
// place to compile.
#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <boost/asio/ip/address.hpp>
#include <vector>

#include "async/event.h"
#include "base/error.h"

namespace flock::net {

class TlsContext {
 public:
  explicit TlsContext(const SSL_METHOD* method) : context(SSL_CTX_new(method)) {
    FLOCK_ASSERT(context != nullptr);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  }
  ~TlsContext() { SSL_CTX_free(context); }
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  SSL_CTX* context;
  std::string server_name;
  std::string alpn;  // wire form
};

namespace {

std::string openssl_reason() {
  char text[160] = "unknown reason";
  if (const unsigned long code = ERR_get_error()) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

Error bad_pem(const char* what) {
  return Error(Code::kInvalidArgument, std::string("TLS: not a valid ") + what)
      .with("openssl", openssl_reason());
}

// Calls `use` with each certificate of the PEM text; returns how many.
template <class Use>
int each_certificate(const std::string& pem, Use use) {
  BIO* bio = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  int count = 0;
  while (X509* certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr)) {
    use(certificate, count++);
    X509_free(certificate);
  }
  BIO_free(bio);
  ERR_clear_error();  // the end of the file is an "error" too
  return count;
}

void load_identity(SSL_CTX* context, const TlsOptions& options) {
  const int count = each_certificate(options.certificate_pem, [&](X509* certificate, int index) {
    if (index == 0) {
      SSL_CTX_use_certificate(context, certificate);
    } else {
      SSL_CTX_add1_chain_cert(context, certificate);
    }
  });
  if (count == 0) throw bad_pem("certificate");
  BIO* bio = BIO_new_mem_buf(options.key_pem.data(), static_cast<int>(options.key_pem.size()));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  const bool good = key != nullptr && SSL_CTX_use_PrivateKey(context, key) == 1 &&
                    SSL_CTX_check_private_key(context) == 1;
  EVP_PKEY_free(key);
  if (!good) throw bad_pem("private key for the certificate");
}

std::string alpn_wire(const std::string& protocol) {
  return protocol.empty() ? "" : static_cast<char>(protocol.size()) + protocol;
}

class TlsStream final : public Stream {
 public:
  TlsStream(StreamPtr lower, std::shared_ptr<TlsContext> context, const std::string& host)
      : lower_(std::move(lower)), context_(std::move(context)), ssl_(SSL_new(context_->context)) {
    FLOCK_ASSERT(ssl_ != nullptr);
    in_ = BIO_new(BIO_s_mem());
    out_ = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl_, in_, out_);  // owns both
    if (host.empty()) {
      SSL_set_accept_state(ssl_);
      return;
    }
    SSL_set_connect_state(ssl_);
    boost::system::error_code not_an_address;
    asio::ip::make_address(host, not_an_address);
    if (!not_an_address) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), host.c_str());
    } else {
      SSL_set_tlsext_host_name(ssl_, host.c_str());
      SSL_set_hostflags(ssl_, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
      SSL_set1_host(ssl_, host.c_str());
    }
  }
  ~TlsStream() override { SSL_free(ssl_); }

  Task<void> handshake() {
    for (;;) {
      const int result = SSL_do_handshake(ssl_);
      const int reason = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_, result);
      std::string failure;
      if (reason != SSL_ERROR_NONE && reason != SSL_ERROR_WANT_READ &&
          reason != SSL_ERROR_WANT_WRITE) {
        failure = failure_text();
      }
      co_await flush();  // an alert too
      if (result == 1) co_return;
      if (!failure.empty()) throw Error(Code::kProtocol, failure).with("peer", peer());
      if (!co_await feed()) {
        throw Error(Code::kUnavailable, "the peer closed the connection during the TLS handshake")
            .with("peer", peer());
      }
    }
  }

  Task<std::size_t> read_some(char* data, std::size_t size) override {
    for (;;) {
      ERR_clear_error();
      std::size_t got = 0;
      if (SSL_read_ex(ssl_, data, size, &got) == 1) co_return got;
      const int reason = SSL_get_error(ssl_, 0);
      if (reason == SSL_ERROR_ZERO_RETURN) co_return 0;
      if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) {
        throw Error(Code::kProtocol, failure_text()).with("peer", peer());
      }
      co_await flush();  // key updates
      // An end without close_notify may be a cut by somebody in between: never a clean end.
      if (!co_await feed())
        throw Error(Code::kUnavailable, "the peer closed the connection").with("peer", peer());
    }
  }

  Task<void> write(std::string_view data) override {
    while (!data.empty()) {
      ERR_clear_error();
      std::size_t done = 0;
      if (SSL_write_ex(ssl_, data.data(), data.size(), &done) != 1) {
        throw Error(Code::kProtocol, failure_text()).with("peer", peer());
      }
      data.remove_prefix(done);
      co_await flush();
    }
  }

  Task<void> shutdown() override {
    SSL_shutdown(ssl_);
    ERR_clear_error();
    lower_->expires_after(Duration(1000));
    try {
      co_await flush();
      co_await lower_->shutdown();
    } catch (const Error&) {  // best effort
    }
  }

  void close() noexcept override { lower_->close(); }
  void expires_after(Duration limit) override { lower_->expires_after(limit); }
  std::string peer() const override { return lower_->peer(); }

 private:
  std::string failure_text() {
    const long verdict = SSL_get_verify_result(ssl_);
    if (verdict != X509_V_OK) {
      return std::string("TLS: the peer's certificate is not trusted: ") +
             X509_verify_cert_error_string(verdict);
    }
    return "TLS failed: " + openssl_reason();
  }

  // Sends what OpenSSL produced. A reader and a writer may both be here: the second waits, so that
  // records keep their order.
  Task<void> flush() {
    while (flushing_) co_await flushed().wait();
    if (BIO_ctrl_pending(out_) == 0) co_return;
    flushing_ = true;
    std::exception_ptr failure;
    try {
      while (const std::size_t pending = BIO_ctrl_pending(out_)) {
        buffer_.resize(pending);
        BIO_read(out_, buffer_.data(), static_cast<int>(pending));
        co_await lower_->write(buffer_);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    flushing_ = false;
    if (event_) {
      event_->set();
      event_->reset();
    }
    if (failure) std::rethrow_exception(failure);
  }

  Event& flushed() {
    if (!event_) event_ = std::make_unique<Event>(executor_);
    return *event_;
  }

  // More bytes from below; false at the end.
  Task<bool> feed() {
    executor_ = co_await asio::this_coro::executor;
    char block[16 * 1024];
    const std::size_t got = co_await lower_->read_some(block, sizeof block);
    if (got == 0) co_return false;
    BIO_write(in_, block, static_cast<int>(got));
    co_return true;
  }

  StreamPtr lower_;
  std::shared_ptr<TlsContext> context_;
  SSL* ssl_;
  BIO *in_, *out_;
  std::string buffer_;
  bool flushing_ = false;
  Executor executor_;
  std::unique_ptr<Event> event_;
};

}  // namespace

std::shared_ptr<TlsContext> make_tls_client(const TlsOptions& options) {
  auto tls = std::make_shared<TlsContext>(TLS_client_method());
  SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, nullptr);
  if (options.ca_pem.empty()) {
    SSL_CTX_set_default_verify_paths(tls->context);
  } else {
    X509_STORE* store = SSL_CTX_get_cert_store(tls->context);
    const int count =
        each_certificate(options.ca_pem, [&](X509* ca, int) { X509_STORE_add_cert(store, ca); });
    if (count == 0) throw bad_pem("CA certificate");
  }
  if (!options.certificate_pem.empty()) load_identity(tls->context, options);
  tls->server_name = options.server_name;
  tls->alpn = alpn_wire(options.alpn);
  if (!tls->alpn.empty()) {
    SSL_CTX_set_alpn_protos(tls->context, reinterpret_cast<const unsigned char*>(tls->alpn.data()),
                            static_cast<unsigned>(tls->alpn.size()));
  }
  return tls;
}

std::shared_ptr<TlsContext> make_tls_server(const TlsOptions& options) {
  auto tls = std::make_shared<TlsContext>(TLS_server_method());
  load_identity(tls->context, options);
  return tls;
}

StreamPtr tls_client_stream(StreamPtr lower, std::shared_ptr<TlsContext> context,
                            const std::string& host) {
  if (!context) {
    static const std::shared_ptr<TlsContext> system_roots = make_tls_client({});
    context = system_roots;
  }
  const std::string name = context->server_name.empty() ? host : context->server_name;
  return std::make_unique<TlsStream>(std::move(lower), std::move(context), name);
}

StreamPtr tls_server_stream(StreamPtr lower, std::shared_ptr<TlsContext> context) {
  return std::make_unique<TlsStream>(std::move(lower), std::move(context), "");
}

Task<void> handshake(Stream& stream) {
  if (auto* tls = dynamic_cast<TlsStream*>(&stream)) co_await tls->handshake();
}

}  // namespace flock::net

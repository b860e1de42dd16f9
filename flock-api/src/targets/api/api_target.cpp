// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "async/loop.h"
#include "async/scope.h"
#include "base/files.h"
#include "base/log.h"
#include "net/http_server.h"
#include "services/device_changes.h"
#include "services/sealing.h"
#include "targets/api/devices.h"

namespace flock::targets {
namespace {

constexpr Duration kForgetEvery{3'600'000};
constexpr Duration kOperationsEvery{1000};
constexpr Duration kResealAgain{60'000}, kResealEvery{3'600'000};

class ApiTarget final : public Target {
 public:
  explicit ApiTarget(Parts parts)
      : context_(std::move(parts)),
        scope_(context_.parts.executor),
        server_(
            context_.parts.executor,
            [this](net::Request request) { return context_.handle(std::move(request)); },
            api::problem) {
    end_with(scope_, context_.parts.failed);
    api::add_routes(context_);
  }

  Task<void> start() override {
    co_await offer_setup();
    const Settings& settings = context_.parts.settings;
    std::shared_ptr<net::TlsContext> tls;
    if (!settings.api_tls_certificate_file.empty()) {
      net::TlsOptions options;
      options.certificate_pem = read_file(settings.api_tls_certificate_file).value_or("");
      options.key_pem = read_secret_file(settings.api_tls_key_file);
      tls = net::make_tls_server(options);
    }
    const net::HostPort address = net::parse_host_port(settings.api_listen);
    co_await context_.events.start();
    co_await context_.commands.subscribe();
    scope_.spawn("commands", context_.commands.run());
    server_.listen(net::Listener::tcp(context_.parts.executor, address.host, address.port, tls));
    scope_.spawn("revocations", repeat_revocations());
    scope_.spawn("idempotency", forget_answers());
    scope_.spawn("operations", run_operations());
    scope_.spawn("sealing", reseal());
    log::info("the API listens", {{"address", settings.api_listen}});
  }

  Task<void> drain() override { co_await server_.drain(); }
  Task<void> stop() override {
    scope_.cancel();
    co_await scope_.join();
    co_await server_.stop();
    co_await context_.events.stop();
    if (context_.people) co_await context_.people->stop();
  }

 private:
  // While nobody set the installation up, each start makes a fresh key and says it once. There is
  // no default password.
  Task<void> offer_setup() {
    const auto state =
        co_await context_.parts.db.query(postgres::Scope::system(), postgres::sql::kSetupState);
    if (!state.empty() && state.rows.front().boolean("used")) co_return;
    const services::FreshKey key = services::make_key("flks_");
    co_await context_.parts.db.query(postgres::Scope::system(), postgres::sql::kSetupStore,
                                     postgres::Params().bytes(key.hash));
    const std::string& file = context_.parts.settings.setup_key_file;
    if (!file.empty()) write_file_atomic(file, key.secret + "\n");
    std::printf("SETUP KEY %s\n  use it once: flock setup --server %s --setup-key-file -\n",
                key.secret.c_str(), context_.parts.settings.public_url.c_str());
    std::fflush(stdout);
  }

  Task<void> forget_answers() {
    for (;;) {
      co_await sleep_for(kForgetEvery);
      try {
        co_await context_.parts.db.query(postgres::Scope::system(),
                                         postgres::sql::kIdempotencyExpire);
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("old answers were not removed; it is repeated", error);
      }
    }
  }

  Task<void> run_operations() {
    for (;;) {
      bool more = false;
      try {
        more = co_await services::run_next_operation(context_.parts.db);
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("an operation cannot be carried out now; it is repeated", error);
      }
      if (!more) co_await sleep_for(kOperationsEvery);
    }
  }

  // After a rotation of the keys: until no value is sealed with an older one, and again later: a
  // replica that was not started again yet seals with the older one. Answers to Idempotency-Keys
  // are not worth it, they are gone after a day.
  Task<void> reseal() {
    for (;;) {
      Duration next = kResealAgain;
      try {
        co_await services::reseal_all(context_.parts.db, keys_of(context_.parts));
        next = kResealEvery;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("values under older keys were not sealed anew; it is repeated", error);
      }
      co_await sleep_for(next);
    }
  }

  // A broker that was restarted has forgotten who was revoked; their tokens live on for at most one
  // lifetime.
  Task<void> repeat_revocations() {
    const Parts& parts = context_.parts;
    // A broker can be gone and back between two looks at connected().
    const auto count = [&] { return parts.connections ? parts.connections() : 0; };
    for (;;) {
      co_await context_.parts.bus.wait_connected();
      const std::uint64_t connection = count();
      bool told = false;
      try {
        co_await tell_revocations();
        told = true;
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled) throw;
        log::warn("the broker was not told of the revoked devices; it is repeated", error);
      }
      do {
        co_await sleep_for(Duration(1000));
      } while (told && parts.bus.connected() && count() == connection);
    }
  }

  Task<void> tell_revocations() {
    const auto revoked = co_await context_.parts.db.query(
        postgres::Scope::system(), postgres::sql::kRevokedSince,
        postgres::Params().integer(context_.parts.settings.longest_device_token().count()));
    for (const auto& row : revoked.rows) {
      co_await context_.parts.bus.publish(api::revocation_message(
          context_.parts.settings, row.text("id"), row.integer("revoked_at")));
    }
  }

  api::Context context_;
  TaskScope scope_;
  net::HttpServer server_;
};

}  // namespace

std::unique_ptr<Target> make_api_target(Parts parts) {
  return std::make_unique<ApiTarget>(std::move(parts));
}

}  // namespace flock::targets

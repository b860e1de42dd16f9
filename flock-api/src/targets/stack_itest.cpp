// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fcntl.h>

#include <filesystem>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/random.h"
#include "crypto/jwt.h"
#include "services/credentials.h"
#include "stores/postgres/statements.h"
#include "targets/itest_document.h"
#include "targets/itest_stack.h"
#include "testing/servers.h"

namespace flock::targets::itest {

// --- The servers
// ----------------------------------------------------------------------------------

struct Stack::Servers {
  flock::testing::Postgres postgres;
  flock::testing::Mosquitto mosquitto;
  flock::testing::Valkey valkey;
  flock::testing::Registry registry;
  std::optional<flock::testing::ClickHouse> clickhouse;
  flock::testing::TempDir dir;
};

Stack* Stack::get() {
  static const bool installed = flock::testing::require(
      {"postgres", "initdb", "psql", "mosquitto", "redis-server", "docker-registry"});
  static const std::unique_ptr<Stack> stack(installed ? new Stack() : nullptr);
  if (stack) stack->heal();
  return stack.get();
}

Stack::Stack() : servers_(std::make_unique<Servers>()) {
  servers_->postgres.start();
  servers_->mosquitto.start();
  servers_->valkey.start();
  servers_->registry.start();
  settings.api_listen = "127.0.0.1:" + std::to_string(flock::testing::free_port());
  settings.public_url = "http://" + settings.api_listen;
  settings.api_rate_limit = 0;
  settings.setup_key_file = servers_->dir.file("setup");
  settings.mqtt_url = servers_->mosquitto.url();
  settings.registry_url = "http://" + registry_host();
  settings.registry_hosts = {"registry.example"};
  settings.audit_directory = servers_->dir.file("audit");
  settings.audit_spool_directory = servers_->dir.file("audit-spool");
  settings.ingester_spool_directory = servers_->dir.file("ingester");
  settings.events_gateway_quarantine_directory = servers_->dir.file("events-gateway");
  settings.presence_return = Duration(0);
}
Stack::~Stack() = default;

std::string Stack::url(const std::string& path) const { return settings.public_url + path; }
std::string Stack::live_address() const { return servers_->valkey.address(); }
std::string Stack::registry_host() const { return servers_->registry.host(); }
namespace {

// A server that is started again must not inherit our listeners: Asio leaves them open over exec.
void close_on_exec() {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename().string());
    if (fd > 2) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

}  // namespace

// A test that failed half-way may have left a server stopped.
void Stack::heal() {
  const auto up = [](flock::testing::Server& server) {
    if (flock::testing::port_open(server.port())) return;
    close_on_exec();
    server.start();
  };
  up(servers_->postgres);
  up(servers_->mosquitto);
  up(servers_->valkey);
  up(servers_->registry);
  if (servers_->clickhouse) up(*servers_->clickhouse);
}

std::optional<stores::ClickHouseOptions> Stack::clickhouse() {
  if (!flock::testing::require({"clickhouse-server"})) return std::nullopt;
  if (!servers_->clickhouse) {
    close_on_exec();
    servers_->clickhouse.emplace().start();
  }
  stores::ClickHouseOptions options;
  options.url = servers_->clickhouse->url();
  options.password = flock::testing::ClickHouse::password();
  return options;
}
void Stack::stop_clickhouse() { servers_->clickhouse->kill9(); }
void Stack::start_clickhouse() {
  close_on_exec();
  servers_->clickhouse->start();
}

void Stack::stop_postgres() { servers_->postgres.kill9(); }
void Stack::start_postgres() {
  close_on_exec();
  servers_->postgres.start();
}
void Stack::stop_valkey() { servers_->valkey.kill9(); }
void Stack::start_valkey() {
  close_on_exec();
  servers_->valkey.start();
}
void Stack::stop_broker() { servers_->mosquitto.kill9(); }
void Stack::start_broker() {
  close_on_exec();
  servers_->mosquitto.start();
}
void Stack::stop_registry() { servers_->registry.kill9(); }
void Stack::start_registry() {
  close_on_exec();
  servers_->registry.start();
}

postgres::Options Stack::database() const {
  postgres::Options options;
  options.url = servers_->postgres.url();
  options.password = Secret(read_secret_file(servers_->postgres.password_file()));
  return options;
}

mqtt::ClientOptions Stack::bus(const std::string& id) const {
  mqtt::ClientOptions options;
  options.url = servers_->mosquitto.url();
  options.client_id = id;
  options.backoff_first = options.backoff_max = Duration(50);
  // A session that outlives its test would keep its share of every shared subscription.
  options.session_expiry = Duration(0);
  return options;
}

// --- The targets
// ----------------------------------------------------------------------------------

// The same for all tests of the program: they share a database.
std::shared_ptr<const crypto::SealingKeys> sealing_keys(const std::string& current, bool alone) {
  static const std::map<std::string, Secret> keys = {{"a", Secret(random_bytes(32))},
                                                     {"b", Secret(random_bytes(32))}};
  if (alone)
    return std::make_shared<const crypto::SealingKeys>(
        std::map<std::string, Secret>{{current, keys.at(current)}}, current);
  return std::make_shared<const crypto::SealingKeys>(keys, current);
}

Backend::Backend(Executor e, Stack& from)
    : stack(from),
      executor(e),
      db(e, from.database()),
      live(stores::make_valkey_live_state(e, from.live_address(), "")),
      time_series(stores::make_memory_time_series()),
      bus(e, from.bus("backend-" + new_uuid())),
      recorder(e, from.bus("recorder-" + new_uuid())),
      signing(crypto::Key::generate(crypto::Key::Kind::kP256)),
      sealing(sealing_keys("a")),
      scope(e) {}

Parts Backend::parts() {
  Parts parts{executor, stack.settings, db, *live, *time_series, bus, signing};
  parts.sealing = sealing;
  return parts;
}

Task<void> Backend::start() {
  co_await db.migrate();
  scope.spawn("bus", bus.run());
  co_await bus.wait_connected();
  mqtt::Subscription audit;
  audit.filter = "flock/internal/v1/audit";
  scope.spawn("recorder", recorder.run());
  co_await recorder.subscribe(std::move(audit), [this](mqtt::Delivery delivery) {
    internal::v1::AuditEvent event;
    EXPECT_TRUE(event.ParseFromString(delivery.message.payload));
    audited.push_back(std::move(event));
    delivery.ack();
  });
  targets.push_back(make_audit_target(parts()));  // the others need it to change anything
  targets.push_back(make_api_target(parts()));
  targets.push_back(make_ingester_target(parts()));
  targets.push_back(make_scheduler_target(parts()));
  for (const auto& target : targets) co_await target->start();
}

Task<void> Backend::stop() {
  for (const auto& target : targets) co_await target->drain();
  for (const auto& target : targets) co_await target->stop();
  scope.cancel();
  co_await scope.join();
}

// What was published before is delivered before: by one publisher to one subscriber.
Task<void> Backend::heard() {
  mqtt::Subscription marks;
  marks.filter = "test/" + new_uuid();
  Event mark(executor);
  co_await recorder.subscribe(marks, [&](mqtt::Delivery delivery) {
    delivery.ack();
    mark.set();
  });
  mqtt::Message message;
  message.topic = marks.filter;
  co_await bus.publish(std::move(message));
  co_await mark.wait();
  co_await recorder.unsubscribe(marks.filter);
}

Task<std::string> Backend::make_tenant(std::string name) {
  const services::FreshKey key = services::make_key("flk_");
  const std::string org = new_uuid();
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    co_await tx.query(postgres::sql::kOrganizationInsert,
                      postgres::Params().text(org).text(name).text(org));
    co_await tx.query(postgres::sql::kApiKeyInsert, postgres::Params()
                                                        .text(new_uuid())
                                                        .text(org)
                                                        .text(std::string("test"))
                                                        .text(key.prefix)
                                                        .bytes(key.hash));
  };
  co_await db.transaction(postgres::Scope::system(), work);
  co_return key.secret;
}

Task<std::string> Backend::make_key(std::string api_key, std::string role,
                                    std::optional<std::vector<std::string>> scopes,
                                    std::optional<std::vector<std::string>> fleet_ids) {
  const services::FreshKey key = services::make_key("flk_");
  postgres::Params params;
  params.text(new_uuid()).text(role).text(key.prefix).bytes(key.hash);
  scopes ? params.texts(*scopes) : params.text(std::nullopt);
  fleet_ids ? params.texts(*fleet_ids) : params.text(std::nullopt);
  co_await db.query(
      postgres::Scope::system(),
      "INSERT INTO api_keys(id, org_id, name, role, prefix, hash, scopes, fleet_ids) SELECT $1, "
      "org_id, $2, $2, $3, $4, $5::text[], $6::uuid[] FROM api_keys WHERE hash = $7",
      std::move(params.bytes(services::hash_key(api_key))));
  co_return key.secret;
}

Task<std::string> Backend::put_release(std::string api_key, std::string version,
                                       std::map<std::string, std::string> digests) {
  bj::object by_platform;
  for (const auto& [platform, digest] : digests) by_platform[platform] = digest;
  const std::string id = new_uuid();
  const std::string workload = bj::serialize(
      bj::object{{"services", bj::array{bj::object{{"name", "web"},
                                                   {"image", "registry.example/acme/web:1"},
                                                   {"repository", "registry.example/acme/web"},
                                                   {"digests", by_platform}}}}});
  co_await db.query(
      postgres::Scope::system(),
      "INSERT INTO releases(id, org_id, version, compose, workload, digest) SELECT "
      "$1, org_id, $2, 'x', $3, 'x' FROM api_keys WHERE hash = $4",
      postgres::Params().text(id).text(version).text(workload).bytes(services::hash_key(api_key)));
  co_return id;
}

// --- The client
// -----------------------------------------------------------------------------------

Api::Api(Executor executor, const Stack& stack, std::string api_key)
    : token(std::move(api_key)), http_(executor, {}), stack_(stack) {}

std::set<std::string>& Api::answered() {
  static std::set<std::string> ids;
  return ids;
}

Task<bj::value> Api::call(std::string method, std::string path, std::string body) {
  net::Headers headers;
  if (basic)
    headers.add("Authorization", "Basic " + to_base64(*basic));
  else if (!token.empty())
    headers.add("Authorization", "Bearer " + token);
  for (const auto& [name, value] : more_headers) headers.add(name, value);
  last = co_await http_.send(method, stack_.url(path), headers, body);
  for (const std::string& fault : answer_faults(method, path, last)) ADD_FAILURE() << fault;
  const auto type = last.headers.get("Content-Type").value_or("");
  if (last.body.empty() || type == "application/jsonl" || type == "text/csv") co_return nullptr;
  co_return json::parse(last.body, {.bytes = 64 << 20});
}

Task<bj::value> Api::call(std::string method, std::string path, bj::object body) {
  co_return co_await call(std::move(method), std::move(path), bj::serialize(body));
}

std::string text(const bj::value& value, const char* key) {
  const bj::value* found = value.is_object() ? value.get_object().if_contains(key) : nullptr;
  if (found == nullptr || !found->is_string())
    throw Error(Code::kInternal, "the answer has no such text")
        .with("key", key)
        .with("answer", bj::serialize(value));
  return std::string(found->as_string());
}

// --- Devices
// --------------------------------------------------------------------------------------

bj::object assertion_claims(const std::string& subject) {
  const std::int64_t now = to_unix_ms(system_clock().now()) / 1000;
  return {{"iss", subject}, {"sub", subject},  {"aud", "flock-api"},
          {"iat", now},     {"exp", now + 60}, {"jti", new_uuid()}};
}

bj::object registration(const std::string& provisioning_key, const crypto::Key& device,
                        const std::string& assertion, const std::string& architecture) {
  return {{"provisioning_key", provisioning_key},
          {"device_public_key", device.public_pem()},
          {"hardware", {{"architecture", architecture}, {"hostname", "box"}}},
          {"assertion", assertion}};
}

bj::object registration(const std::string& provisioning_key, const crypto::Key& device) {
  return registration(provisioning_key, device,
                      crypto::sign_jwt(device, assertion_claims(device.thumbprint())));
}

FakeDevice::FakeDevice(Backend& backend, std::string architecture)
    : seq(to_unix_ms(system_clock().now())),
      backend_(backend),
      architecture_(std::move(architecture)) {}

Task<void> FakeDevice::join(Api& api, std::string provisioning_key) {
  const bj::value answer = co_await api.call(
      "POST", "/v1/devices/register",
      registration(provisioning_key, key, crypto::sign_jwt(key, assertion_claims(key.thumbprint())),
                   architecture_));
  id = text(answer, "device_id");
  device_token = text(answer, "token");
  link_ = std::make_unique<mqtt::Client>(backend_.executor, backend_.stack.bus(id));
  backend_.scope.spawn("device", link_->run());
  co_await link_->wait_connected();
  mqtt::Subscription subscription;
  subscription.filter = "devices/" + id + "/desired";
  co_await link_->subscribe(subscription,
                            [this, here = std::weak_ptr(here_)](mqtt::Delivery delivery) {
                              if (here.expired()) return;
                              desired.ParseFromString(delivery.message.payload);
                              ++desired_messages;
                              delivery.ack();
                            });
  subscription.filter = "devices/" + id + "/commands";
  co_await link_->subscribe(subscription,
                            [this, here = std::weak_ptr(here_)](mqtt::Delivery delivery) {
                              if (here.expired()) return;
                              commands.emplace_back().ParseFromString(delivery.message.payload);
                              delivery.ack();
                            });
}

device::v1::ReportedState FakeDevice::state(device::v1::ReportedState::Phase phase) {
  device::v1::ReportedState state;
  state.set_seq(++seq);
  state.set_at_ms(to_unix_ms(system_clock().now()));
  state.set_desired_version(desired.version());
  state.set_release_id(desired.release_id());
  state.set_phase(phase);
  for (const auto& wanted : desired.services()) {
    auto* service = state.add_services();
    service->set_name(wanted.name());
    service->set_image_digest(wanted.image().substr(wanted.image().find('@') + 1));
    service->set_state(device::v1::ServiceState::RUNNING);
    service->set_health(device::v1::ServiceState::NO_CHECK);
  }
  return state;
}

Task<void> FakeDevice::report(device::v1::ReportedState state) {
  mqtt::Message message;
  message.topic = "devices/" + id + "/state";
  message.payload = state.SerializeAsString();
  co_await link_->publish(std::move(message));
}

Task<void> FakeDevice::tell(device::v1::DeviceEvent::Kind kind) {
  device::v1::DeviceEvent event;
  event.set_seq(++seq);
  event.set_kind(kind);
  mqtt::Message message;
  message.topic = "devices/" + id + "/events";
  message.payload = event.SerializeAsString();
  co_await link_->publish(std::move(message));
}

Task<void> eventually(std::string what, std::function<Task<bool>()> condition, Duration limit) {
  const SteadyPoint end = std::chrono::steady_clock::now() + limit;
  while (!co_await condition()) {
    if (std::chrono::steady_clock::now() > end)
      throw Error(Code::kTimeout, "did not happen in time: " + what);
    co_await sleep_for(Duration(20));
  }
}

// --- Images
// ---------------------------------------------------------------------------------------

namespace {

std::string digest_of(const std::string& bytes) {
  return "sha256:" + to_hex(crypto::sha256(bytes));
}

Task<void> expect_created(net::HttpClient& http, std::string method, std::string url,
                          net::Headers headers, std::string body) {
  const net::Response response =
      co_await http.send(std::move(method), url, std::move(headers), std::move(body));
  if (response.status != 201)
    throw Error(Code::kProtocol, "the registry did not take it")
        .with("url", url)
        .with("body", response.body);
}

}  // namespace

Task<void> push_image(Executor executor, std::string registry, std::string repository,
                      std::string tag, std::vector<std::string> architectures) {
  net::HttpClient http(executor, {});
  const std::string base = "http://" + registry + "/v2/" + repository;
  bj::array entries;
  for (const std::string& architecture : architectures) {
    const std::string config =
        bj::serialize(bj::object{{"architecture", architecture},
                                 {"os", "linux"},
                                 {"rootfs", {{"type", "layers"}, {"diff_ids", bj::array{}}}}});
    const net::Response upload = co_await http.send("POST", base + "/blobs/uploads/", {}, "");
    std::string place(upload.headers.get("Location").value_or(""));
    place += (place.find('?') == std::string::npos ? "?" : "&") + std::string("digest=") +
             digest_of(config);
    net::Headers octets;
    octets.add("Content-Type", "application/octet-stream");
    co_await expect_created(http, "PUT", place, octets, config);
    const std::string manifest =
        bj::serialize(bj::object{{"schemaVersion", 2},
                                 {"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                                 {"config",
                                  {{"mediaType", "application/vnd.oci.image.config.v1+json"},
                                   {"digest", digest_of(config)},
                                   {"size", config.size()}}},
                                 {"layers", bj::array{}}});
    net::Headers headers;
    headers.add("Content-Type", "application/vnd.oci.image.manifest.v1+json");
    co_await expect_created(http, "PUT", base + "/manifests/" + digest_of(manifest), headers,
                            manifest);
    entries.push_back(bj::object{{"mediaType", "application/vnd.oci.image.manifest.v1+json"},
                                 {"digest", digest_of(manifest)},
                                 {"size", manifest.size()},
                                 {"platform", {{"os", "linux"}, {"architecture", architecture}}}});
  }
  const std::string index =
      bj::serialize(bj::object{{"schemaVersion", 2},
                               {"mediaType", "application/vnd.oci.image.index.v1+json"},
                               {"manifests", std::move(entries)}});
  net::Headers headers;
  headers.add("Content-Type", "application/vnd.oci.image.index.v1+json");
  co_await expect_created(http, "PUT", base + "/manifests/" + tag, headers, index);
}

}  // namespace flock::targets::itest

// SPDX-License-Identifier: Apache-2.0
// What devices call: registration and token renewal. Both are proven by the device's own key.
#include "services/provisioning.h"

#include <algorithm>

#include "async/gate.h"
#include "services/membership.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

constexpr int kAskAgain = 30;  // seconds; a device that waits for an approval asks again after them

constexpr Duration kShortestToken{30'000};
// Of new devices that wait for one of the connections to the database: about a second's work. A
// device asks again with jitter, for half a minute at the most.
constexpr std::size_t kMostWaiting = 100;

// A device on a line that is paid by the byte asks for a longer life: each token costs it a
// connection. More than the server allows gets what it allows.
std::optional<Duration> read_lifetime(json::Reader& in) {
  const auto text = in.optional_string("lifetime", {.min = 1, .max = 20});
  if (!text) return std::nullopt;
  try {
    const Duration wanted = parse_duration(*text);
    if (wanted >= kShortestToken) return wanted;
    in.problem("lifetime", "out_of_range", "must be at least " + to_string(kShortestToken));
  } catch (const Error& error) {
    in.problem("lifetime", "invalid", error.hint());
  }
  return std::nullopt;
}

bj::object credentials_json(Context& c, const services::Registered& registered, TimePoint now,
                            std::optional<Duration> lifetime) {
  const auto token = c.tokens.issue(registered.identity, now, lifetime);
  bj::array urls, hosts;
  for (const std::string& url : c.device_urls()) urls.push_back(bj::value(url));
  for (const std::string& host : c.registry_hosts()) hosts.push_back(bj::value(host));
  return {{"device_id", registered.identity.device.text()},
          {"name", registered.name},
          {"organization_id", registered.identity.org.text()},
          {"fleet_id", registered.identity.fleet.text()},
          {"token", token.text},
          {"token_expires_at", to_rfc3339(token.expires)},
          {"mqtt", {{"urls", std::move(urls)}, {"ca_certificates", c.broker_ca()}}},
          {"registry", {{"hosts", std::move(hosts)}}},
          {"server_time", to_rfc3339(now)}};
}

Task<net::Reply> register_route(Call& call, Gate& gate) {
  Context& c = call.context;
  const Gate::Pass pass = co_await gate.enter();
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  services::Registration registration;
  registration.provisioning_key = in.string("provisioning_key");
  registration.device_public_key = in.string("device_public_key", {.min = 1, .max = 2000});
  try {
    if (!registration.device_public_key.empty())
      crypto::Key::from_public_pem(registration.device_public_key);
  } catch (const Error& error) {
    in.problem("device_public_key", "invalid", error.message());
  }
  registration.wireguard_public_key =
      in.optional_string("wireguard_public_key", {.min = 1, .max = 64}).value_or("");
  registration.assertion = in.string("assertion", {.min = 1, .max = 4000});
  registration.name = in.optional_string("name", {.min = 1, .max = 100}).value_or("");
  registration.agent_version =
      in.optional_string("agent_version", {.min = 1, .max = 50}).value_or("");
  const bj::object* hardware = in.optional_object("hardware");
  if (hardware == nullptr) {
    in.problem("hardware", "required", "is required");
  } else {
    const bj::value copy(*hardware);
    json::Reader facts(copy, "/hardware", in);
    registration.architecture = facts.string("architecture", {.min = 1, .max = 20});
    registration.variant = facts.optional_string("variant", {.min = 0, .max = 20}).value_or("");
    registration.hostname = facts.optional_string("hostname", {.min = 0, .max = 100}).value_or("");
    for (const char* key : {"os", "kernel", "machine_id"})
      facts.optional_string(key, {.min = 0, .max = 200});
    facts.optional_string("time_zone", {.min = 0, .max = 64});
    facts.optional_integer("memory_bytes", {});
    facts.optional_integer("cpus", {});
    facts.finish();
    registration.hardware_json = bj::serialize(copy);
  }
  const auto lifetime = read_lifetime(in);
  in.finish();
  registration.from = call.client();
  registration.request_id = call.id;
  const TimePoint now = system_clock().now();
  const auto outcome =
      co_await services::register_device(c.parts.db, c.audit, std::move(registration), now);
  if (const auto* waiting = std::get_if<services::Waiting>(&outcome)) {
    net::Reply reply =
        json_reply(202, bj::object{{"state", "PENDING"},
                                   {"device_request_id", waiting->request},
                                   {"retry_after", std::to_string(kAskAgain) + "s"}});
    reply.response.headers.add("Retry-After", std::to_string(kAskAgain));
    co_return reply;
  }
  const auto& registered = std::get<services::Registered>(outcome);
  if (registered.created) {
    const services::DeviceIdentity& device = registered.identity;
    co_await services::announce(
        c.parts.bus, services::Membership::kRegistered,
        services::membership(device.org.text(), device.fleet.text(), device.device.text()));
  }
  co_return json_reply(registered.created ? 201 : 200,
                       credentials_json(c, registered, now, lifetime));
}

Task<net::Reply> token_route(Call& call) {
  Context& c = call.context;
  const bj::value body = read_body(call.request);
  json::Reader in(body);
  const std::string device = in.string("device_id"),
                    assertion = in.string("assertion", {.min = 1, .max = 4000});
  if (!device.empty() && !is_uuid(device)) in.problem("device_id", "invalid", "is no device id");
  const auto lifetime = read_lifetime(in);
  in.finish();
  const TimePoint now = system_clock().now();
  const services::Registered registered =
      co_await services::renew_device(c.parts.db, DeviceId::parse(device), assertion, now);
  co_return json_reply(200, credentials_json(c, registered, now, lifetime));
}

}  // namespace

void add_provisioning_routes(Context& c) {
  // A crowd of new devices waits for its provisioning key's row; half of the connections are for
  // everybody else.
  const auto gate = std::make_shared<Gate>(
      c.parts.executor,
      static_cast<std::size_t>(std::max<std::int64_t>(1, c.parts.settings.postgres_pool_size / 2)),
      kMostWaiting);
  c.add(open_to_all("registerDevice", "POST", "/v1/devices/register"),
        [gate](Call& call) { return register_route(call, *gate); });
  c.add(open_to_all("renewDeviceToken", "POST", "/v1/devices/token"), token_route);
}

}  // namespace flock::targets::api

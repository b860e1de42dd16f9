// SPDX-License-Identifier: Apache-2.0
// Networks in CIDR notation, and the address that a request really came from.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flock::domain {

// IPv4 is kept as ::ffff:a.b.c.d, so that both kinds are one.
struct Address {
  std::array<std::uint8_t, 16> bytes{};
  bool is_v4() const noexcept;
  bool operator==(const Address&) const = default;
};
// "192.0.2.7", "2001:db8::1"; nullopt for everything else, zones and brackets included.
std::optional<Address> parse_address(std::string_view text);

struct Network {
  Address address;
  int prefix = 128;  // bits of the 16 bytes
  bool contains(const Address& address) const noexcept;
};
// "10.0.0.0/8", "2001:db8::/32", or one address. Nullopt for what is none, and for bits behind the
// prefix: 10.1.2.3/8 is more likely a slip than meant.
std::optional<Network> parse_network(std::string_view text);

// Whether `networks` (all of which parse_network takes) hold `address`.
bool contained(const std::vector<std::string>& networks, const Address& address);

// Whether anybody on the internet can have this address: none that is private, local, shared, for
// documentation, multicast, or a way to put one of those into another (IANA's special-purpose
// registries, RFC 6890).
bool is_public(const Address& address);

// Who sent a request: `peer` ("host:port") itself, or, where that is one of our `trusted` proxies,
// the last address in X-Forwarded-For that no trusted proxy has. What stands before it anybody
// could have written. Nullopt when the peer has no address (a unix socket) or a trusted proxy wrote
// what is no address.
std::optional<Address> client_address(std::string_view peer, std::string_view forwarded_for,
                                      const std::vector<std::string>& trusted);
std::string to_string(const Address& address);

}  // namespace flock::domain

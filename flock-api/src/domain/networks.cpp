// SPDX-License-Identifier: Apache-2.0
#include "domain/networks.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace flock::domain {
namespace {

constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr int kMappedBits = 96;

std::string_view trim(std::string_view text) {
  while (text.starts_with(' ') || text.starts_with('\t')) text.remove_prefix(1);
  while (text.ends_with(' ') || text.ends_with('\t')) text.remove_suffix(1);
  return text;
}

// With or without a port: "192.0.2.7", "192.0.2.7:80", "2001:db8::1", "[2001:db8::1]:80".
std::optional<Address> parse_host(std::string_view text) {
  text = trim(text);
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    return parse_address(text.substr(1, end - 1));
  }
  if (const auto whole = parse_address(text)) return whole;
  return parse_address(text.substr(0, text.rfind(':')));
}

}  // namespace

bool Address::is_v4() const noexcept {
  return std::equal(kMapped.begin(), kMapped.end(), bytes.begin());
}

std::optional<Address> parse_address(std::string_view text) {
  if (text.empty() || text.size() >= INET6_ADDRSTRLEN) return std::nullopt;
  const std::string copy(text);
  Address out;
  if (copy.find(':') != std::string::npos) {
    if (::inet_pton(AF_INET6, copy.c_str(), out.bytes.data()) != 1) return std::nullopt;
    return out;
  }
  std::copy(kMapped.begin(), kMapped.end(), out.bytes.begin());
  if (::inet_pton(AF_INET, copy.c_str(), out.bytes.data() + kMapped.size()) != 1)
    return std::nullopt;
  return out;
}

bool Network::contains(const Address& other) const noexcept {
  const auto whole = static_cast<std::size_t>(prefix / 8);
  if (!std::equal(address.bytes.begin(), address.bytes.begin() + whole, other.bytes.begin()))
    return false;
  if (prefix % 8 == 0) return true;
  const int mask = 0xff << (8 - prefix % 8);
  return ((address.bytes[whole] ^ other.bytes[whole]) & mask) == 0;
}

std::optional<Network> parse_network(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = parse_address(text.substr(0, slash));
  if (!address) return std::nullopt;
  Network out{*address, 128};
  if (slash != std::string_view::npos) {
    const std::string_view bits = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(bits.data(), bits.data() + bits.size(), out.prefix);
    if (error != std::errc() || end != bits.data() + bits.size() || bits.starts_with('-'))
      return std::nullopt;
    if (text.substr(0, slash).find(':') == std::string_view::npos) {
      if (out.prefix > 32) return std::nullopt;
      out.prefix += kMappedBits;
    }
    if (out.prefix > 128) return std::nullopt;
  }
  Network rest{*address, out.prefix};
  for (int bit = out.prefix; bit < 128; ++bit)
    rest.address.bytes[static_cast<std::size_t>(bit / 8)] &=
        static_cast<std::uint8_t>(~(0x80 >> (bit % 8)));
  if (rest.address != *address) return std::nullopt;
  return out;
}

bool contained(const std::vector<std::string>& networks, const Address& address) {
  return std::any_of(networks.begin(), networks.end(), [&](const std::string& text) {
    const auto network = parse_network(text);
    return network && network->contains(address);
  });
}

bool is_public(const Address& address) {
  if (address.is_v4()) {
    static const std::vector<std::string> special{
        "0.0.0.0/8",     "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4"};
    return !contained(special, address);
  }
  // Global unicast; without Teredo and its neighbours, documentation, and IPv4 within (6to4).
  return contained({"2000::/3"}, address) &&
         !contained({"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"}, address);
}

std::optional<Address> client_address(std::string_view peer, std::string_view forwarded_for,
                                      const std::vector<std::string>& trusted) {
  std::optional<Address> client = parse_host(peer);
  while (client && contained(trusted, *client) && !trim(forwarded_for).empty()) {
    const std::size_t comma = forwarded_for.rfind(',');
    const bool last = comma == std::string_view::npos;
    client = parse_host(last ? forwarded_for : forwarded_for.substr(comma + 1));
    forwarded_for = last ? std::string_view() : forwarded_for.substr(0, comma);
  }
  return client;
}

std::string to_string(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.is_v4())
    ::inet_ntop(AF_INET, address.bytes.data() + kMapped.size(), text, sizeof(text));
  else
    ::inet_ntop(AF_INET6, address.bytes.data(), text, sizeof(text));
  return text;
}

}  // namespace flock::domain

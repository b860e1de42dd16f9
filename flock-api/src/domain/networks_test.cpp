// SPDX-License-Identifier: Apache-2.0
#include "domain/networks.h"

#include <gtest/gtest.h>

namespace flock::domain {
namespace {

bool in(const char* network, const char* address) {
  return parse_network(network).value().contains(parse_address(address).value());
}

TEST(Networks, HoldTheAddressesOfTheirPrefix) {
  EXPECT_TRUE(in("10.0.0.0/8", "10.255.1.2"));
  EXPECT_FALSE(in("10.0.0.0/8", "11.0.0.1"));
  EXPECT_TRUE(in("192.0.2.64/26", "192.0.2.127"));
  EXPECT_FALSE(in("192.0.2.64/26", "192.0.2.128"));
  EXPECT_TRUE(in("192.0.2.7", "192.0.2.7"));
  EXPECT_FALSE(in("192.0.2.7/32", "192.0.2.8"));
  EXPECT_TRUE(in("0.0.0.0/0", "203.0.113.1"));
  EXPECT_TRUE(in("2001:db8::/33", "2001:db8:7fff::1"));
  EXPECT_FALSE(in("2001:db8::/33", "2001:db8:8000::1"));
  EXPECT_TRUE(in("::/0", "2001:db8::1"));
}

TEST(Networks, KnowAnIpv4AddressInEitherForm) {
  EXPECT_TRUE(in("10.0.0.0/8", "::ffff:10.1.2.3"));
  EXPECT_FALSE(in("0.0.0.0/0", "2001:db8::1"));
  EXPECT_EQ(to_string(*parse_address("::ffff:10.1.2.3")), "10.1.2.3");
  EXPECT_EQ(to_string(*parse_address("2001:DB8::1")), "2001:db8::1");
}

TEST(Networks, AreRefusedWhenTheyAreNone) {
  for (const char* bad : {"", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "10.0.0/8",
                          "10.1.2.3/8", "2001:db8::/129", "2001:db8::1/64", "[::1]", "fe80::1%eth0",
                          "localhost", "/8", "10.0.0.0/ 8", "10.0.0.0/8/8"})
    EXPECT_FALSE(parse_network(bad)) << bad;
}

TEST(Networks, PublicAddressesAreThoseAnybodyCanHave) {
  for (const char* text : {"8.8.8.8", "100.63.0.1", "172.32.0.1", "2600:1f18::1", "2a00:1450::1"})
    EXPECT_TRUE(is_public(*parse_address(text))) << text;
  for (const char* text :
       {"0.0.0.0",         "10.0.0.1",    "100.64.0.1",  "127.0.0.1",       "169.254.169.254",
        "172.16.0.1",      "192.168.1.1", "192.0.2.1",   "198.18.0.1",      "224.0.0.1",
        "255.255.255.255", "::",          "::1",         "::ffff:10.0.0.1", "fe80::1",
        "fd00::1",         "ff02::1",     "2001:db8::1", "2001::1",         "2002:a00:1::",
        "64:ff9b::a00:1",  "::10.0.0.1"})
    EXPECT_FALSE(is_public(*parse_address(text))) << text;
}

std::string client(const char* peer, const char* forwarded, std::vector<std::string> trusted) {
  const auto address = client_address(peer, forwarded, trusted);
  return address ? to_string(*address) : "";
}

TEST(ClientAddress, IsThePeerUnlessItIsATrustedProxy) {
  EXPECT_EQ(client("203.0.113.9:4000", "10.0.0.1", {}), "203.0.113.9");
  EXPECT_EQ(client("[2001:db8::9]:4000", "10.0.0.1", {"10.0.0.0/8"}), "2001:db8::9");
  EXPECT_EQ(client("10.0.0.2:4000", "", {"10.0.0.0/8"}), "10.0.0.2");
  EXPECT_EQ(client("unix", "10.0.0.1", {"10.0.0.0/8"}), "");
}

TEST(ClientAddress, IsTheLastThatNoTrustedProxyHas) {
  const std::vector<std::string> trusted{"10.0.0.0/8", "2001:db8:a::/48"};
  EXPECT_EQ(client("10.0.0.2:4000", "203.0.113.9", trusted), "203.0.113.9");
  EXPECT_EQ(client("10.0.0.2:4000", "192.0.2.1, 203.0.113.9", trusted), "203.0.113.9")
      << "what the caller wrote does not count";
  EXPECT_EQ(client("10.0.0.2:4000", "203.0.113.9, 2001:db8:a::1, 10.3.0.1", trusted),
            "203.0.113.9");
  EXPECT_EQ(client("10.0.0.2:4000", "203.0.113.9:51000", trusted), "203.0.113.9");
  EXPECT_EQ(client("10.0.0.2:4000", "[2001:db8::7]:1", trusted), "2001:db8::7");
  EXPECT_EQ(client("10.0.0.2:4000", "10.9.9.9", trusted), "10.9.9.9") << "nobody else is named";
  EXPECT_EQ(client("10.0.0.2:4000", "203.0.113.9, unknown", trusted), "");
}

}  // namespace
}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
#include "targets/settings.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace flock::targets {
namespace {

// The keys that validate() complains about.
std::string faults(const Settings& settings) {
  std::string keys;
  try {
    settings.validate();
  } catch (const Error& error) {
    for (const Problem& problem : error.problems()) keys += problem.pointer + " ";
  }
  return keys;
}

TEST(Settings, SignInNeedsASafeIssuerAndAnAudience) {
  Settings settings;
  EXPECT_EQ(faults(settings), "");  // no issuer: no sign-in
  settings.oidc_issuer = "https://login.example";
  EXPECT_EQ(faults(settings), "oidc.audience ");
  settings.oidc_audience = {"https://api.example", ""};
  EXPECT_EQ(faults(settings), "oidc.audience ");
  settings.oidc_audience = {"https://api.example"};
  EXPECT_EQ(faults(settings), "");
  settings.oidc_client_id = "";
  EXPECT_EQ(faults(settings), "oidc.client_id ");
  settings.oidc_client_id = "flock-cli";
  for (const char* bad : {"http://login.example", "login.example", "https://a:b@login.example"}) {
    settings.oidc_issuer = bad;
    EXPECT_EQ(faults(settings), "oidc.issuer ") << bad;
  }
  settings.oidc_issuer = "http://127.0.0.1:13000";
  EXPECT_EQ(faults(settings), "");
}

TEST(Settings, ClickHouseIsReachedOverHttpUnderAName) {
  Settings settings;
  settings.clickhouse_kind = "elsewhere";
  EXPECT_EQ(faults(settings), "clickhouse.kind ");
  settings.clickhouse_kind = "memory";
  for (const char* bad : {"127.0.0.1:8123", "tcp://a:9000", "http://a/?database=b"}) {
    settings.clickhouse_url = bad;
    EXPECT_EQ(faults(settings), "clickhouse.url ") << bad;
  }
  settings.clickhouse_url = "http://flock:secret@clickhouse:8123";
  EXPECT_EQ(faults(settings), "clickhouse.url ");
  settings.clickhouse_url = "https://clickhouse.example:8443/path";
  EXPECT_EQ(faults(settings), "");
  settings.clickhouse_database = "a-b";
  EXPECT_EQ(faults(settings), "clickhouse.database ");
}

}  // namespace
}  // namespace flock::targets

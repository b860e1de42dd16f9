// SPDX-License-Identifier: Apache-2.0
#include <boost/json.hpp>

#include "cli_fixture.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

constexpr const char* kDevice = R"({"id":"d1","name":"gw-1","state":"ONLINE"})";

TEST_F(Cli, ListsSinceWhenAndWhyADeviceIsAway) {
  api.answer("GET /v1/devices?page_size=1000", 200,
             R"({"items":[{"id":"d1","name":"gw-1","state":"OFFLINE","fleet":{"slug":"edge"},
"last_seen_at":"2026-11-24T10:00:00.000Z","connectivity":{"online":false,
"since":"2026-11-24T10:00:30.000Z","reason":"connection_lost"}},
{"id":"d2","name":"gw-2","state":"OFFLINE","fleet":{"slug":"edge"},"connectivity":{"online":false}}],
"next_page_token":""})");
  EXPECT_EQ(flock({"devices"}).out,
            "DEVICE\tSTATE\tSINCE\tREASON\tFLEET\tWANTED\tPHASE\tID\n"
            "gw-1\tOFFLINE\t2026-11-24T10:00:30.000Z\tconnection_lost\tedge\t\t\td1\n"
            "gw-2\tOFFLINE\t\t\tedge\t\t\td2\n");
}

TEST_F(Cli, WritesAboutADevice) {
  api.answer("PATCH /v1/devices/gw-1", 200, kDevice);
  EXPECT_EQ(flock({"devices", "label", "gw-1", "site=oslo", "stage-"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"labels":{"site":"oslo","stage":null}})");
  EXPECT_EQ(flock({"devices", "attr", "gw-1", "rack=12", "row=\"12\"", "spare=true", "at=b"}).code,
            0);
  EXPECT_EQ(api.last_body(), R"({"attributes":{"rack":12,"row":"12","spare":true,"at":"b"}})");
  EXPECT_EQ(flock({"devices", "note", "gw-1", "behind the door"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"notes":"behind the door"})");
  EXPECT_EQ(flock({"devices", "label", "gw-1"}).code, 2);
  EXPECT_EQ(flock({"devices", "label", "gw-1", "oslo"}).code, 2);
}

TEST_F(Cli, ChangesManyDevicesAsOneOperation) {
  api.answer(
      "GET /v1/devices?filter=labels.site%20%3D%20%22oslo%22&page_size=1000", 200,
      R"({"items":[{"id":"d1","name":"gw-1"},{"id":"d2","name":"gw-2"}],"next_page_token":""})");
  api.answer("POST /v1/devices:batchUpdate", 200,
             R"({"id":"o1","state":"DONE","counts":{"total":2,"changed":2}})");
  const Result moved =
      flock({"devices", "move", "-l", "site=oslo", "--to", "north", "--yes", "-o", "name"});
  EXPECT_EQ(moved.code, 0) << moved.err;
  EXPECT_EQ(moved.out, "o1\n");
  EXPECT_EQ(bj::parse(api.last_body()), (bj::object{{"move_to_fleet_id", "north"},
                                                    {"filter", "labels.site = \"oslo\""},
                                                    {"expected_count", 2}}));
  EXPECT_EQ(flock({"devices", "label", "-l", "site=oslo", "stage=canary", "old-", "--yes"}).code,
            0);
  EXPECT_EQ(bj::parse(api.last_body()).at("remove_labels"), bj::array{"old"});
  EXPECT_EQ(flock({"devices", "move", "gw-1"}).code, 2) << "without --to";
}

TEST_F(Cli, TakesADeviceThroughItsLife) {
  for (const char* action : {"move", "decommission", "undelete", "clear-clone-suspicion"})
    api.answer(std::string("POST /v1/devices/gw-1/actions/") + action, 200, kDevice);
  EXPECT_EQ(flock({"devices", "move", "gw-1", "--to", "north"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"fleet_id":"north"})");
  EXPECT_EQ(flock({"devices", "decommission", "gw-1", "--reason", "sold", "--yes"}).code, 0);
  EXPECT_EQ(api.last_body(), R"({"reason":"sold"})");
  EXPECT_EQ(flock({"devices", "undelete", "gw-1"}).code, 0);
  EXPECT_EQ(flock({"devices", "clear-clone", "gw-1"}).code, 0);
  api.answer("GET /v1/devices/gw-1/history?page_size=1000", 200,
             R"({"items":[{"id":"7","kind":"MOVED","at":"2026-11-24T10:00:00Z","actor":"kim",
             "detail":{}}],"next_page_token":""})");
  EXPECT_NE(flock({"devices", "history", "gw-1"}).out.find("MOVED\tkim"), std::string::npos);
  api.answer("GET /v1/operations?page_size=1000", 200, R"({"items":[],"next_page_token":""})");
  EXPECT_EQ(flock({"operations"}).code, 0);
}

}  // namespace
}  // namespace flock::cli

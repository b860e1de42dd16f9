// SPDX-License-Identifier: Apache-2.0
// Edits at the same time by callers who have all read the same state: one is made, the others are
// told so and change nothing.
#include <gtest/gtest.h>

#include "base/json.h"
#include "targets/api_itest.h"
#include "targets/itest_world.h"

namespace flock::targets::itest {
namespace {

constexpr int kEditors = 6;

using Edits = ApiTest;

const Operation& operation_named(const char* id) {
  for (const Operation& each : operations()) {
    if (each.id == id) return each;
  }
  throw Error(Code::kInternal, "no such operation").with("id", id);
}

// What differs from one editor to the next.
bj::object edit(const std::string& id, int editor) {
  const std::string text = "n" + std::to_string(editor);
  if (id == "changeMember") return {{"role", editor == kEditors ? "viewer" : "developer"}};
  if (id == "setReleaseRetention") return {{"keep_last", 1000 + editor}};
  if (id == "describeRelease") return {{"note", text}};
  if (id == "setFleetVariable") return {{"value", text}};
  return {{"name", text}};
}

Task<void> edit_at_once(Backend& backend, Api& api, std::string id, std::string method,
                        std::string path) {
  co_await api.call(method, path, edit(id, kEditors));
  EXPECT_LT(api.last.status, 300) << id << " " << api.last.body;
  const std::string tag(api.last.headers.get("ETag").value_or(""));
  EXPECT_FALSE(tag.empty()) << id;
  std::multiset<int> statuses;
  TaskScope scope(backend.executor);
  const auto change = [&](int editor) -> Task<void> {
    Api own(backend.executor, backend.stack, api.token);
    own.more_headers = {{"If-Match", tag}};
    co_await own.call(method, path, edit(id, editor));
    statuses.insert(own.last.status);
  };
  for (int i = 0; i < kEditors; ++i) scope.spawn("edit", change(i));
  co_await scope.join();
  EXPECT_EQ(statuses.count(200), 1u) << id;
  EXPECT_EQ(statuses.count(412), static_cast<std::size_t>(kEditors - 1)) << id;
}

TEST_F(Edits, OfOneStateAtTheSameTimeAreMadeOnce) {
  with_api([](Backend& backend, Api& api) -> Task<void> {
    Chance chance(1);
    World world(backend, api, chance);
    co_await world.open();
    for (const char* id : {"changeOrganization", "changeMember", "renameFleet",
                           "changeProvisioningKey", "changeEventSubscription", "updateDevice",
                           "describeRelease", "setReleaseRetention", "setFleetVariable"}) {
      const Operation& operation = operation_named(id);
      co_await edit_at_once(backend, api, id, operation.method,
                            co_await world.path_for(operation, {}));
    }
  });
}

}  // namespace
}  // namespace flock::targets::itest

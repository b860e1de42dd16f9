// SPDX-License-Identifier: Apache-2.0
#include "runtimes/podman_pull.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

// As Podman 4.3 says it.
constexpr const char* kPull =
    R"({"status":"Pulling fs layer","progressDetail":{},"id":"25488"}
{"status":"Pulling fs layer","progressDetail":{},"id":"c2ad3"}
{"status":"Download complete","progressDetail":{},"id":"c2ad3"}
{"status":"Downloading","progressDetail":{"current":15,"total":30},"id":"25488"}
)";

TEST(PullAnswer, CountsTheBytesOfItsLayers) {
  PullAnswer answer;
  for (const char* letter = kPull; *letter != '\0'; ++letter) answer.take({letter, 1});
  EXPECT_EQ(answer.percent(), 49);
  answer.take(R"({"status":"Downloading","progressDetail":{"current":30,"total":30},"id":"b76a6"})"
              "\n");
  EXPECT_EQ(answer.percent(), 74);
  answer.take(R"({"status":"Download complete","progressDetail":{},"id":"25488"})");
  EXPECT_EQ(answer.end(), "");
  EXPECT_EQ(answer.percent(), 99);
}

TEST(PullAnswer, TellsAFailureAndAnEndThatIsNone) {
  PullAnswer refused, cut;
  refused.take(R"({"progressDetail":{},"errorDetail":{"message":"x"},"error":"manifest unknown"})");
  EXPECT_EQ(refused.end(), "manifest unknown");
  EXPECT_NE(cut.end(), "");
}

TEST(PullAnswer, SurvivesNonsense) {
  PullAnswer answer;
  answer.take(R"({"id":"a","progressDetail":{"current":-5,"total":9223372036854775807}})"
              "\n"
              R"({"id":"b","progressDetail":{"current":"x","total":1.5}})"
              "\n"
              R"({"id":"c","progressDetail":{"current":500,"total":100}})"
              "\n");
  EXPECT_GE(answer.percent(), 0);
  EXPECT_LE(answer.percent(), 99);
  for (const char* bad : {"no json\n", "[]\n", "{\n"})
    EXPECT_NE(testing::code_of([&] { PullAnswer().take(bad); }), Code::kInternal) << bad;
  PullAnswer endless;
  EXPECT_EQ(testing::code_of([&] { endless.take(std::string(3 << 20, ' ')); }), Code::kTooLarge);
}

}  // namespace
}  // namespace flock::agent

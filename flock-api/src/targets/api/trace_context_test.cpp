// SPDX-License-Identifier: Apache-2.0
#include "targets/api/trace_context.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "targets/api/call.h"

namespace flock::targets::api {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736", kParent = "00f067aa0ba902b7";
const std::string kGood = "00-" + kTrace + "-" + kParent + "-01";

net::Request with(const std::vector<std::string>& headers) {
  net::Request request;
  request.method = "GET";
  request.target = "/v1/fleets";
  for (const std::string& header : headers) request.headers.add("Traceparent", header);
  return request;
}

TEST(TraceContext, ContinuesAValidTrace) {
  EXPECT_EQ(trace_id(with({kGood})), kTrace);
  EXPECT_EQ(trace_id(with({"00-" + kTrace + "-" + kParent + "-00"})), kTrace) << "not sampled";
  EXPECT_EQ(trace_id(with({"cc-" + kTrace + "-" + kParent + "-01"})), kTrace);
  EXPECT_EQ(trace_id(with({"cc-" + kTrace + "-" + kParent + "-01-what-comes"})), kTrace);
}

TEST(TraceContext, IgnoresWhatIsNone) {
  EXPECT_EQ(trace_id(with({})), "");
  const std::string zeros(32, '0');
  for (const std::string& bad :
       {std::string(), std::string("00"), kGood.substr(1), kGood + "-x", kGood + "0",
        "ff" + kGood.substr(2), "0g" + kGood.substr(2), "cc" + kGood.substr(2) + "x",
        "00-" + zeros + "-" + kParent + "-01", "00-" + kTrace + "-" + zeros.substr(16) + "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + kParent + "-01", kGood.substr(0, 53) + "0x",
        "00_" + kGood.substr(3), kGood + "," + kGood})
    EXPECT_EQ(trace_id(with({bad})), "") << bad;
  EXPECT_EQ(trace_id(with({kGood, kGood})), "") << "two of them";
}

TEST(TraceContext, IsInTheLogOfAFailure) {
  const auto logged = [](const net::Request& request) {
    ::testing::internal::CaptureStderr();
    log::set_format(log::Format::kJson);
    problem(request, std::make_exception_ptr(Error(Code::kInternal, "it broke")));
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_NE(logged(with({kGood})).find("\"trace_id\":\"" + kTrace + "\""), std::string::npos);
  EXPECT_EQ(logged(with({"x"})).find("trace_id"), std::string::npos);
}

}  // namespace
}  // namespace flock::targets::api

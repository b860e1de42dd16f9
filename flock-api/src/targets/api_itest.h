// SPDX-License-Identifier: Apache-2.0
// A fixture for tests of the API over the real servers.
#pragma once

#include <gtest/gtest.h>

#include "targets/itest_stack.h"
#include "testing/run_task.h"

namespace flock::targets::itest {

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    stack = Stack::get();
    if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  }
  // Runs `body` with a backend and a tenant's client.
  void with_api(const std::function<Task<void>(Backend&, Api&)>& body) {
    flock::testing::run_task(
        [&]() -> Task<void> {
          Backend backend(co_await asio::this_coro::executor, *stack);
          co_await backend.start();
          Api api(backend.executor, *stack, co_await backend.make_tenant("Acme"));
          std::exception_ptr failure;
          try {
            co_await body(backend, api);
          } catch (...) {
            failure = std::current_exception();
          }
          co_await backend.stop();
          if (failure) std::rethrow_exception(failure);
        },
        Duration(60'000));
  }
  Stack* stack = nullptr;
};
struct Case {
  const char* method;
  std::string path, body;
  int status;
  std::string part;  // of the problem
};

inline Task<void> refuse(Api& api, std::vector<Case> cases) {
  for (const Case& c : cases) {
    co_await api.call(c.method, c.path, c.body);
    const std::string what = std::string(c.method) + " " + c.path + " " + c.body.substr(0, 80);
    EXPECT_EQ(api.last.status, c.status) << what << "\n" << api.last.body.substr(0, 600);
    EXPECT_NE(api.last.body.find(c.part), std::string::npos) << what << "\n"
                                                             << api.last.body.substr(0, 600);
    EXPECT_EQ(api.last.headers.get("Content-Type"), "application/problem+json") << what;
  }
}

}  // namespace flock::targets::itest

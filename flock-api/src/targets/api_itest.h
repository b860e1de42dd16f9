// SPDX-License-Identifier: Apache-2.0
// A fixture for tests of the API over the real servers.
#pragma once

#include <gtest/gtest.h>

#include "targets/itest_stack.h"
#include "testing/run_task.h"

namespace flock::targets::itest {

// Runs `body` and stops `backend` whatever becomes of it.
inline Task<void> stop_after(Backend& backend, Task<void> body) {
  std::exception_ptr failure;
  try {
    co_await std::move(body);
  } catch (...) {
    failure = std::current_exception();
  }
  co_await backend.stop();
  if (failure) std::rethrow_exception(failure);
}

class StackTest : public ::testing::Test {
 protected:
  void SetUp() override {
    stack = Stack::get();
    if (stack == nullptr) GTEST_SKIP() << "the servers are not installed";
  }
  Stack* stack = nullptr;
};

class ApiTest : public StackTest {
 protected:
  // Runs `body` with a backend and a tenant's client.
  void with_api(const std::function<Task<void>(Backend&, Api&)>& body) {
    flock::testing::run_task(
        [&]() -> Task<void> {
          Backend backend(co_await asio::this_coro::executor, *stack);
          co_await backend.start();
          Api api(backend.executor, *stack, co_await backend.make_tenant("Acme"));
          co_await stop_after(backend, body(backend, api));
        },
        Duration(60'000));
  }
};

// `Site` has a backend and open(), which starts it.
template <class Site>
class SiteTest : public StackTest {
 protected:
  void on_site(const std::function<Task<void>(Site&)>& body) {
    flock::testing::run_task(
        [&]() -> Task<void> {
          Site site(co_await asio::this_coro::executor, *stack);
          co_await site.open();
          co_await stop_after(site.backend, body(site));
        },
        Duration(60'000));
  }
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

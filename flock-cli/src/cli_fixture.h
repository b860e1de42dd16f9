// SPDX-License-Identifier: Apache-2.0
// The command line as its user sees it: whole command lines against an imposter of the API.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "async/event.h"
#include "async/loop.h"
#include "base/files.h"
#include "cli.h"
#include "net/http_server.h"

namespace flock::cli {

// Answers by "METHOD target", of a stream that is resumed "METHOD target after ID"; what it has no
// answer for is a 404 problem.
class Api {
 public:
  Api() : thread_([this] { serve(); }) {
    while (port_ == 0) std::this_thread::yield();
  }
  ~Api() {
    asio::post(loop_.executor(), [this] { done_->set(); });
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  void answer(const std::string& request, int status, const std::string& body) {
    const std::lock_guard lock(mutex_);
    answers_[request] = {status, body};
  }
  std::string last_body() {
    const std::lock_guard lock(mutex_);
    return last_body_;
  }
  std::string last_organization() {
    const std::lock_guard lock(mutex_);
    return last_organization_;
  }
  std::string last_token() {
    const std::lock_guard lock(mutex_);
    return last_token_;
  }

 private:
  void serve() {
    const auto run = [this]() -> Task<void> {
      const Executor executor = co_await asio::this_coro::executor;
      done_.emplace(executor);
      const auto handler = [this](net::Request request) -> Task<net::Reply> {
        const std::lock_guard lock(mutex_);
        last_body_ = request.body;
        last_organization_ = request.headers.get("Flock-Organization").value_or("");
        last_token_ = request.headers.get("Authorization").value_or("");
        net::Reply reply;
        std::string key = request.method + " " + request.target;
        if (const auto id = request.headers.get("Last-Event-ID"))
          key += " after " + std::string(*id);
        const auto found = answers_.find(key);
        reply.response.status = found == answers_.end() ? 404 : found->second.first;
        reply.response.body = found != answers_.end()
                                  ? found->second.second
                                  : R"({"title":"Not Found","detail":"no such )" + request.target +
                                        R"(","request_id":"r-1","hint":"flock fleets"})";
        co_return reply;
      };
      net::HttpServer server(executor, handler, [](const net::Request&, std::exception_ptr) {
        return net::Response{500, {}, ""};
      });
      auto listener = net::Listener::tcp(executor, "127.0.0.1", 0);
      const int port = listener->port();
      server.listen(std::move(listener));
      port_ = port;
      co_await done_->wait();
      co_await server.stop();
    };
    loop_.run(run());
  }

  Loop loop_;
  std::optional<Event> done_;
  std::mutex mutex_;
  std::map<std::string, std::pair<int, std::string>> answers_;
  std::string last_body_, last_organization_, last_token_;
  std::atomic<int> port_ = 0;
  std::thread thread_;
};

// A private folder, removed with everything in it.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/flock-cli-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& content) const {
    write_file_atomic(file(name), content, 0644);
    return file(name);
  }

 private:
  std::string path_;
};

struct Result {
  int code;
  std::string out, err;
};

class Cli : public ::testing::Test {
 protected:
  Cli() {
    for (const char* name :
         {"FLOCK_TOKEN", "NO_COLOR", "FLOCK_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS",
          "FLOCK_CA_FILE", "FLOCK_ORG", "FLOCK_FLEET", "FLOCK_CONTEXT"})
      ::unsetenv(name);
    ::setenv("FLOCK_CONFIG_HOME", dir.path().c_str(), 1);
    ::setenv("FLOCK_SERVER", api.url().c_str(), 1);
  }
  Result flock(const std::vector<std::string>& line) {
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    const int code = run(line);
    std::fflush(stdout);
    std::fflush(stderr);
    Result result{code, ::testing::internal::GetCapturedStdout(),
                  ::testing::internal::GetCapturedStderr()};
    return result;
  }

  Api api;
  Folder dir;
};

}  // namespace flock::cli

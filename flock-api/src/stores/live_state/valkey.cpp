// SPDX-License-Identifier: Apache-2.0
// Valkey through hiredis' formatter and reader on our own stream: libpq-like callbacks and a second
// event loop are not needed.
#include <hiredis/hiredis.h>

#include <charconv>
#include <functional>
#include <initializer_list>

#include "async/deadline.h"
#include "async/event.h"
#include "base/error.h"
#include "net/stream.h"
#include "stores/live_state/live_state.h"

namespace flock::stores {
namespace {

struct ReplyFree {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
struct ReaderFree {
  void operator()(redisReader* reader) const { redisReaderFree(reader); }
};
using ReplyPtr = std::unique_ptr<redisReply, ReplyFree>;
using ReaderPtr = std::unique_ptr<redisReader, ReaderFree>;

constexpr Duration kTime{5000};

// Kept only when newer; atomic in the server. KEYS[1] the device's hash, ARGV seq and value.
// Answers what was told, or nothing for a late one.
constexpr std::string_view kPutNewer =
    "local h = redis.call('HMGET', KEYS[1], 'seq', 'told') "
    "local s = h[1] and tonumber(h[1]) "
    "local n = tonumber(ARGV[1]) "
    "if s and s > n then return false end "
    "if s == n then if redis.call('HGET', KEYS[1], 'value') ~= ARGV[2] then return false end "
    "else redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'value', ARGV[2]) end "
    "return h[2] or ''";

// One command in the protocol's words (RESP): thousands a second are written, so hiredis' own
// formatter with its copies is too slow.
void append(std::string& out, std::initializer_list<std::string_view> words) {
  const auto number = [&out](char kind, std::size_t value) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    out += kind;
    out.append(digits, end);
    out += "\r\n";
  };
  number('*', words.size());
  for (const std::string_view word : words) {
    number('$', word.size());
    out += word;
    out += "\r\n";
  }
}

// Hash-tagged by device, so that a cluster keeps a device's keys together.
std::string key_of(const DeviceId& device) {
  std::string key;
  key.reserve(64);
  return key.append("dev:{").append(device.text()).append("}:reported");
}

struct Commands {
  std::string text;
  std::size_t count = 0;
  void add(std::initializer_list<std::string_view> words) {
    append(text, words);
    ++count;
  }
};

class ValkeyLiveState final : public LiveState {
 public:
  ValkeyLiveState(Executor executor, std::string address, std::string password)
      : executor_(executor),
        address_(std::move(address)),
        password_(std::move(password)),
        free_(executor) {
    free_.set();
  }

  Task<std::vector<Put>> put_reported(std::vector<Report> reports) override {
    if (reports.empty()) co_return std::vector<Put>();
    const auto make = [&](Commands& commands) {
      std::size_t bytes = 0;
      for (const Report& report : reports) bytes += report.value.size() + 256;
      commands.text.reserve(bytes);
      for (const Report& report : reports) {
        commands.add({"EVALSHA", script_, "1", key_of(report.device), std::to_string(report.seq),
                      report.value});
      }
    };
    std::vector<Put> out;
    out.reserve(reports.size());
    for (const ReplyPtr& reply : co_await run(make)) {
      const bool stands = reply->type == REDIS_REPLY_STRING;
      out.push_back(stands ? Put{true, std::string(reply->str, reply->len)} : Put{});
    }
    co_return out;
  }

  Task<void> mark_told(std::vector<Told> told) override {
    if (told.empty()) co_return;
    const auto make = [&](Commands& commands) {
      for (const Told& one : told) commands.add({"HSET", key_of(one.device), "told", one.what});
    };
    co_await run(make);
  }

  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    if (devices.empty()) co_return std::vector<std::optional<std::string>>();
    const auto make = [&](Commands& commands) {
      for (const DeviceId& device : devices) commands.add({"HGET", key_of(device), "value"});
    };
    std::vector<std::optional<std::string>> values;
    for (const ReplyPtr& reply : co_await run(make)) {
      values.push_back(reply->type == REDIS_REPLY_STRING
                           ? std::optional(std::string(reply->str, reply->len))
                           : std::nullopt);
    }
    co_return values;
  }

  Task<void> ping() override {
    co_await run([](Commands& commands) { commands.add({"PING"}); });
  }

 private:
  using Make = std::function<void(Commands&)>;

  Task<std::vector<ReplyPtr>> run(Make make) {
    // One batch at a time on the connection.
    while (!free_.is_set()) co_await free_.wait();
    free_.reset();
    std::exception_ptr failure;
    std::vector<ReplyPtr> replies;
    try {
      Task<std::vector<ReplyPtr>> exchanging = exchange(std::move(make));
      replies = co_await with_deadline(std::move(exchanging), kTime, "asking Valkey");
    } catch (...) {
      failure = std::current_exception();
      stream_.reset();
    }
    free_.set();
    if (!failure) co_return replies;
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled || error.code() == Code::kInternal) throw;
      throw Error(Code::kUnavailable, "live state: " + error.message()).with("address", address_);
    }
  }

  Task<std::vector<ReplyPtr>> exchange(Make make) {
    for (bool fresh = false;; fresh = true) {
      if (!stream_) {
        fresh = true;
        co_await dial();
      }
      Commands commands;
      make(commands);
      bool stale = false;
      try {
        co_await stream_->write(commands.text);
        co_return co_await read(commands.count);
      } catch (const Error& error) {
        // The server was restarted since the last batch. All commands here are idempotent.
        stale = !fresh && error.code() == Code::kUnavailable;
        if (!stale) throw;
      }
      stream_.reset();
    }
  }

  Task<void> dial() {
    const net::HostPort target = net::parse_host_port(address_);
    net::Endpoint endpoint;
    endpoint.host = target.host;
    endpoint.port = std::to_string(target.port);
    stream_ = co_await net::connect(endpoint);
    reader_.reset(redisReaderCreate());
    Commands hello;
    if (!password_.empty()) hello.add({"AUTH", password_});
    hello.add({"SCRIPT", "LOAD", kPutNewer});
    co_await stream_->write(hello.text);
    const std::vector<ReplyPtr> replies = co_await read(hello.count);
    script_.assign(replies.back()->str, replies.back()->len);
  }

  Task<std::vector<ReplyPtr>> read(std::size_t count) {
    std::vector<ReplyPtr> replies;
    char block[16 * 1024];
    while (replies.size() < count) {
      void* raw = nullptr;
      if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK)
        throw Error(Code::kProtocol, "Valkey answered nonsense");
      if (raw == nullptr) {
        const std::size_t got = co_await stream_->read_some(block, sizeof block);
        if (got == 0) throw Error(Code::kUnavailable, "Valkey closed the connection");
        redisReaderFeed(reader_.get(), block, got);
        continue;
      }
      replies.emplace_back(static_cast<redisReply*>(raw));
      const redisReply& reply = *replies.back();
      if (reply.type == REDIS_REPLY_ERROR) {
        const std::string reason(reply.str, reply.len);
        // LOADING, READONLY, CLUSTERDOWN, NOSCRIPT, ...: it cannot serve yet, or forgot the script,
        // which the next connection brings.
        throw Error(reason.starts_with("ERR") ? Code::kInternal : Code::kUnavailable,
                    "Valkey: " + reason);
      }
    }
    co_return replies;
  }

  Executor executor_;
  std::string address_, password_, script_;
  Event free_;
  net::StreamPtr stream_;
  ReaderPtr reader_;
};

}  // namespace

std::unique_ptr<LiveState> make_valkey_live_state(Executor executor, std::string address,
                                                  std::string password) {
  return std::make_unique<ValkeyLiveState>(std::move(executor), std::move(address),
                                           std::move(password));
}

}  // namespace flock::stores

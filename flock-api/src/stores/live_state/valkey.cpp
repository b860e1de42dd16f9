// SPDX-License-Identifier: Apache-2.0
// Valkey through hiredis' formatter and reader on our own stream: libpq-like callbacks and a second
// event loop are not needed.
#include <hiredis/hiredis.h>

#include <charconv>
#include <functional>
#include <initializer_list>

#include "async/batcher.h"
#include "async/deadline.h"
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
constexpr std::size_t kMostTogether = 256;

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
      : address_(std::move(address)),
        password_(std::move(password)),
        batcher_(std::move(executor), kMostTogether, 1,
                 [this](std::vector<const Make*> asked) { return run_all(std::move(asked)); }) {}

  Task<std::vector<Put>> put_reported(std::vector<Report> reports) override {
    if (reports.empty()) co_return std::vector<Put>();
    const std::size_t count = reports.size();
    Make make = [this, reports = std::move(reports)](Commands& commands) {
      std::size_t bytes = 0;
      for (const Report& report : reports) bytes += report.value.size() + 256;
      commands.text.reserve(bytes);
      for (const Report& report : reports) {
        commands.add({"EVALSHA", script_, "1", key_of(report.device), std::to_string(report.seq),
                      report.value});
      }
    };
    std::vector<Put> out;
    out.reserve(count);
    for (const ReplyPtr& reply : co_await run(std::move(make))) {
      const bool stands = reply->type == REDIS_REPLY_STRING;
      out.push_back(stands ? Put{true, std::string(reply->str, reply->len)} : Put{});
    }
    co_return out;
  }

  Task<void> mark_told(std::vector<Told> told) override {
    if (told.empty()) co_return;
    Make make = [told = std::move(told)](Commands& commands) {
      for (const Told& one : told) commands.add({"HSET", key_of(one.device), "told", one.what});
    };
    co_await run(std::move(make));
  }

  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    if (devices.empty()) co_return std::vector<std::optional<std::string>>();
    Make make = [devices = std::move(devices)](Commands& commands) {
      for (const DeviceId& device : devices) commands.add({"HGET", key_of(device), "value"});
    };
    std::vector<std::optional<std::string>> values;
    for (const ReplyPtr& reply : co_await run(std::move(make))) {
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
  using Replies = std::vector<ReplyPtr>;
  // Writes down what one caller asks; called again for another connection, which may have another
  // script. Owns what it writes: the caller may be gone by then.
  using Make = std::function<void(Commands&)>;

  Task<Replies> run(Make make) {
    Replies replies = co_await batcher_.ask("", std::move(make));
    for (const ReplyPtr& reply : replies) {
      if (reply->type == REDIS_REPLY_ERROR)
        throw Error(Code::kInternal, "Valkey: " + std::string(reply->str, reply->len));
    }
    co_return replies;
  }

  // Everybody's commands in one round trip.
  Task<std::vector<Replies>> run_all(std::vector<const Make*> asked) {
    std::vector<std::size_t> counts;
    Replies replies = co_await ask(asked, counts);
    auto at = std::make_move_iterator(replies.begin());
    std::vector<Replies> out;
    for (const std::size_t count : counts) {
      const auto end = at + static_cast<std::ptrdiff_t>(count);
      out.emplace_back(at, end);
      at = end;
    }
    co_return out;
  }

  Task<Replies> ask(const std::vector<const Make*>& asked, std::vector<std::size_t>& counts) {
    std::exception_ptr failure;
    try {
      Task<Replies> exchanging = exchange(asked, counts);
      co_return co_await with_deadline(std::move(exchanging), kTime, "asking Valkey");
    } catch (...) {
      failure = std::current_exception();
      stream_.reset();
    }
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.code() == Code::kCancelled) throw;
      throw Error(Code::kUnavailable, "live state: " + error.message()).with("address", address_);
    }
  }

  Task<Replies> exchange(const std::vector<const Make*>& asked, std::vector<std::size_t>& counts) {
    for (bool fresh = false;; fresh = true) {
      if (!stream_) {
        fresh = true;
        co_await dial();
      }
      Commands commands;
      counts.clear();
      for (const Make* make : asked) {
        const std::size_t before = commands.count;
        (*make)(commands);
        counts.push_back(commands.count - before);
      }
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
    const Replies replies = co_await read(hello.count);
    script_.assign(replies.back()->str, replies.back()->len);
    for (const ReplyPtr& reply : replies) {
      if (reply->type == REDIS_REPLY_ERROR)
        throw Error(Code::kUnavailable, "Valkey: " + std::string(reply->str, reply->len));
    }
  }

  Task<Replies> read(std::size_t count) {
    Replies replies;
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
      // LOADING, READONLY, CLUSTERDOWN, NOSCRIPT, ...: it can serve nobody yet, or forgot the
      // script, which the next connection brings. What begins with ERR is the one command's fault.
      const std::string_view reason(reply.str ? reply.str : "", reply.str ? reply.len : 0);
      if (reply.type == REDIS_REPLY_ERROR && !reason.starts_with("ERR"))
        throw Error(Code::kUnavailable, "Valkey: " + std::string(reason));
    }
    co_return replies;
  }

  std::string address_, password_, script_;
  Batcher<Make, Replies> batcher_;
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

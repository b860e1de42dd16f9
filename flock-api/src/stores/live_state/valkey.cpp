// SPDX-License-Identifier: Apache-2.0
// Valkey through hiredis' formatter and reader on our own stream: libpq-like callbacks and a second
// event loop are not needed.
#include <hiredis/hiredis.h>

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
constexpr const char* kPutNewer =
    "local s = redis.call('HGET', KEYS[1], 'seq') "
    "if s and tonumber(s) >= tonumber(ARGV[1]) then return 0 end "
    "redis.call('HSET', KEYS[1], 'seq', ARGV[1], 'value', ARGV[2]) return 1";

std::string format(const std::vector<std::string>& words) {
  std::vector<const char*> values;
  std::vector<std::size_t> sizes;
  for (const std::string& word : words) {
    values.push_back(word.data());
    sizes.push_back(word.size());
  }
  char* text = nullptr;
  const long long size =
      redisFormatCommandArgv(&text, static_cast<int>(words.size()), values.data(), sizes.data());
  FLOCK_ASSERT(size > 0);
  std::string out(text, static_cast<std::size_t>(size));
  redisFreeCommand(text);
  return out;
}

// Hash-tagged by device, so that a cluster keeps a device's keys together.
std::string key_of(const DeviceId& device) { return "dev:{" + device.text() + "}:reported"; }

class ValkeyLiveState final : public LiveState {
 public:
  ValkeyLiveState(Executor executor, std::string address, std::string password)
      : executor_(executor),
        address_(std::move(address)),
        password_(std::move(password)),
        free_(executor) {
    free_.set();
  }

  Task<std::vector<bool>> put_reported(std::vector<Report> reports) override {
    std::vector<std::vector<std::string>> commands;
    for (const Report& report : reports) {
      commands.push_back({"EVAL", kPutNewer, "1", key_of(report.device), std::to_string(report.seq),
                          report.value});
    }
    std::vector<bool> kept;
    for (const ReplyPtr& reply : co_await run(std::move(commands)))
      kept.push_back(reply->type == REDIS_REPLY_INTEGER && reply->integer == 1);
    co_return kept;
  }

  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    std::vector<std::vector<std::string>> commands;
    for (const DeviceId& device : devices) commands.push_back({"HGET", key_of(device), "value"});
    std::vector<std::optional<std::string>> values;
    for (const ReplyPtr& reply : co_await run(std::move(commands))) {
      values.push_back(reply->type == REDIS_REPLY_STRING
                           ? std::optional(std::string(reply->str, reply->len))
                           : std::nullopt);
    }
    co_return values;
  }

  Task<void> ping() override {
    std::vector<std::vector<std::string>> commands{{"PING"}};
    co_await run(std::move(commands));
  }

 private:
  Task<std::vector<ReplyPtr>> run(std::vector<std::vector<std::string>> commands) {
    if (commands.empty()) co_return std::vector<ReplyPtr>();
    // One batch at a time on the connection.
    while (!free_.is_set()) co_await free_.wait();
    free_.reset();
    std::exception_ptr failure;
    std::vector<ReplyPtr> replies;
    try {
      Task<std::vector<ReplyPtr>> exchanging = exchange(std::move(commands));
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

  Task<std::vector<ReplyPtr>> exchange(std::vector<std::vector<std::string>> commands) {
    std::string text;
    for (const auto& command : commands) text += format(command);
    for (bool fresh = false;; fresh = true) {
      if (!stream_) {
        fresh = true;
        co_await dial();
      }
      bool stale = false;
      try {
        co_await stream_->write(text);
        co_return co_await read(commands.size());
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
    if (password_.empty()) co_return;
    const std::string text = format({"AUTH", password_});
    co_await stream_->write(text);
    co_await read(1);
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
        // LOADING, READONLY, CLUSTERDOWN, ...: the server is there but cannot serve yet.
        throw Error(reason.starts_with("ERR") ? Code::kInternal : Code::kUnavailable,
                    "Valkey: " + reason);
      }
    }
    co_return replies;
  }

  Executor executor_;
  std::string address_, password_;
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

// SPDX-License-Identifier: Apache-2.0
// Valkey through hiredis' formatter and reader on our own stream: libpq-like callbacks and a second
// event loop are not needed.
#include <hiredis/hiredis.h>

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
      : address_(std::move(address)),
        password_(std::move(password)),
        batcher_(std::move(executor), kMostTogether, [this](std::vector<const Batch*> batches) {
          return run_all(std::move(batches));
        }) {}

  Task<std::vector<bool>> put_reported(std::vector<Report> reports) override {
    Batch batch;
    for (const Report& report : reports) {
      batch.add({"EVAL", kPutNewer, "1", key_of(report.device), std::to_string(report.seq),
                 report.value});
    }
    std::vector<bool> kept;
    for (const ReplyPtr& reply : co_await run(std::move(batch)))
      kept.push_back(reply->type == REDIS_REPLY_INTEGER && reply->integer == 1);
    co_return kept;
  }

  Task<std::vector<std::optional<std::string>>> get_reported(
      std::vector<DeviceId> devices) override {
    Batch batch;
    for (const DeviceId& device : devices) batch.add({"HGET", key_of(device), "value"});
    std::vector<std::optional<std::string>> values;
    for (const ReplyPtr& reply : co_await run(std::move(batch))) {
      values.push_back(reply->type == REDIS_REPLY_STRING
                           ? std::optional(std::string(reply->str, reply->len))
                           : std::nullopt);
    }
    co_return values;
  }

  Task<void> ping() override {
    Batch batch;
    batch.add({"PING"});
    co_await run(std::move(batch));
  }

 private:
  using Replies = std::vector<ReplyPtr>;
  // What one caller sends.
  struct Batch {
    std::string text;
    std::size_t commands = 0;
    void add(const std::vector<std::string>& words) {
      text += format(words);
      ++commands;
    }
  };

  Task<Replies> run(Batch batch) {
    if (batch.commands == 0) co_return Replies();
    Replies replies = co_await batcher_.ask("", std::move(batch));
    for (const ReplyPtr& reply : replies) {
      if (reply->type == REDIS_REPLY_ERROR)
        throw Error(Code::kInternal, "Valkey: " + std::string(reply->str, reply->len));
    }
    co_return replies;
  }

  // Everybody's batches in one round trip.
  Task<std::vector<Replies>> run_all(std::vector<const Batch*> batches) {
    std::string text;
    std::size_t count = 0;
    for (const Batch* batch : batches) {
      text += batch->text;
      count += batch->commands;
    }
    Replies replies = co_await ask(std::move(text), count);
    auto at = std::make_move_iterator(replies.begin());
    std::vector<Replies> out;
    for (const Batch* batch : batches) {
      const auto end = at + static_cast<std::ptrdiff_t>(batch->commands);
      out.emplace_back(at, end);
      at = end;
    }
    co_return out;
  }

  Task<Replies> ask(std::string text, std::size_t count) {
    std::exception_ptr failure;
    try {
      Task<Replies> exchanging = exchange(std::move(text), count);
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

  Task<Replies> exchange(std::string text, std::size_t count) {
    for (bool fresh = false;; fresh = true) {
      if (!stream_) {
        fresh = true;
        co_await dial();
      }
      bool stale = false;
      try {
        co_await stream_->write(text);
        co_return co_await read(count);
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
    const Replies replies = co_await read(1);
    const redisReply& reply = *replies.front();
    if (reply.type == REDIS_REPLY_ERROR)
      throw Error(Code::kUnavailable, "Valkey: " + std::string(reply.str, reply.len));
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
      // LOADING, READONLY, CLUSTERDOWN, ...: the server is there but can serve nobody yet. What
      // begins with ERR is the one command's fault.
      const std::string_view reason(reply.str ? reply.str : "", reply.str ? reply.len : 0);
      if (reply.type == REDIS_REPLY_ERROR && !reason.starts_with("ERR"))
        throw Error(Code::kUnavailable, "Valkey: " + std::string(reason));
    }
    co_return replies;
  }

  std::string address_, password_;
  Batcher<Batch, Replies> batcher_;
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

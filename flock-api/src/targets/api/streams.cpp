// SPDX-License-Identifier: Apache-2.0
#include "targets/api/streams.h"

#include "net/sse.h"

namespace flock::targets::api {
namespace {

constexpr Duration kKeepAlive{15'000}, kTick{1000}, kLookAgain{5000}, kLife{3'600'000};
constexpr int kMostStreams = 100;  // of one caller at one replica

SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }

// One of the streams that a caller may have open.
class Place {
 public:
  Place(Context& context, std::string key) : context_(context), key_(std::move(key)) {
    int& open = context_.streams[key_];
    if (open >= kMostStreams)
      throw Error(Code::kRateLimited, "you follow " + std::to_string(kMostStreams) +
                                          " streams already; close one of them");
    ++open;
    context_.streams_open.add(1);
  }
  ~Place() {
    context_.streams_open.add(-1);
    if (--context_.streams[key_] == 0) context_.streams.erase(key_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  Context& context_;
  std::string key_;
};

// Why the caller may not read on; nothing when he may. While the database is away nobody is thrown
// out.
Task<std::optional<std::string>> refusal(Context& context, const Operation& operation,
                                         const net::Request& request, const Principal& before) {
  try {
    const Principal now = co_await context.admit(operation, request);
    if (now.fleets != before.fleets) co_return "what you may see has changed; connect again";
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    if (error.code() != Code::kUnavailable && error.code() != Code::kTimeout)
      co_return error.message();
  }
  co_return std::nullopt;
}

struct Stream {
  Stream(Call& call, std::shared_ptr<EventSource> from)
      : context(call.context),
        operation(call.operation),
        request(call.request),
        who(call.who),
        source(std::move(from)),
        place(context, call.org() + call.who.key()) {}
  Context& context;
  const Operation& operation;
  net::Request request;
  Principal who;
  std::shared_ptr<EventSource> source;
  Place place;
};

Task<void> run(std::shared_ptr<Stream> stream, net::BodyWriter& out) {
  const SteadyPoint end = steady_now() + kLife;
  SteadyPoint wrote = steady_now(), looked = wrote;
  while (steady_now() < end) {
    bool over = false;
    std::string text = co_await stream->source->next(kTick, over);
    if (text.empty() && steady_now() - wrote >= kKeepAlive) text = net::kSseKeepAlive;
    if (!text.empty()) {
      co_await out.write(text);
      wrote = steady_now();
    }
    if (over) co_return;
    if (steady_now() - looked < kLookAgain) continue;
    looked = steady_now();
    const auto reason =
        co_await refusal(stream->context, stream->operation, stream->request, stream->who);
    if (!reason) continue;
    co_await out.write(stream->source->goodbye(*reason));
    co_return;
  }
  co_await out.write(stream->source->goodbye("the stream is an hour old; connect again"));
}

}  // namespace

std::string EventSource::goodbye(const std::string& reason) {
  return net::format_sse({"", "end", bj::serialize(bj::object{{"reason", reason}})});
}

net::Reply stream_reply(Call& call, std::shared_ptr<EventSource> source) {
  const auto stream = std::make_shared<Stream>(call, std::move(source));
  net::Reply reply;
  reply.response.headers.add("Content-Type", "text/event-stream");
  reply.response.headers.add("Cache-Control", "no-store");
  reply.response.headers.add("X-Accel-Buffering", "no");
  reply.stream = [stream](net::BodyWriter& out) { return run(stream, out); };
  return reply;
}

std::optional<std::string> last_event_id(const net::Request& request) {
  const auto id = request.headers.get("Last-Event-ID");
  if (!id || id->empty()) return std::nullopt;
  if (id->size() > 512) throw Error(Code::kInvalidArgument, "Last-Event-ID is not one of ours");
  return std::string(*id);
}

}  // namespace flock::targets::api

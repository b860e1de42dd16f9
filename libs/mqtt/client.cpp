// SPDX-License-Identifier: Apache-2.0
#include "mqtt/client.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <unordered_map>
#include <vector>

#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "mqtt/codec.h"
#include "mqtt/outbox.h"
#include "net/http.h"
#include "net/websocket.h"

namespace flock::mqtt {
namespace {

std::string filter_of(const std::string& filter) {
  if (!filter.starts_with("$share/")) return filter;
  const std::size_t slash = filter.find('/', 7);
  return slash == std::string::npos ? filter : filter.substr(slash + 1);
}

constexpr std::uint8_t kNoSubscriber = 0x10;

Code code_of(std::uint8_t reason) {
  switch (reason) {
    case 0x86:
    case 0x87:
      return Code::kForbidden;
    case 0x95:
      return Code::kTooLarge;
    case 0x97:
      return Code::kRateLimited;
    default:
      return Code::kUnavailable;
  }
}

net::Endpoint endpoint_of(const net::Url& url, const std::shared_ptr<net::TlsContext>& tls) {
  net::Endpoint endpoint;
  if (url.scheme == "mqtts" || url.scheme == "wss") {
    endpoint.kind = net::Endpoint::Kind::kTls;
  } else if (url.scheme != "mqtt" && url.scheme != "ws") {
    throw Error(Code::kUnsupported,
                "an MQTT address begins with mqtt://, mqtts://, ws:// or wss://")
        .with("scheme", url.scheme);
  }
  endpoint.host = url.host;
  endpoint.port = url.port;
  endpoint.tls = tls;
  return endpoint;
}

Task<net::StreamPtr> open_stream(std::string address, std::shared_ptr<net::TlsContext> tls) {
  const net::Url url = net::parse_url(address);
  net::StreamPtr stream = co_await net::connect(endpoint_of(url, tls));
  if (!url.scheme.starts_with("ws")) co_return stream;
  net::WebSocketOptions options;
  options.host = url.host;
  options.port = url.port;
  // What brokers listen on unless told otherwise; Mosquitto takes any path.
  options.path = url.path == "/" ? "/mqtt" : url.path;
  options.subprotocol = "mqtt";
  co_return co_await net::websocket_client(std::move(stream), std::move(options));
}

// Received bytes that are not decoded yet.
class Input {
 public:
  Input() : data_(kBlock) {}
  void clear() { begin_ = end_ = 0; }
  // Room for the next read.
  std::pair<char*, std::size_t> room() {
    if (begin_ == end_) {
      clear();
      if (data_.size() > 4 * kBlock) std::vector<char>(kBlock).swap(data_);  // after a large packet
    } else if (data_.size() - end_ < kBlock / 4) {
      std::memmove(data_.data(), data_.data() + begin_, end_ - begin_);
      end_ -= std::exchange(begin_, 0);
      if (data_.size() - end_ < kBlock / 4) data_.resize(data_.size() * 2);
    }
    return {data_.data() + end_, data_.size() - end_};
  }
  void filled(std::size_t count) { end_ += count; }
  std::string_view view() const { return {data_.data() + begin_, end_ - begin_}; }
  void keep(std::size_t rest) { begin_ = end_ - rest; }

 private:
  static constexpr std::size_t kBlock = 16 * 1024;
  std::vector<char> data_;
  std::size_t begin_ = 0, end_ = 0;
};

}  // namespace

// Everything lives on one loop. `generation` counts connections: an acknowledgement of an older one
// must not be sent on a newer one, where the broker delivers the message again under another packet
// identifier.
struct Client::Impl : std::enable_shared_from_this<Client::Impl> {
  struct Subscribed {
    Subscription subscription;
    std::string filter;  // without $share
    std::uint32_t id = 0;
    std::function<void(Delivery)> handler;
    bool confirmed = false;  // by the broker, in this session
  };
  using SubscribedPtr = std::shared_ptr<Subscribed>;

  struct Waiter {
    explicit Waiter(Executor e) : done(std::move(e)) {}
    Event done;
    std::vector<std::uint8_t> reasons;  // none: the connection was lost
    SubscribedPtr subscribed;           // null: UNSUBSCRIBE
    bool repeated = false;              // nobody waits
  };
  using WaiterPtr = std::shared_ptr<Waiter>;

  Impl(Executor e, ClientOptions o)
      : executor(e),
        options(std::move(o)),
        outbox(e, ids, options.queue_bytes, options.packet_bytes),
        online(e),
        offline(e),
        stopped(e),
        output_ready(e),
        backoff(options.backoff_first, options.backoff_max) {
    offline.set();
  }

  // --- Connection
  // ---------------------------------------------------------------------------------

  Task<void> run() {
    clean_start = options.clean_start;
    while (!stopping) {
      std::string reason;
      bool was_connected = false;
      try {
        co_await connect_once();
        was_connected = true;
        backoff.reset();
        co_await serve();
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled && !dropped && !stopping) {
          connection_lost();
          throw;
        }
        reason = error.describe();
      }
      connection_lost();
      if (stopping) break;
      notify(false, reason);
      log::debug("mqtt connection ended", {{"reason", reason}, {"client_id", options.client_id}});
      const bool at_once = std::exchange(dropped, false) && was_connected;
      if (!at_once) co_await stopped.wait_for(backoff.next());
    }
  }

  Task<void> connect_once() {
    Credentials credentials;
    if (options.credentials) credentials = co_await options.credentials();
    Task<net::StreamPtr> opening = open_stream(options.url, options.tls);
    stream = co_await with_deadline(std::move(opening), options.connect_time,
                                    "connecting to the broker");
    stream->expires_after(options.connect_time);

    Connect packet;
    packet.client_id = options.client_id;
    packet.username = credentials.username;
    packet.password = credentials.password.reveal();
    packet.clean_start = clean_start;
    packet.keep_alive_seconds = static_cast<std::uint16_t>(options.keep_alive.count() / 1000);
    packet.session_expiry_seconds =
        static_cast<std::uint32_t>(options.session_expiry.count() / 1000);
    packet.receive_maximum = options.receive_maximum;
    packet.maximum_packet = static_cast<std::uint32_t>(options.packet_bytes);
    packet.topic_alias_maximum = options.topic_alias_maximum;
    if (options.will) packet.will = &*options.will;
    packet.will_delay_seconds = static_cast<std::uint32_t>(options.will_delay.count() / 1000);
    std::string bytes;
    encode(bytes, packet);
    input.clear();
    output.clear();
    reading = writer_busy = false;
    co_await stream->write(bytes);
    while (!connected) co_await read_more();
  }

  // In the middle of decoding: what a resumed session delivers can stand in the same block as
  // CONNACK, and its acknowledgements belong to this connection.
  void start_session(const ConnAck& answer) {
    if (answer.maximum_qos == 0) throw Error(Code::kUnsupported, "the broker does not offer QoS 1");
    ++generation;
    connected = true;
    clean_start = false;
    unacknowledged = 0;
    subscription_ids = answer.subscription_ids;
    keep_alive = answer.server_keep_alive ? Duration(std::int64_t{*answer.server_keep_alive} * 1000)
                                          : options.keep_alive;
    heard = sent = pinged = std::chrono::steady_clock::now();
    aliases.clear();
    // In a resumed session too: Mosquitto 2.0 keeps a session over a restart but not its shared
    // subscriptions. Repeating one that is still there sends nothing retained again.
    for (const SubscribedPtr& subscribed : subscriptions) {
      if (!answer.session_present) subscribed->confirmed = false;
      send_subscribe(subscribed)->repeated = true;
    }
    outbox.start(answer);
    pump();
    offline.reset();
    online.set();
    notify(true, "connected");
  }

  void connection_lost() {
    connected = false;
    online.reset();
    offline.set();
    if (stream) stream->close();
    // The broker delivers them again; these could not be acknowledged any more.
    unclaimed.clear();
    for (auto& [id, waiter] : waiters) {
      ids.give(id);
      waiter->done.set();
    }
    waiters.clear();
  }

  // Reads until the connection ends; two more tasks write and ping.
  Task<void> serve() {
    TaskScope others(executor);
    std::exception_ptr failure, of_writer;
    // When the writer meets the broken connection first, the reader still takes what the broker had
    // sent: a broker that crashed will not send it again.
    others.on_failure([&](const std::string&, std::exception_ptr error) {
      of_writer = error;
      stream->expires_after(Duration(1000));
    });
    others.spawn("mqtt writer", write_loop());
    if (keep_alive.count() > 0) others.spawn("mqtt pinger", ping_loop());
    try {
      for (;;) {
        if (!of_writer) {
          stream->expires_after(keep_alive.count() > 0 ? keep_alive + keep_alive / 2
                                                       : Duration::max());
        }
        co_await read_more();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    stream->close();
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await others.finish();
    const asio::cancellation_state state = co_await asio::this_coro::cancellation_state;
    co_await asio::this_coro::throw_if_cancelled(true);
    // The owner's wish to stop comes first, also when reconnect() ended this connection.
    if (state.cancelled() != asio::cancellation_type::none) {
      dropped = false;
      throw Error(Code::kCancelled, "cancelled");
    }
    std::rethrow_exception(of_writer ? of_writer : failure);
  }

  // Sends what the handlers put into `output`, everything in one write.
  Task<void> write_loop() {
    std::string writing;
    for (;;) {
      if (output.empty()) {
        if (closing) co_return;
        output_ready.reset();
        co_await output_ready.wait();
      }
      writing.clear();
      writing.swap(output);
      writer_busy = true;
      co_await stream->write(writing);
      writer_busy = false;
      sent = std::chrono::steady_clock::now();
      pump();  // there is room again
    }
  }

  // Pings when nothing was sent for a keep-alive (3.1.2.10), and also when nothing was heard for
  // one: who only publishes at QoS 0 would else never learn that the peer is gone, or take a silent
  // one for gone.
  Task<void> ping_loop() {
    for (;;) {
      const SteadyPoint due = std::min(sent, std::max(heard, pinged)) + keep_alive;
      const SteadyPoint now = std::chrono::steady_clock::now();
      if (due > now) {
        co_await sleep_for(std::chrono::ceil<Duration>(due - now));
        continue;
      }
      sent = pinged = now;
      encode_ping(output);
      wake_writer();
    }
  }

  Task<void> read_more() {
    const auto [room, size] = input.room();
    const std::size_t got = co_await stream->read_some(room, size);
    if (got == 0) throw Error(Code::kUnavailable, "the broker closed the connection");
    heard = std::chrono::steady_clock::now();
    input.filled(got);
    std::string_view rest = input.view();
    reading = true;
    while (auto packet = decode(rest, options.packet_bytes)) {
      if (!connected && !std::holds_alternative<ConnAck>(*packet))
        throw Error(Code::kProtocol, "the broker sent something before its CONNACK");
      std::visit([this](auto& incoming) { handle(incoming); }, *packet);
    }
    reading = false;
    input.keep(rest.size());
    answer_at_once();
  }

  // The acknowledgements of what was just read mostly fit into the socket: that saves the writer's
  // turn, which costs more than the message itself when messages come one by one.
  void answer_at_once() {
    if (output.empty()) return;
    if (connected && !writer_busy) {
      output.erase(0, stream->try_write(output));
      sent = heard;
      pump();  // there is room again
    }
    if (!output.empty()) wake_writer();
  }

  void wake_writer() {
    if (!reading && !output_ready.is_set()) output_ready.set();
  }

  // --- Incoming
  // -----------------------------------------------------------------------------------

  void handle(ConnAck& packet) {
    if (connected) throw Error(Code::kProtocol, "the broker sent a second CONNACK");
    if (packet.reason != 0) {
      throw Error(code_of(packet.reason),
                  "the broker refused the connection: " + std::string(reason_name(packet.reason)));
    }
    start_session(packet);
  }

  void handle(PingResp&) {}

  void handle(Disconnect& packet) {
    throw Error(code_of(packet.reason),
                "the broker ended the session: " + std::string(reason_name(packet.reason)));
  }

  void handle(PubAck& packet) {
    outbox.acknowledge(packet);
    pump();
  }

  void handle(SubAck& packet) { answer_waiter(packet.packet_id, std::move(packet.reasons)); }
  void handle(UnsubAck& packet) { answer_waiter(packet.packet_id, std::move(packet.reasons)); }

  void answer_waiter(std::uint16_t packet_id, std::vector<std::uint8_t> reasons) {
    const auto found = waiters.find(packet_id);
    if (found == waiters.end()) return;
    const WaiterPtr waiter = std::move(found->second);
    waiters.erase(found);
    ids.give(packet_id);
    if (waiter->subscribed) {
      waiter->subscribed->confirmed = reasons.front() < 0x80;
      if (!waiter->subscribed->confirmed && waiter->repeated) {
        log::warn("the broker refused a subscription",
                  {{"filter", waiter->subscribed->subscription.filter},
                   {"reason", reason_name(reasons.front())}});
      }
    }
    waiter->reasons = std::move(reasons);
    waiter->done.set();
  }

  void handle(Publish& packet) {
    resolve_alias(packet);
    const std::uint32_t most = options.unacknowledged_most > 0 ? options.unacknowledged_most
                                                               : 4u * options.receive_maximum;
    if (packet.packet_id != 0 && ++unacknowledged > most)
      throw Error(Code::kProtocol, "the broker sent more than the receive maximum");
    if (dispatch(packet) || packet.packet_id == 0) return;
    // A resumed session delivers before the program has subscribed again: kept until it does. The
    // receive maximum bounds it.
    unclaimed.push_back(std::move(packet));
  }

  void resolve_alias(Publish& packet) {
    if (packet.topic_alias == 0) return;
    if (packet.topic_alias > options.topic_alias_maximum)
      throw Error(Code::kProtocol, "the broker used a topic alias over the limit");
    if (!packet.message.topic.empty()) {
      aliases[packet.topic_alias] = packet.message.topic;
      return;
    }
    const auto known = aliases.find(packet.topic_alias);
    if (known == aliases.end())
      throw Error(Code::kProtocol, "the broker used an unknown topic alias");
    packet.message.topic = known->second;
  }

  void acknowledge(std::uint16_t packet_id, std::uint64_t made) {
    if (!connected || generation != made) return;
    --unacknowledged;
    encode(output, PubAck{packet_id, 0});
    wake_writer();
  }

  std::function<void()> acknowledger(const Publish& packet) {
    if (packet.packet_id == 0) return {};
    return [weak = weak_from_this(), id = packet.packet_id, made = generation] {
      if (const auto self = weak.lock()) self->acknowledge(id, made);
    };
  }

  // Hands a message to the subscriptions that the broker names, or, where it names none that we
  // know (another process's of the same session), to the first that matches.
  bool dispatch(Publish& packet) {
    if (packet.subscription_ids.size() > 1) return dispatch_to_all(packet);
    SubscribedPtr target;  // kept: a handler may unsubscribe
    for (const SubscribedPtr& subscribed : subscriptions) {
      if (!topic_matches(subscribed->filter, packet.message.topic)) continue;
      const bool named =
          !packet.subscription_ids.empty() && packet.subscription_ids[0] == subscribed->id;
      if (!target || named) target = subscribed;
      if (named || packet.subscription_ids.empty()) break;
    }
    if (!target) return false;
    deliver(*target, std::move(packet.message), acknowledger(packet));
    return true;
  }

  // One message for several subscriptions; the last of them to acknowledge does it for all.
  bool dispatch_to_all(Publish& packet) {
    std::vector<SubscribedPtr> named;
    for (const SubscribedPtr& subscribed : subscriptions) {
      const auto& ids_of = packet.subscription_ids;
      if (std::find(ids_of.begin(), ids_of.end(), subscribed->id) != ids_of.end() &&
          topic_matches(subscribed->filter, packet.message.topic))
        named.push_back(subscribed);
    }
    if (named.empty()) {
      packet.subscription_ids.clear();
      return dispatch(packet);
    }
    std::function<void()> done = acknowledger(packet);
    if (done) {
      done = [left = std::make_shared<std::size_t>(named.size()), all = std::move(done)] {
        if (--*left == 0) all();
      };
    }
    for (const SubscribedPtr& subscribed : named) deliver(*subscribed, packet.message, done);
    return true;
  }

  static void deliver(const Subscribed& subscribed, Message message, std::function<void()> done) {
    Delivery delivery(std::move(message), std::move(done));
    delivery.subscription = subscribed.id;
    subscribed.handler(std::move(delivery));
  }

  // --- Outgoing
  // -----------------------------------------------------------------------------------

  void pump() {
    if (!connected) return;
    outbox.pump(std::chrono::steady_clock::now(), output);
    if (!output.empty()) wake_writer();
  }

  Task<void> publish(Message message) {
    if (stopping) throw Error(Code::kUnavailable, "the MQTT client was stopped");
    const SteadyPoint end = std::chrono::steady_clock::now() + options.publish_time;
    for (;;) {
      const std::uint8_t reason = co_await publish_once(message, end);
      if (reason < 0x80 && reason != kNoSubscriber) co_return;
      if (reason == kNoSubscriber && options.unheard_retry.count() == 0 && !message.must_be_heard)
        co_return;
      if (reason != kNoSubscriber) {
        throw Error(code_of(reason),
                    "the broker refused the message: " + std::string(reason_name(reason)))
            .with("topic", message.topic);
      }
      if (options.unheard_retry.count() == 0 ||
          std::chrono::steady_clock::now() + options.unheard_retry > end) {
        throw Error(Code::kUnavailable, "nobody subscribes to the message's topic")
            .with("topic", message.topic);
      }
      co_await sleep_for(options.unheard_retry);
    }
  }

  // Answers the broker's reason.
  Task<std::uint8_t> publish_once(Message message, SteadyPoint end) {
    const OutgoingPtr item = outbox.add(std::move(message));
    pump();
    const auto left = std::chrono::duration_cast<Duration>(end - std::chrono::steady_clock::now());
    if (!co_await item->done.wait_for(std::max(left, Duration(1)))) {
      outbox.forget(item);
      throw Error(Code::kTimeout, "the broker did not acknowledge the message in time")
          .with("topic", item->message.topic);
    }
    if (item->expired) {
      throw Error(Code::kTimeout, "the message expired before it could be sent")
          .with("topic", item->message.topic);
    }
    co_return item->reason.value_or(0x88);
  }

  WaiterPtr make_waiter(std::uint16_t& id, SubscribedPtr subscribed) {
    id = ids.take();
    if (id == 0) throw Error(Code::kTooLarge, "too many messages wait for the broker");
    auto waiter = std::make_shared<Waiter>(executor);
    waiter->subscribed = std::move(subscribed);
    waiters[id] = waiter;
    return waiter;
  }

  WaiterPtr send_subscribe(const SubscribedPtr& subscribed) {
    std::uint16_t id = 0;
    WaiterPtr waiter = make_waiter(id, subscribed);
    encode_subscribe(output, id, subscribed->subscription, subscription_ids ? subscribed->id : 0,
                     subscribed->confirmed ? Retained::kWhenNew : Retained::kAlways);
    wake_writer();
    return waiter;
  }

  Task<void> subscribe(Subscription subscription, std::function<void(Delivery)> handler) {
    const std::string name = subscription.filter;
    const auto subscribed = std::make_shared<Subscribed>();
    subscribed->filter = filter_of(name);
    subscribed->subscription = std::move(subscription);
    subscribed->id = ++last_subscription_id;
    subscribed->handler = std::move(handler);
    subscriptions.push_back(subscribed);
    claim();
    if (!connected) co_return;  // sent with the next connection
    const WaiterPtr waiter = send_subscribe(subscribed);
    if (!co_await waiter->done.wait_for(options.publish_time)) {
      throw Error(Code::kTimeout, "the broker did not answer a subscription").with("filter", name);
    }
    // Without reasons the connection was lost: repeated with the next one.
    if (waiter->reasons.empty() || waiter->reasons.front() < 0x80) co_return;
    std::erase(subscriptions, subscribed);
    throw Error(
        code_of(waiter->reasons.front()),
        "the broker refused a subscription: " + std::string(reason_name(waiter->reasons.front())))
        .with("filter", name);
  }

  void claim() {
    std::vector<Publish> waiting = std::move(unclaimed);
    unclaimed.clear();
    for (Publish& packet : waiting) {
      if (!dispatch(packet)) unclaimed.push_back(std::move(packet));
    }
  }

  Task<void> unsubscribe(std::string filter) {
    std::erase_if(subscriptions,
                  [&](const SubscribedPtr& s) { return s->subscription.filter == filter; });
    if (!connected) co_return;
    std::uint16_t id = 0;
    const WaiterPtr waiter = make_waiter(id, nullptr);
    encode_unsubscribe(output, id, filter);
    wake_writer();
    co_await waiter->done.wait_for(options.publish_time);
  }

  Task<void> disconnect(Duration limit) {
    const SteadyPoint end = std::chrono::steady_clock::now() + limit;
    const auto left = [end] {
      const auto rest = end - std::chrono::steady_clock::now();
      return std::max(Duration(1), std::chrono::duration_cast<Duration>(rest));
    };
    while (connected && !outbox.empty() && std::chrono::steady_clock::now() < end) {
      const OutgoingPtr item = outbox.some();
      co_await item->done.wait_for(left());
    }
    stopping = true;
    stopped.set();
    if (connected) {
      encode_disconnect(output, 0);
      closing = true;
      wake_writer();
      // The broker closes after DISCONNECT; the reader then ends run().
      co_await offline.wait_for(left());
    }
    if (stream) stream->close();
  }

  void notify(bool up, const std::string& reason) {
    if (connection_handler) connection_handler(up, reason);
  }

  Executor executor;
  ClientOptions options;
  PacketIds ids;
  Outbox outbox;
  net::StreamPtr stream;
  Input input;
  std::string output;
  bool connected = false, stopping = false, closing = false, dropped = false, clean_start = false;
  bool subscription_ids = true, reading = false, writer_busy = false;
  std::uint64_t generation = 0;
  unsigned unacknowledged = 0;
  Duration keep_alive{};
  SteadyPoint heard, sent, pinged;
  std::unordered_map<std::uint16_t, std::string> aliases;
  std::uint32_t last_subscription_id = 0;
  std::list<SubscribedPtr> subscriptions;
  std::vector<Publish> unclaimed;
  std::map<std::uint16_t, WaiterPtr> waiters;
  std::function<void(bool, const std::string&)> connection_handler;
  Event online, offline, stopped, output_ready;
  Backoff backoff;
};

Client::Client(Executor executor, ClientOptions options)
    : impl_(std::make_shared<Impl>(std::move(executor), std::move(options))) {}
Client::~Client() = default;

Task<void> Client::run() {
  const auto impl = impl_;
  co_await impl->run();
}

Task<void> Client::disconnect(Duration limit) {
  const auto impl = impl_;
  co_await impl->disconnect(limit);
}

void Client::reconnect() {
  if (!impl_->connected) return;
  impl_->dropped = true;
  impl_->stream->close();
}

void Client::set_will(Message will) { impl_->options.will = std::move(will); }

void Client::on_connection(std::function<void(bool, const std::string&)> handler) {
  impl_->connection_handler = std::move(handler);
}

Task<void> Client::publish(Message message) {
  const auto impl = impl_;
  co_await impl->publish(std::move(message));
}

Task<void> Client::subscribe(Subscription subscription, std::function<void(Delivery)> handler) {
  const auto impl = impl_;
  co_await impl->subscribe(std::move(subscription), std::move(handler));
}

Task<void> Client::unsubscribe(std::string filter) {
  const auto impl = impl_;
  co_await impl->unsubscribe(std::move(filter));
}

bool Client::connected() const noexcept { return impl_->connected; }

Task<void> Client::wait_connected() {
  const auto impl = impl_;
  while (!impl->connected) co_await impl->online.wait();
}

}  // namespace flock::mqtt

// SPDX-License-Identifier: Apache-2.0
#include "mqtt/client.h"

#include <algorithm>
#include <list>
#include <map>
#include <unordered_map>

#include "async/backoff.h"
#include "async/deadline.h"
#include "async/event.h"
#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "base/log.h"
#include "mqtt/codec.h"
#include "net/http.h"

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
  if (url.scheme == "mqtts") {
    endpoint.kind = net::Endpoint::Kind::kTls;
  } else if (url.scheme != "mqtt") {
    throw Error(Code::kUnsupported, "an MQTT address begins with mqtt:// or mqtts://")
        .with("scheme", url.scheme);
  }
  endpoint.host = url.host;
  endpoint.port = url.port;
  endpoint.tls = tls;
  return endpoint;
}

}  // namespace

// Everything lives on one loop. `generation` counts connections: an acknowledgement of an older one
// must not be sent on a newer one, where the broker delivers the message again under another packet
// identifier.
struct Client::Impl : std::enable_shared_from_this<Client::Impl> {
  // A publish that waits for its place in the window or for its PUBACK.
  struct Pending {
    Message message;
    std::size_t bytes = 0;
    std::uint16_t packet_id = 0;
    bool sent = false;
    SteadyPoint expires = SteadyPoint::max();
    std::shared_ptr<Event> done;
    std::optional<std::uint8_t> reason;
  };
  using PendingPtr = std::shared_ptr<Pending>;

  struct Subscribed {
    Subscription subscription;
    std::string filter;  // without $share
    std::function<void(Delivery)> handler;
    bool confirmed = false;  // the broker has acknowledged it once
  };

  struct Waiter {
    std::string filter;  // of a SUBSCRIBE
    std::shared_ptr<Event> done;
    std::vector<std::uint8_t> reasons;
  };

  Impl(Executor e, ClientOptions o)
      : executor(e),
        options(std::move(o)),
        online(e),
        offline(e),
        output_ready(e),
        backoff(options.backoff_first, options.backoff_max) {}

  // --- Connection
  // ---------------------------------------------------------------------------------

  Task<void> run() {
    for (bool first = true; !stopping; first = false) {
      std::string reason;
      bool was_connected = false;
      try {
        co_await connect_once(first && options.clean_start);
        was_connected = true;
        backoff.reset();
        co_await serve();
        reason = "closed";
      } catch (const Error& error) {
        if (error.code() == Code::kCancelled && !dropped) {
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
      if (!at_once) co_await sleep_for(backoff.next());
    }
  }

  Task<void> connect_once(bool clean_start) {
    Credentials credentials;
    if (options.credentials) credentials = co_await options.credentials();
    const net::Url url = net::parse_url(options.url);
    Task<net::StreamPtr> connecting = net::connect(endpoint_of(url, options.tls));
    stream = co_await with_deadline(std::move(connecting), options.connect_time,
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
    co_await stream->write(bytes);

    input.clear();
    while (!connack) co_await read_more();
    const ConnAck answer = *std::exchange(connack, std::nullopt);
    if (answer.reason != 0) {
      throw Error(code_of(answer.reason),
                  "the broker refused the connection: " + std::string(reason_name(answer.reason)));
    }
    start_session(answer);
  }

  void start_session(const ConnAck& answer) {
    ++generation;
    server_receive_maximum = answer.receive_maximum;
    server_packet_limit = answer.maximum_packet;
    keep_alive = answer.server_keep_alive ? Duration(std::int64_t{*answer.server_keep_alive} * 1000)
                                          : options.keep_alive;
    aliases.clear();
    output.clear();
    in_flight = 0;
    if (!answer.session_present) unclaimed.clear();  // their acknowledgements mean nothing any more
    // With a resumed session too: Mosquitto 2.0 keeps a session over a restart but not its shared
    // subscriptions. Repeating one that is still there sends nothing retained again.
    for (auto& subscribed : subscriptions) send_subscribe(subscribed);
    // What was sent and not acknowledged goes out again, in its old order (4.4).
    for (const PendingPtr& pending : queue) {
      if (!pending->sent || in_flight >= server_receive_maximum) {
        pending->sent = false;
        continue;
      }
      send(*pending, answer.session_present);
    }
    pump();
    connected = true;
    online.set();
    offline.reset();
    notify(true, "connected");
  }

  void connection_lost() {
    connected = false;
    online.reset();
    offline.set();
    if (stream) stream->close();
    for (auto& [id, waiter] : waiters) waiter->done->set();
    waiters.clear();
  }

  // Reads until the connection ends; a second task writes.
  Task<void> serve() {
    TaskScope writers(executor);
    std::exception_ptr failure;
    // A failed write closes the stream, which the reader below sees as its own cancellation: what
    // counts is why the write failed.
    std::exception_ptr write_failure;
    const auto fail = [this, &write_failure](const std::string&, std::exception_ptr error) {
      write_failure = error;
      stream->close();
    };
    writers.on_failure(fail);
    writers.spawn("mqtt writer", write_loop());
    try {
      for (;;) {
        stream->expires_after(keep_alive.count() > 0 ? keep_alive + keep_alive / 2
                                                     : Duration::max());
        co_await read_more();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    stream->close();
    co_await asio::this_coro::throw_if_cancelled(false);
    co_await writers.finish();
    co_await check_cancelled();
    co_await asio::this_coro::throw_if_cancelled(true);
    std::rethrow_exception(write_failure ? write_failure : failure);
  }

  // Sends what the handlers put into `output`, everything in one write; a ping when there was
  // nothing to say.
  Task<void> write_loop() {
    std::string writing;
    for (;;) {
      if (output.empty()) {
        output_ready.reset();
        if (closing) co_return;
        const Duration quiet = keep_alive.count() > 0 ? keep_alive : Duration::max();
        if (!co_await output_ready.wait_for(quiet)) encode_ping(output);
      }
      writing.clear();
      writing.swap(output);
      co_await stream->write(writing);
    }
  }

  Task<void> read_more() {
    char block[16 * 1024];
    const std::size_t got = co_await stream->read_some(block, sizeof block);
    if (got == 0) throw Error(Code::kUnavailable, "the broker closed the connection");
    input.append(block, got);
    std::string_view rest = input;
    while (auto packet = decode(rest, options.packet_bytes)) {
      std::visit([this](auto& incoming) { handle(incoming); }, *packet);
    }
    input.erase(0, input.size() - rest.size());
  }

  void wake_writer() { output_ready.set(); }

  // --- Incoming
  // -----------------------------------------------------------------------------------

  void handle(ConnAck& packet) { connack = packet; }
  void handle(PingResp&) {}

  void handle(Disconnect& packet) {
    throw Error(code_of(packet.reason),
                "the broker ended the session: " + std::string(reason_name(packet.reason)));
  }

  void handle(PubAck& packet) {
    const auto found = std::find_if(queue.begin(), queue.end(), [&](const PendingPtr& p) {
      return p->sent && p->packet_id == packet.packet_id;
    });
    if (found == queue.end()) return;  // of an earlier connection
    --in_flight;
    (*found)->reason = packet.reason;
    (*found)->done->set();
    queue_bytes -= (*found)->bytes;
    queue.erase(found);
    pump();
  }

  void handle(SubAck& packet) {
    const auto found = waiters.find(packet.packet_id);
    if (found == waiters.end() || packet.reasons.empty()) return;
    const std::uint8_t reason = packet.reasons.front();
    for (auto& subscribed : subscriptions) {
      if (subscribed.subscription.filter != found->second->filter) continue;
      // Of a repeated subscription nobody waits for the answer.
      if (reason >= 0x80 && subscribed.confirmed) {
        log::warn("the broker refused a subscription that it had accepted",
                  {{"filter", found->second->filter}, {"reason", reason_name(reason)}});
      }
      subscribed.confirmed = subscribed.confirmed || reason < 0x80;
    }
    answer_waiter(packet.packet_id, std::move(packet.reasons));
  }
  void handle(UnsubAck& packet) { answer_waiter(packet.packet_id, std::move(packet.reasons)); }

  void answer_waiter(std::uint16_t packet_id, std::vector<std::uint8_t> reasons) {
    const auto found = waiters.find(packet_id);
    if (found == waiters.end()) return;
    found->second->reasons = std::move(reasons);
    found->second->done->set();
    waiters.erase(found);
  }

  void handle(Publish& packet) {
    if (packet.topic_alias > 0) {
      if (packet.topic_alias > options.topic_alias_maximum)
        throw Error(Code::kProtocol, "the broker used a topic alias over the limit");
      if (packet.message.topic.empty()) {
        const auto known = aliases.find(packet.topic_alias);
        if (known == aliases.end())
          throw Error(Code::kProtocol, "the broker used an unknown topic alias");
        packet.message.topic = known->second;
      } else {
        aliases[packet.topic_alias] = packet.message.topic;
      }
    }
    std::function<void()> acknowledge;
    if (packet.packet_id != 0) {
      acknowledge = [weak = weak_from_this(), id = packet.packet_id, made = generation] {
        const auto self = weak.lock();
        if (!self || !self->connected || self->generation != made) return;
        encode(self->output, PubAck{id, 0});
        self->wake_writer();
      };
    }
    Delivery delivery(std::move(packet.message), std::move(acknowledge));
    if (!dispatch(delivery)) {
      // A resumed session delivers before the program has subscribed again: kept until it does. The
      // receive maximum bounds it.
      if (packet.packet_id != 0) unclaimed.push_back(std::move(delivery));
    }
  }

  bool dispatch(Delivery& delivery) {
    for (const Subscribed& subscribed : subscriptions) {
      if (topic_matches(subscribed.filter, delivery.message.topic)) {
        const auto handler = subscribed.handler;  // it may unsubscribe
        handler(std::move(delivery));
        return true;
      }
    }
    return false;
  }

  // --- Outgoing
  // -----------------------------------------------------------------------------------

  std::uint16_t next_packet_id() {
    for (;;) {
      if (++last_packet_id == 0) ++last_packet_id;
      const bool used = waiters.contains(last_packet_id) ||
                        std::any_of(queue.begin(), queue.end(), [&](const PendingPtr& p) {
                          return p->sent && p->packet_id == last_packet_id;
                        });
      if (!used) return last_packet_id;
    }
  }

  void send(Pending& pending, bool duplicate) {
    Publish packet;
    packet.message = pending.message;
    if (pending.message.qos == Qos::kAtLeastOnce) {
      if (pending.packet_id == 0) pending.packet_id = next_packet_id();
      packet.packet_id = pending.packet_id;
      packet.duplicate = duplicate;
      ++in_flight;
    }
    if (packet.message.expiry) {
      const auto left =
          std::chrono::duration_cast<Duration>(pending.expires - std::chrono::steady_clock::now());
      packet.message.expiry = std::max(Duration(1000), left);
    }
    pending.sent = true;
    encode(output, packet);
    wake_writer();
  }

  // Sends what the window allows, oldest first.
  void pump() {
    const SteadyPoint now = std::chrono::steady_clock::now();
    for (auto at = queue.begin(); at != queue.end();) {
      const PendingPtr pending = *at;
      if (pending->sent) {
        ++at;
        continue;
      }
      const bool qos1 = pending->message.qos == Qos::kAtLeastOnce;
      if (pending->expires <= now) {
        finish(at, 0x97);
        continue;
      }
      if (qos1 && in_flight >= server_receive_maximum) return;
      send(*pending, false);
      if (qos1) {
        ++at;
      } else {
        finish(at, 0);
      }
    }
  }

  void finish(std::list<PendingPtr>::iterator& at, std::uint8_t reason) {
    (*at)->reason = reason;
    (*at)->done->set();
    queue_bytes -= (*at)->bytes;
    at = queue.erase(at);
  }

  Task<void> publish(Message message) {
    const std::size_t bytes = message.topic.size() + message.payload.size() + 64;
    if (bytes > options.packet_bytes || (server_packet_limit > 0 && bytes > server_packet_limit)) {
      throw Error(Code::kTooLarge, "the message is too large for the broker")
          .with("topic", message.topic);
    }
    if (queue_bytes + bytes > options.queue_bytes) {
      throw Error(Code::kTooLarge, "too many messages wait for the broker")
          .with("topic", message.topic);
    }
    if (stopping) throw Error(Code::kUnavailable, "the MQTT client was stopped");
    const SteadyPoint end = std::chrono::steady_clock::now() + options.publish_time;
    for (;;) {
      const std::uint8_t reason = co_await publish_once(message, bytes, end);
      if (reason < 0x80 && (reason != kNoSubscriber || options.unheard_retry.count() == 0))
        co_return;
      if (reason != kNoSubscriber) {
        throw Error(code_of(reason),
                    "the broker refused the message: " + std::string(reason_name(reason)))
            .with("topic", message.topic);
      }
      if (std::chrono::steady_clock::now() + options.unheard_retry > end) {
        throw Error(Code::kUnavailable, "nobody subscribes to the message's topic")
            .with("topic", message.topic);
      }
      co_await sleep_for(options.unheard_retry);
    }
  }

  // Answers the broker's reason.
  Task<std::uint8_t> publish_once(Message message, std::size_t bytes, SteadyPoint end) {
    const auto pending = std::make_shared<Pending>();
    pending->bytes = bytes;
    if (message.expiry) pending->expires = std::chrono::steady_clock::now() + *message.expiry;
    pending->message = std::move(message);
    pending->done = std::make_shared<Event>(executor);
    queue.push_back(pending);
    queue_bytes += bytes;
    if (connected) pump();

    const auto left = std::chrono::duration_cast<Duration>(end - std::chrono::steady_clock::now());
    const bool answered = co_await pending->done->wait_for(std::max(left, Duration(1)));
    if (!answered) {
      // One that was sent stays, for its packet identifier is taken until the broker answers.
      const auto at = std::find(queue.begin(), queue.end(), pending);
      if (at != queue.end() && !pending->sent) {
        queue_bytes -= pending->bytes;
        queue.erase(at);
      }
      throw Error(Code::kTimeout, "the broker did not acknowledge the message in time")
          .with("topic", pending->message.topic);
    }
    co_return pending->reason.value_or(0x88);
  }

  std::shared_ptr<Waiter> send_subscribe(Subscribed& subscribed) {
    const auto waiter = std::make_shared<Waiter>();
    waiter->filter = subscribed.subscription.filter;
    waiter->done = std::make_shared<Event>(executor);
    const std::uint16_t id = next_packet_id();
    waiters[id] = waiter;
    encode_subscribe(output, id, subscribed.subscription,
                     subscribed.confirmed ? Retained::kWhenNew : Retained::kAlways);
    wake_writer();
    return waiter;
  }

  Task<void> subscribe(Subscription subscription, std::function<void(Delivery)> handler) {
    const std::string name = subscription.filter;
    Subscribed entry{subscription, filter_of(name), std::move(handler)};
    subscriptions.push_back(std::move(entry));
    claim();
    if (!connected) co_return;  // sent with the next connection
    const auto waiter = send_subscribe(subscriptions.back());
    if (!co_await waiter->done->wait_for(options.publish_time)) {
      throw Error(Code::kTimeout, "the broker did not answer a subscription").with("filter", name);
    }
    if (waiter->reasons.empty()) co_return;  // the connection was lost: repeated with the next one
    if (waiter->reasons.front() >= 0x80) {
      drop_subscription(name);
      throw Error(
          code_of(waiter->reasons.front()),
          "the broker refused a subscription: " + std::string(reason_name(waiter->reasons.front())))
          .with("filter", name);
    }
  }

  void claim() {
    std::vector<Delivery> waiting = std::move(unclaimed);
    unclaimed.clear();
    for (Delivery& delivery : waiting) {
      if (!dispatch(delivery)) unclaimed.push_back(std::move(delivery));
    }
  }

  void drop_subscription(const std::string& filter) {
    std::erase_if(subscriptions,
                  [&](const Subscribed& s) { return s.subscription.filter == filter; });
  }

  Task<void> unsubscribe(std::string filter) {
    drop_subscription(filter);
    if (!connected) co_return;
    const auto waiter = std::make_shared<Waiter>();
    waiter->done = std::make_shared<Event>(executor);
    const std::uint16_t id = next_packet_id();
    waiters[id] = waiter;
    encode_unsubscribe(output, id, filter);
    wake_writer();
    co_await waiter->done->wait_for(options.publish_time);
  }

  Task<void> disconnect(Duration limit) {
    const SteadyPoint end = std::chrono::steady_clock::now() + limit;
    while (connected && !queue.empty() && std::chrono::steady_clock::now() < end) {
      const PendingPtr last = queue.back();
      const auto left =
          std::chrono::duration_cast<Duration>(end - std::chrono::steady_clock::now());
      co_await last->done->wait_for(std::max(Duration(1), left));
    }
    stopping = true;
    if (!connected) {
      dropped = true;
      if (stream) stream->close();
      co_return;
    }
    encode_disconnect(output, 0);
    closing = true;
    wake_writer();
    // The broker closes after DISCONNECT; the reader then ends run().
    const auto left = std::chrono::duration_cast<Duration>(end - std::chrono::steady_clock::now());
    co_await offline.wait_for(std::max(Duration(1), left));
    if (stream) stream->close();
  }

  void notify(bool up, const std::string& reason) {
    if (connection_handler) connection_handler(up, reason);
  }

  Executor executor;
  ClientOptions options;
  net::StreamPtr stream;
  std::string input, output;
  std::optional<ConnAck> connack;
  bool connected = false, stopping = false, closing = false, dropped = false;
  std::uint64_t generation = 0;
  unsigned server_receive_maximum = 65535, in_flight = 0;
  std::uint32_t server_packet_limit = 0;
  Duration keep_alive{};
  std::unordered_map<std::uint16_t, std::string> aliases;
  std::list<PendingPtr> queue;
  std::size_t queue_bytes = 0;
  std::uint16_t last_packet_id = 0;
  std::list<Subscribed> subscriptions;
  std::vector<Delivery> unclaimed;
  std::map<std::uint16_t, std::shared_ptr<Waiter>> waiters;
  std::function<void(bool, const std::string&)> connection_handler;
  Event online, offline, output_ready;
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/secret.h"
#include "mqtt/bus.h"
#include "net/stream.h"

namespace flock::mqtt {

struct Credentials {
  std::string username;
  Secret password;
};

inline constexpr std::uint32_t kAnyNumber = 0xFFFF'FFFF;

struct ClientOptions {
  std::string url;  // mqtt://, mqtts://, ws://, wss://host:port[/path]
  std::shared_ptr<net::TlsContext> tls;
  std::string client_id;
  // Asked before every connection, so that tokens can be renewed.
  std::function<Task<Credentials>()> credentials;
  Duration session_expiry = Duration(3'600'000);
  bool clean_start = false;  // of the first connection only
  Duration keep_alive = Duration(30'000);
  Duration connect_time = Duration(10'000);
  Duration publish_time =
      Duration(30'000);  // how long publish() waits for PUBACK, reconnects included
  // Above 0: a QoS 1 message that reached no subscriber (reason 0x10) is published again after this
  // time, until publish_time; for topics that somebody must hear. 0: it counts as delivered.
  Duration unheard_retry = Duration(0);
  Duration backoff_first = Duration(500), backoff_max = Duration(60'000);
  std::uint16_t receive_maximum =
      256;  // QoS 1 deliveries that may wait for ack(): the back-pressure
  // More than this is a broker that cannot be trusted, and the end of the connection; 0: four times
  // the receive maximum. At each ack() Mosquitto 2.0.11 sends a whole window more to who is behind,
  // until all that it has queued is out, more than there are packet ids, which it then uses twice.
  // Who may fall behind must let it come (kAnyNumber), or the next connection ends just the same.
  std::uint32_t unacknowledged_most = 0;
  std::size_t packet_bytes = 1 << 20;
  std::size_t queue_bytes =
      4 << 20;  // unsent and unacknowledged publishes; more: publish() throws kTooLarge
  std::optional<Message> will;
  Duration will_delay = Duration(0);
  std::uint16_t topic_alias_maximum = 16;
};

// An MQTT 5 session over net::Stream: connects, keeps alive, reconnects with jittered backoff,
// resends unacknowledged publishes, resubscribes. run() until cancelled.
class Client final : public Bus {
 public:
  Client(Executor executor, ClientOptions options);
  ~Client() override;

  // The connection's life; spawn it in the owner's TaskScope. Ends with kCancelled when the owner
  // cancels.
  Task<void> run();
  // Publishes what is queued, sends DISCONNECT (normal: no will) and lets run() end. At most
  // `limit`.
  Task<void> disconnect(Duration limit);
  // Drops the connection and makes a new one at once, e.g. because the token was renewed.
  void reconnect();
  // The last will of the next connections.
  void set_will(Message will);
  // Called on the loop with true/false and the reason ("connected", "connection refused: not
  // authorized", ...).
  void on_connection(std::function<void(bool connected, const std::string& reason)> handler);

  Task<void> publish(Message message) override;
  Task<void> subscribe(Subscription subscription, std::function<void(Delivery)> handler) override;
  Task<void> unsubscribe(std::string filter) override;
  bool connected() const noexcept override;
  // Resumes once connected.
  Task<void> wait_connected();

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace flock::mqtt

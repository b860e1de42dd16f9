// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/time.h"
#include "crypto/keys.h"
#include "flock/device/v1/device.pb.h"
#include "net/http_client.h"

namespace flock::agent {

struct IdentityOptions {
  std::string server, provisioning_key_file, data_dir, name, agent_version;
  device::v1::Hardware hardware;
  Duration token_lifetime{0};  // what to ask for; 0: what the server gives
  // Given: this device's key, and nothing is kept on disk (virtual devices); data_dir is not used.
  std::optional<crypto::Key> key;
  // How to reach the server. Asked for each call: calls are an hour apart, and trusted roots that
  // are kept meanwhile are a tenth of the agent's memory.
  std::function<net::ClientOptions()> client = [] { return net::ClientOptions(); };
};

// Who this device is. The key is made here and never leaves; everything else comes from
// registration and can be had again with the key, so a damaged file costs a call, not the identity.
class Identity {
 public:
  explicit Identity(IdentityOptions options);

  // Reads the key and what was stored, making the key when there is none (0600, on disk before it
  // is shown to anybody).
  void load();
  bool registered() const noexcept { return !device_id_.empty(); }
  // A token that is good for a while; registers or renews when there is none. Throws kUnavailable,
  // kForbidden, ...
  Task<std::string> token();
  // A new token, whatever the present one is good for; that one stays when this fails.
  Task<void> renew();
  // When the token should be renewed: at two thirds of its life.
  SteadyPoint renew_at() const noexcept { return renew_at_; }
  // What to add to this device's clock to get the server's, as far as it is known.
  Duration clock_offset() const noexcept { return clock_offset_; }
  // The next token() asks the server.
  void forget_token() noexcept { token_.clear(); }

  const std::string& device_id() const noexcept { return device_id_; }
  // In order of preference; known once there was a token.
  const std::vector<std::string>& broker_urls() const noexcept { return broker_urls_; }
  const std::string& broker_ca() const noexcept { return broker_ca_; }

 private:
  std::string assertion(const std::string& subject) const;
  Task<void> register_device();
  Task<void> ask(std::string path, std::function<std::string()> body);
  Task<net::Response> post(std::string path, std::string body);
  bool learn_time(const net::Response& response);
  void store();
  void load_key();
  void load_wireguard_key();
  void load_identity();
  void take(const std::string& answer);
  std::string registration_body() const;

  IdentityOptions options_;
  std::shared_ptr<const crypto::Key> key_;
  std::string wireguard_public_;
  std::string device_id_, broker_ca_, token_;
  std::vector<std::string> broker_urls_;
  SteadyPoint good_until_{}, renew_at_ = SteadyPoint::max();
  bool stored_ = false;       // what is above is on disk
  Duration clock_offset_{0};  // what to add to this device's clock to get the server's
};

}  // namespace flock::agent

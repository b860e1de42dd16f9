// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "async/event.h"
#include "async/gate.h"
#include "async/scope.h"
#include "link/identity.h"
#include "mqtt/client.h"
#include "net/tls.h"
#include "sim/behaviour.h"

namespace flock::agent::sim {

// "PREFIX-00042".
std::string name_of(const std::string& prefix, std::int64_t index);
// The same for the same seed and name, in every run.
crypto::Key key_of(std::uint64_t seed, const std::string& name);

// What all devices of one fleet did so far.
struct Counts {
  std::int64_t registered = 0, connected = 0;  // now
  std::int64_t messages = 0, log_lines = 0, commands = 0;
  std::int64_t confirmed = 0, failed = 0;  // updates
  std::int64_t errors = 0;                 // messages that were not acknowledged, refusals
  std::string last_error;
};

// What the devices of one process share.
struct World {
  std::string server, provisioning_key_file, name_prefix;
  Behaviour behaviour;
  std::function<net::ClientOptions()> http;
  // To registration: more at once would only wait in the API, and be refused.
  std::unique_ptr<Gate> joining;
  // One for all, made when the first device learns the broker's CA.
  std::shared_ptr<net::TlsContext> broker_tls;
  std::string broker_ca;
  Counts counts;
};

// One device that exists only here: registers, keeps a session with the broker, takes desired
// states and commands, and reports as flockd does.
class VirtualDevice {
 public:
  VirtualDevice(Executor executor, World& world, int index);
  // Until cancelled; afterwards end() must be awaited before the object goes.
  Task<void> run();
  // With `goodbye`: says that it leaves.
  Task<void> end(bool goodbye);

 private:
  Task<void> join();
  void start_session();
  Task<void> live(SteadyPoint until);
  Task<void> do_what_is_due(SteadyPoint now);
  SteadyPoint next_due() const;
  void take_desired(mqtt::Delivery delivery);
  void take_command(mqtt::Delivery delivery);
  Task<void> answer_commands();
  Task<bool> publish(const char* leaf, std::string payload);
  Task<void> tell(device::v1::DeviceEvent event);
  Task<void> report();
  Task<void> report_telemetry();
  Task<void> write_logs();

  Executor executor_;
  World& world_;
  const int index_;
  Chance chance_;
  Identity identity_;
  std::unique_ptr<mqtt::Client> bus_;
  std::unique_ptr<TaskScope> session_;
  Event wake_;
  device::v1::DesiredState desired_;
  std::vector<Step> steps_;
  std::size_t step_ = 0;  // the one to report next; steps_.size(): none
  Step shown_{Duration(0), device::v1::ReportedState::IDLE, "", ""};
  SteadyPoint arrived_{}, state_due_{}, telemetry_due_{}, log_due_{};
  std::vector<device::v1::Command> commands_;
  std::string boot_id_;
  std::int64_t seq_ = 0, telemetry_number_ = 0, log_number_ = 0, log_epoch_ = 0;
  bool connected_ = false, announce_ = false;
};

}  // namespace flock::agent::sim

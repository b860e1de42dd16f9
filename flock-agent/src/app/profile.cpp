// SPDX-License-Identifier: Apache-2.0
// What the two profiles of traffic mean; docs/device.md has the bytes that each costs.
#include "app/agent.h"
#include "base/error.h"

namespace flock::agent {
namespace {

struct Profile {
  const char* name;
  Duration state, look, telemetry, keep_alive, token;
};

constexpr Duration kMinute{60'000}, kHour{3'600'000};
constexpr Profile kProfiles[] = {
    {"default", kMinute, kMinute / 2, kMinute, kMinute / 2, Duration(0)},
    // A handshake costs more than a day of keep-alives, so the token is to live for a week.
    {"low", 12 * kHour, kHour, kHour, 20 * kMinute, 168 * kHour},
};
// MQTT's keep-alive is a number of seconds in two bytes.
constexpr Duration kShortestKeepAlive{1'000}, kLongestKeepAlive{65'535'000};

}  // namespace

void complete(AgentOptions& options) {
  const Profile* profile = nullptr;
  for (const Profile& known : kProfiles)
    if (options.profile == known.name) profile = &known;
  if (profile == nullptr)
    throw Error(Code::kInvalidArgument, "there is no profile " + options.profile)
        .hint("profile: default, or profile: low for lines that are paid by the byte");
  const auto fill = [](Duration& value, Duration usual) {
    if (value == Duration(0)) value = usual;
  };
  fill(options.state_interval, profile->state);
  fill(options.look_interval, profile->look);
  fill(options.telemetry_interval, profile->telemetry);
  fill(options.keep_alive, profile->keep_alive);
  fill(options.token_lifetime, profile->token);
  if (options.keep_alive < kShortestKeepAlive || options.keep_alive > kLongestKeepAlive)
    throw Error(Code::kInvalidArgument, "mqtt.keep_alive must be between 1s and 18h12m15s");
  if (options.log_journal)
    throw Error(Code::kUnsupported, "flockd cannot follow the host's journal")
        .hint("take logs.journal away; logs.kernel: true sends the kernel's messages");
  if (options.look_interval > options.telemetry_interval)
    options.look_interval = options.telemetry_interval;
  if (options.status_socket.empty()) options.status_socket = options.data_dir + "/status.sock";
}

}  // namespace flock::agent

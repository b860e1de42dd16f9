// SPDX-License-Identifier: Apache-2.0
// The reconciler's mind: what is wanted and what is seen in, what to do next out. No I/O, no clock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/time.h"
#include "flock/device/v1/device.pb.h"

namespace flock::agent {

using device::v1::DesiredState;
using device::v1::ReportedState;
using device::v1::ServiceState;

enum class Run { kCreated, kRunning, kExited };
enum class Health { kNone, kChecking, kHealthy, kUnhealthy };

// A container that carries Flock's label, as the runtime shows it.
struct Observed {
  std::string id, service, config_hash;
  // One image can be known by several manifests (pushed again with other compression); each proves
  // it.
  std::set<std::string> image_digests;
  Run run = Run::kCreated;
  int exit_code = 0;
  TimePoint started;
  std::optional<device::v1::HealthCheck> image_check;  // what the image brings by itself
  int pid = 0;                                         // of its first process, while it runs
  std::string log_path;  // of a k8s-file log; "": its log is elsewhere
};

// Failed attempts at one step in a row.
struct Attempts {
  int failures = 0;
  SteadyPoint retry_at{};  // not before
  SteadyPoint since{};     // the first of them
  std::string error_code, error;
  bool transient = false;  // a peer is away: told later than what will not heal by itself
};

// What the agent remembers of one service between rounds; lost at a restart, which only costs a
// repeated attempt.
struct Memory {
  Attempts pull;
  bool pulling = false;
  Attempts run;  // create, start, and ends that were not wanted
  int restarts = 0;
  // The run that the health below belongs to: a container that was started again begins anew.
  std::string container;
  TimePoint started;
  SteadyPoint running_since{};
  Health health = Health::kNone;
  int bad_probes = 0;
  SteadyPoint probe_at{};
  SteadyPoint count_at{};        // a failed probe before this does not count
  bool probing = false;          // a probe is under way
  bool probe_late = false;       // it was counted as failed, whatever it says in the end
  SteadyPoint probe_fails_at{};  // when it counts as failed
  std::optional<device::v1::Exit> last_exit;
  std::uint32_t pull_percent = 0;
};

enum class ActionKind { kPull, kRemove, kCreate, kStart, kProbe };
struct Action {
  ActionKind kind;
  std::string service;
  std::string container;  // kRemove, kStart, kProbe
};

using ConfigHashes = std::map<std::string, std::string>;  // by service

struct World {
  const DesiredState& desired;
  // The last state whose images were all there: what keeps running while `desired` is downloaded.
  const DesiredState& current;
  std::vector<Observed> containers;
  std::set<std::string> images;  // of those that both states name, the ones that are there
  ConfigHashes desired_hashes, current_hashes;
  SteadyPoint now;
  bool held = false;  // a host command comes first: what is current is kept running
};

struct Plan {
  std::vector<Action> actions;
  ReportedState::Phase phase = ReportedState::IDLE;
  std::string error_code, error;
  bool transient = false;   // what failed is not the release's fault: a peer or the runtime is away
  bool fetched = false;     // every image of the desired state is there
  bool complete = false;    // the same, and nothing holds it back
  bool settled = false;     // all services run and are healthy; soaking or confirmed
  std::string waits_for;    // the first service that is not as it should be; "" when settled
  bool began_anew = false;  // a service was started since the last round: soaking begins again
  SteadyPoint wake_at = SteadyPoint::max();  // when something is due by itself
};

// Downloads come before anything is stopped, and what ran before is kept running meanwhile; a
// container that is as wanted is never touched; what is not wanted goes; services start in the
// order of their dependencies; crashed ones start again by their policy with growing pauses.
// `settled_since`: since when the previous rounds were settled; SteadyPoint() when they were not.
Plan make_plan(const World& world, std::map<std::string, Memory>& memory,
               SteadyPoint settled_since);

// True for a container that did its work: it ended with code 0 and is not to run for ever.
bool completes(const device::v1::Service& service, const Observed& container);

// How a run ended, from its exit code as container runtimes give it: 128 and the signal's number
// for a signal.
device::v1::Exit exit_from_code(int code);
// Who sends such a signal: the kernel to a program that broke a rule, and the program to itself
// when it gives up, or somebody else.
bool comes_from_outside(std::uint32_t signal);

// The check that holds for this container: the service's own, else the image's.
std::optional<device::v1::HealthCheck> check_of(const device::v1::Service& service,
                                                const Observed& container);
// Compose's rules: a failure counts once per interval and not within the start period; `retries`
// of them in a row make a service unhealthy, one success healthy. Until the first success probes
// come every second, so that a quick service is confirmed quickly.
void note_probe(Memory& memory, const device::v1::HealthCheck& check, bool good, SteadyPoint now);
void note_failure(Attempts& attempts, std::string code, std::string error, SteadyPoint now);
Duration probe_timeout(const device::v1::HealthCheck& check);

// Pauses between attempts: 1 s, 2 s, 4 s, ... at most a minute.
Duration retry_pause(int failures);

// The report without identifiers and times of sending.
ReportedState make_report(const World& world, const Plan& plan,
                          const std::map<std::string, Memory>& memory);

}  // namespace flock::agent

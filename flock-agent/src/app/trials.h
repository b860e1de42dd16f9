// SPDX-License-Identifier: Apache-2.0
// Private to this room: the release on trial, what this device goes back to when it cannot be kept,
// and the verdict on the last one that could not; on disk, so that neither kill nor reboot makes a
// device take a bad release up again.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "app/wishes.h"
#include "domain/trial.h"
#include "link/desired_store.h"

namespace flock::agent {

class Trials {
 public:
  struct Options {
    std::string data_dir, boot_id;
    TrialLimits limits;
    bool goes_back = true;  // false: a bad release is kept and tried again and again
  };
  explicit Trials(Options options);

  // Reads what was stored; damaged files are moved aside. `current` is what ran last.
  void load(const StatePtr& current, SteadyPoint now);

  // What this device is to run while `desired` is wanted: that, or what it went back to.
  StatePtr target(const StatePtr& desired) const;
  bool went_back_from(const DesiredState& desired) const;
  // What to go back to from a release of that version: what was confirmed last, or nothing.
  StatePtr fallback(std::int64_t version) const;
  // Before anything of `fresh` is started or stopped. False, with store_error(), when it cannot be
  // written down: a device that could not remember its trial would not find its way back.
  bool begin(const DesiredState& fresh, SteadyPoint now);
  const std::string& store_error() const { return store_error_; }
  // True once when `state` is to be taken back. `settled_since` as in judge().
  bool fails(const DesiredState& state, const Plan& plan, SteadyPoint settled_since,
             SteadyPoint now);
  // The same of what runs while its successor is downloaded.
  bool fails_meanwhile(const DesiredState& current, SteadyPoint now);
  // Its host command is under way, during which the machine may well be out of reach.
  void note_busy(SteadyPoint now) { trial_.watched = trial_.contact_at = now; }
  // `state` is not even begun, for its host command failed; `current` runs.
  void reject(const DesiredState& state, const StatePtr& current, Failure failure);
  // True when `state`, which has soaked, also proved its contact with the server.
  bool may_be_confirmed(const DesiredState& state, SteadyPoint settled_since) const;
  // From now on this is what the device goes back to. False when that cannot be written down yet;
  // then nothing that the device could go back to may be thrown away.
  bool confirm(const StatePtr& state);
  // Writes down a verdict that could not be written down before.
  void save_verdict();
  // Says in the report what became of `desired`. `report` is that of what it went back to.
  void describe(const DesiredState& desired, ReportedState& report) const;

  void note_contact(bool there, SteadyPoint now);
  // For a while nothing could be seen of what is on trial.
  void note_blindness(SteadyPoint now) { trial_.watched = now; }
  bool open() const { return trial_.version != 0; }
  // What must stay on the device's disk for the way back.
  const StatePtr& proven() const { return proven_; }

 private:
  struct Verdict {
    std::int64_t version = 0;  // 0: there is none
    std::int64_t back_to = 0;  // 0: to nothing
    std::int32_t attempt = 0;
    std::string rollout_id, fingerprint;
    Failure failure;
    TimePoint at{};
    bool written = false;
  };
  bool sentence(const DesiredState& state, std::optional<Failure> failure);
  void read(const std::string& text, SteadyPoint now);
  void save() const;

  Options options_;
  std::string path_;
  DesiredStore proven_store_;
  StatePtr proven_ = std::make_shared<const DesiredState>();
  mutable StatePtr nothing_;  // to run, of the version that was taken back
  Trial trial_;
  Verdict verdict_;
  Contact contact_;
  std::string store_error_;
};

}  // namespace flock::agent

// SPDX-License-Identifier: Apache-2.0
#include "app/trials.h"

#include <boost/json.hpp>
#include <cstdio>
#include <utility>

#include "app/config_hash.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "logs/lines.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

constexpr std::size_t kLongestError = 2'000;  // bytes of it on disk and in reports

// The clock that is never set counts from the machine's start.
std::int64_t ms_since_boot(SteadyPoint time) {
  return std::chrono::duration_cast<Duration>(time.time_since_epoch()).count();
}

std::string name_of(const DesiredState& state) {
  return state.release_version().empty() ? "what it ran before" : state.release_version();
}

// How the way back to `proven` goes, in words.
std::string way_back(const DesiredState& proven, const ReportedState& report) {
  if (proven.version() == 0) return "this device runs nothing again";
  switch (report.phase()) {
    case ReportedState::CONFIRMED:
    case ReportedState::SOAKING:
      return "this device runs " + name_of(proven) + " again";
    case ReportedState::FAILED:
      return "going back to " + name_of(proven) + " fails too: " + report.error();
    default:
      return "this device goes back to " + name_of(proven);
  }
}

}  // namespace

Trials::Trials(Options options)
    : options_(std::move(options)),
      path_(options_.data_dir + "/trial.json"),
      proven_store_(options_.data_dir + "/proven") {}

void Trials::load(const StatePtr& current, SteadyPoint now) {
  proven_ = std::make_shared<const DesiredState>(proven_store_.load());
  try {
    if (const auto text = read_file(path_)) read(*text, now);
  } catch (const Error& error) {
    log::error("the trial of a release cannot be read; it is moved aside", error,
               {{"file", path_}});
    std::rename(path_.c_str(), (path_ + ".corrupt").c_str());
    trial_ = {};
    verdict_ = {};
  }
  // It was confirmed when flockd was ended.
  if (open() && trial_.version == proven_->version()) trial_ = {};
  // Of a flockd that knew no trials, or the file is damaged: what ran last is the best that is
  // known.
  const bool is_tried =
      current->version() == trial_.version || current->version() == verdict_.version;
  if (proven_->version() == 0 && !is_tried) proven_ = current;
}

void Trials::read(const std::string& text, SteadyPoint now) {
  const bj::value value = json::parse(text);
  json::Reader in(value);
  if (const bj::object* given = in.optional_object("trial")) {
    const bj::value copy(*given);
    json::Reader trial(copy, "/trial", in);
    trial_.version = trial.integer("version", {});
    trial_.since = SteadyPoint(Duration(trial.integer("since_boot_ms", {})));
    trial_.had_contact = trial.optional_boolean("had_contact").value_or(false);
    trial_.settled = trial.optional_boolean("settled").value_or(false);
    trial_.boots = static_cast<int>(trial.integer("boots", {.max = 1'000'000}));
    trial_.watched = trial_.contact_at = now;
    if (trial.string("boot_id", {.min = 0, .max = 100}) != options_.boot_id) {
      ++trial_.boots;
      trial_.since = now;
    }
    trial.finish();
  }
  if (const bj::object* given = in.optional_object("verdict")) {
    const bj::value copy(*given);
    json::Reader verdict(copy, "/verdict", in);
    verdict_.version = verdict.integer("version", {});
    verdict_.back_to = verdict.integer("back_to", {});
    verdict_.rollout_id = verdict.string("rollout_id", {.min = 0});
    verdict_.attempt = static_cast<std::int32_t>(verdict.integer("attempt", {.max = INT32_MAX}));
    verdict_.fingerprint = verdict.string("fingerprint");
    verdict_.failure.code = verdict.string("code");
    verdict_.failure.error = verdict.string("error", {.min = 0, .max = 2 * kLongestError});
    verdict_.at = from_unix_ms(verdict.integer("at_ms", {}));
    verdict_.written = true;
    verdict.finish();
  }
  in.finish();
  if (open()) save();  // a start of the machine counts, whatever comes next
}

void Trials::save() const {
  bj::object out;
  if (open())
    out["trial"] = bj::object{{"version", trial_.version},
                              {"since_boot_ms", ms_since_boot(trial_.since)},
                              {"had_contact", trial_.had_contact},
                              {"settled", trial_.settled},
                              {"boots", trial_.boots},
                              {"boot_id", options_.boot_id}};
  if (verdict_.version != 0)
    out["verdict"] =
        bj::object{{"version", verdict_.version},         {"back_to", verdict_.back_to},
                   {"rollout_id", verdict_.rollout_id},   {"attempt", verdict_.attempt},
                   {"fingerprint", verdict_.fingerprint}, {"code", verdict_.failure.code},
                   {"error", verdict_.failure.error},     {"at_ms", to_unix_ms(verdict_.at)}};
  write_file_atomic(path_, bj::serialize(out));
}

bool Trials::went_back_from(const DesiredState& desired) const {
  if (verdict_.version == 0 || desired.version() == 0) return false;
  // What it went back to is lost: there is nothing better than what is wanted.
  if (verdict_.back_to != 0 && proven_->version() == 0) return false;
  if (verdict_.version == desired.version()) return true;
  // A newer version of the same, which nobody asked for again: a device does not take it up again
  // by itself.
  return verdict_.rollout_id == desired.rollout_id() && verdict_.attempt == desired.attempt() &&
         verdict_.fingerprint == fingerprint_of(desired);
}

StatePtr Trials::target(const StatePtr& desired) const {
  return went_back_from(*desired) ? fallback(desired->version()) : desired;
}

StatePtr Trials::fallback(std::int64_t version) const {
  if (proven_->version() != 0) return proven_;
  if (!nothing_ || nothing_->version() != version) {
    DesiredState nothing;
    nothing.set_version(version);
    nothing_ = std::make_shared<const DesiredState>(std::move(nothing));
  }
  return nothing_;
}

bool Trials::begin(const DesiredState& fresh, SteadyPoint now) {
  store_error_.clear();
  if (!options_.goes_back) return true;
  if (trial_.version == fresh.version()) {  // begun by its host command
    trial_.since = trial_.watched = trial_.contact_at = now;
    return true;
  }
  const Trial before = std::exchange(trial_, Trial());
  if (fingerprint_of(fresh) != fingerprint_of(*proven_) || proven_->version() == 0) {
    trial_.version = fresh.version();
    trial_.since = trial_.watched = trial_.contact_at = now;
    trial_.had_contact = contact_.there;
  }
  try {
    if (trial_.version != before.version) save();
    return true;
  } catch (const Error& error) {
    log::error("cannot store the trial of a release; it is not begun", error);
    store_error_ = error.describe();
    trial_ = before;
    return false;
  }
}

bool Trials::fails(const DesiredState& state, const Plan& plan, SteadyPoint settled_since,
                   SteadyPoint now) {
  if (!open() || trial_.version != state.version()) return false;
  const bool was_settled = trial_.settled;
  auto failure = judge(trial_, state, plan, contact_, settled_since, options_.limits, now);
  // Without a release before it, going on is better than nothing, but for one that cuts it off.
  if (failure && proven_->version() == 0 && failure->code != "lost_contact") failure.reset();
  if (sentence(state, std::move(failure))) return true;
  if (trial_.settled != was_settled) {
    try {
      save();
    } catch (const Error& error) {
      log::debug("cannot note that a release was healthy", error);
    }
  }
  return false;
}

bool Trials::fails_meanwhile(const DesiredState& current, SteadyPoint now) {
  if (!open() || trial_.version != current.version()) return false;
  return sentence(current, judge_contact(trial_, contact_, options_.limits, now));
}

bool Trials::sentence(const DesiredState& state, std::optional<Failure> failure) {
  if (!failure) return false;
  log::error("a release is taken back", {{"version", state.version()},
                                         {"release", state.release_version()},
                                         {"code", failure->code},
                                         {"error", failure->error},
                                         {"back_to", proven_->release_version()}});
  failure->error = clean_text(failure->error.substr(0, kLongestError));
  trial_ = {};
  verdict_ = {};
  verdict_.version = state.version();
  verdict_.back_to = proven_->version();
  verdict_.rollout_id = state.rollout_id();
  verdict_.attempt = state.attempt();
  verdict_.fingerprint = fingerprint_of(state);
  verdict_.failure = std::move(*failure);
  verdict_.at = system_clock().now();
  save_verdict();
  return true;
}

void Trials::reject(const DesiredState& state, const StatePtr& current, Failure failure) {
  // Nothing better is known than what runs.
  if (proven_->version() == 0) proven_ = current;
  sentence(state, std::move(failure));
}

void Trials::save_verdict() {
  if (verdict_.version == 0 || verdict_.written) return;
  try {
    save();
    verdict_.written = true;
  } catch (const Error& error) {
    log::warn("cannot write down that a release was taken back; trying again", error);
  }
}

bool Trials::may_be_confirmed(const DesiredState& state, SteadyPoint settled_since) const {
  return !open() || trial_.version != state.version() ||
         in_contact(trial_, contact_, settled_since);
}

bool Trials::confirm(const StatePtr& state) {
  if (proven_->version() == state->version()) return true;
  try {
    proven_store_.save(*state);
    proven_ = state;
    if (open()) {
      trial_ = {};
      save();
    }
    return true;
  } catch (const Error& error) {
    log::warn("cannot write down that a release is confirmed; trying again", error);
    return false;
  }
}

void Trials::describe(const DesiredState& desired, ReportedState& report) const {
  auto* back = report.mutable_rollback();
  back->set_release_id(proven_->release_id());
  back->set_release_version(proven_->release_version());
  back->set_phase(report.phase());
  back->set_at_ms(to_unix_ms(verdict_.at));
  report.set_error(verdict_.failure.error + "; " + way_back(*proven_, report));
  report.set_error_code(verdict_.failure.code);
  report.set_phase(ReportedState::FAILED);
  report.set_desired_version(desired.version());
  report.set_release_id(desired.release_id());
  report.set_rollout_id(desired.rollout_id());
}

void Trials::note_contact(bool there, SteadyPoint now) {
  contact_.there = there;
  if (there) contact_.heard = now;
}

}  // namespace flock::agent

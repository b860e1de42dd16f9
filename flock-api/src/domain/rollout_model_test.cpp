// SPDX-License-Identifier: Apache-2.0
// Random plans, fleets, failures, absences, operators, kills and clocks that jump, against what
// must always hold. FLOCK_SEED repeats a run; FLOCK_SCHEDULES says how many there are.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <set>

#include "base/error.h"
#include "domain/rollout_decide.h"

namespace flock::domain {
namespace {

enum class Part { kWaiting, kUpdating, kConfirmed, kFailed, kSuperseded };
enum class Way { kNone, kReturning, kReturned, kStuck };  // back

struct Device {
  Part part = Part::kWaiting;
  Way way = Way::kNone;
  bool online = true, bad = false, unhealthy = false;
  bool closed = false;  // its maintenance window
  int given = 0;        // how often it was given the release
  int tries = 0;        // how often it may have been given it, beside the first time
  std::size_t site = 0;
  std::int64_t began_ms = 0, settled_ms = 0, went_ms = 0;
  bool reached() const { return given > 0 && part != Part::kSuperseded; }
  bool is_at_work() const {
    return way == Way::kReturning || (way == Way::kNone && part == Part::kUpdating);
  }
};
constexpr std::size_t kSites = 3;

class World {
 public:
  explicit World(unsigned seed) : random_(seed) {
    plan_ = random_plan();
    devices_.resize(random_() % 40);
    const auto bad = random_() % 101;
    for (Device& device : devices_) {
      device.online = random_() % 8 != 0;
      device.bad = random_() % 100 < bad * (random_() % 2);
      device.site = random_() % kSites;
    }
    ends_ = stage_ends(plan_, static_cast<std::int64_t>(devices_.size()));
    progress_.state = plan_.approval             ? RolloutState::kAwaitingApproval
                      : plan_.start_at_ms > now_ ? RolloutState::kScheduled
                                                 : RolloutState::kRunning;
    progress_.opened_ms = now_;
  }

  void run() {
    for (int round = 0; round < 3000; ++round) {
      const bool calm = round > 300;  // then nothing new goes wrong, and operators want it to end
      live(calm);
      if (!calm && random_() % 40 == 0) operate();
      if (calm && progress_.state == RolloutState::kAwaitingApproval) give(Order::kApprove);
      if (calm && progress_.why.ends_with("an operator lets the next one begin"))
        give(Order::kAdvance);
      if (calm && progress_.state == RolloutState::kPaused)
        give(pauses_++ < 20 ? Order::kResume : Order::kAbort);
      step();
      check();
      if (::testing::Test::HasFailure()) return;
      if (has_ended(progress_.state) && calm) break;
    }
    EXPECT_TRUE(has_ended(progress_.state)) << progress_.why;
    check_end();
  }

 private:
  RolloutPlan random_plan() {
    RolloutPlan plan;
    plan.stages.clear();
    double share = 0;
    for (auto more = random_() % 4; more > 0; --more) {
      share += 0.01 + static_cast<double>(random_() % 25) / 100;
      plan.stages.push_back({.share = share,
                             .soak = Duration(static_cast<std::int64_t>(random_() % 60'000)),
                             .by_hand = random_() % 5 == 0});
    }
    plan.stages.push_back({});
    for (int signal = 0; signal < 6; ++signal) {
      if (random_() % 3 != 0) continue;
      plan.gates.push_back({static_cast<Signal>(signal), static_cast<double>(random_() % 101) / 100,
                            static_cast<std::int64_t>(1 + random_() % 5),
                            static_cast<std::int64_t>(1 + random_() % 3), random_() % 5 == 0});
    }
    if (random_() % 3 == 0) {
      plan.gates.push_back({.in_a_row = static_cast<std::int64_t>(1 + random_() % 3),
                            .dry_run = random_() % 5 == 0,
                            .kind = GateKind::kWebhook,
                            .url = "https://check.example.com"});
    }
    if (random_() % 2 == 0) plan.limits.updating = static_cast<std::int64_t>(1 + random_() % 5);
    if (random_() % 4 == 0) plan.limits.per_minute = static_cast<std::int64_t>(1 + random_() % 8);
    if (random_() % 3 == 0)
      plan.limits.down = {"site", static_cast<std::int64_t>(1 + random_() % 4)};
    if (random_() % 4 == 0) plan.windows.push_back({.from = 60, .to = 120});
    if (random_() % 4 == 0)
      plan.retries = {static_cast<std::int64_t>(1 + random_() % 3),
                      Duration(static_cast<std::int64_t>(random_() % 100'000))};
    plan.on_failure = static_cast<OnFailure>(random_() % 3);
    plan.max_failed_ratio = static_cast<double>(random_() % 101) / 100;
    plan.offline_patience = Duration(static_cast<std::int64_t>(random_() % 600'000));
    plan.approval = random_() % 10 == 0;
    if (random_() % 10 == 0)
      plan.start_at_ms = now_ + static_cast<std::int64_t>(random_() % 90'000);
    EXPECT_TRUE(faults_of(plan).empty());
    return plan;
  }

  // What devices and newer deployments do by themselves, and the clock.
  void live(bool calm) {
    now_ += static_cast<std::int64_t>(random_() % 5000);
    if (!calm && random_() % 100 == 0)
      now_ += static_cast<std::int64_t>(random_() % 200'000) - 100'000;
    if (random_() % 4 == 0) {  // somebody looks elsewhere; perhaps he is away for long
      const GateResult result = calm ? GateResult::kPass : static_cast<GateResult>(random_() % 3);
      check_ = {.at_ms = now_, .sample = 1, .verdict = result, .reason = "it said so"};
    }
    for (Device& device : devices_) {
      if (random_() % 20 == 0) device.online = !device.online && (calm || random_() % 2 == 0);
      if (device.online) device.went_ms = now_;
      if (!plan_.windows.empty() && random_() % 50 == 0)
        device.closed = !device.closed && (calm || random_() % 2 == 0);
      if (calm && device.bad && random_() % 4 == 0) device.bad = false;
      if (!calm && random_() % 2000 == 0 && device.way == Way::kNone)
        device.part = Part::kSuperseded;
      if (!device.online || random_() % 3 != 0) continue;
      if (device.way == Way::kReturning) {
        device.way = device.bad && random_() % 4 == 0 ? Way::kStuck : Way::kReturned;
      } else if (device.part == Part::kUpdating) {
        device.part = device.bad ? Part::kFailed : Part::kConfirmed;
        device.settled_ms = now_;
      } else if (device.part == Part::kConfirmed) {
        device.unhealthy = device.bad && random_() % 2 == 0;
      }
    }
  }

  RolloutSeen see() {
    RolloutSeen seen;
    seen.now_ms = now_;
    seen.ends = ends_;
    StageCounts& c = seen.counts;
    const std::int64_t end = ends_.at(static_cast<std::size_t>(progress_.stage));
    const std::int64_t start =
        progress_.stage == 0 ? 0 : ends_.at(static_cast<std::size_t>(progress_.stage) - 1);
    c.total = static_cast<std::int64_t>(devices_.size());
    for (std::int64_t i = 0; i < c.total; ++i) {
      const Device& device = devices_[static_cast<std::size_t>(i)];
      const bool in_stage = i >= start && i < end;
      const bool lately = device.settled_ms > now_ - 600'000;
      c.superseded += device.part == Part::kSuperseded;
      if (device.part == Part::kWaiting && i < end)
        ++(device.closed ? c.waiting_closed : device.online ? c.waiting_online : c.waiting_offline);
      if (device.part == Part::kFailed && device.tries < plan_.retries.times)
        ++(is_time_to_retry(device) ? c.to_retry : c.retry_later);
      if (device.part == Part::kUpdating) ++(device.online ? c.updating : c.offline);
      c.confirmed += device.part == Part::kConfirmed;
      c.failed += device.part == Part::kFailed;
      c.confirmed_lately += device.part == Part::kConfirmed && lately;
      c.failed_lately += device.part == Part::kFailed && lately;
      const bool open = device.part == Part::kWaiting || device.part == Part::kUpdating;
      c.stage_settled +=
          in_stage && (device.part == Part::kConfirmed || device.part == Part::kFailed);
      c.stage_away += in_stage && open && !device.online;
      if (!device.reached()) continue;
      c.began_lately += device.began_ms > now_ - 60'000;
      c.online += device.online;
      c.unhealthy += device.part == Part::kConfirmed && device.unhealthy;
      if (!progress_.returning) continue;
      c.to_return += device.way == Way::kNone;
      if (device.way == Way::kReturning) ++(device.online ? c.returning : c.returning_offline);
      c.returned += device.way == Way::kReturned;
      c.stuck += device.way == Way::kStuck;
    }
    if (plan_.limits.down.any()) {
      std::int64_t& all = progress_.returning ? c.to_return : c.waiting_online;
      const auto free = static_cast<std::int64_t>(free_to_begin().size());
      (progress_.returning ? c.return_held : c.waiting_held) = all - free;
      all = free;
    }
    for (std::size_t i = 0; i < plan_.gates.size(); ++i) {
      const Gate& gate = plan_.gates[i];
      seen.gates.push_back(gate.is_elsewhere()
                               ? look(gate, check_, progress_.accepted_ms, gates_[i], now_)
                               : look(gate, c, progress_.forgiven, gates_[i], now_));
    }
    return seen;
  }

  // --- The limit of devices that are down, as the scheduler's statements keep to it
  bool is_down(const Device& device) const {
    if (device.part == Part::kSuperseded) return false;
    const std::int64_t away = now_ - device.went_ms;
    return (device.is_at_work() && (device.online || away < plan_.offline_patience.count())) ||
           (!patience_is_over(plan_, progress_, now_) && (!device.online || device.unhealthy));
  }
  std::vector<std::int64_t> down_by_site() const {
    std::vector<std::int64_t> down(kSites, 0);
    for (const Device& device : devices_) down[device.site] += is_down(device);
    return down;
  }
  bool may_begin(std::size_t i) const {
    const Device& device = devices_[i];
    if (progress_.returning) return device.reached() && device.way == Way::kNone;
    return device.part == Part::kWaiting && !device.closed &&
           (device.online || !plan_.only_online()) &&
           static_cast<std::int64_t>(i) < ends_.at(static_cast<std::size_t>(progress_.stage));
  }
  // On the way back only those that are there and well wait for others.
  bool goes_at_once(const Device& device) const {
    return progress_.returning &&
           (device.part != Part::kConfirmed || !device.online || device.unhealthy);
  }
  // Those that may begin, or be taken back, in their order.
  std::vector<Device*> free_to_begin() {
    const std::int64_t limit = plan_.limits.down.any() ? plan_.limits.down.count : INT64_MAX;
    std::vector<std::int64_t> down = down_by_site();
    for (std::size_t i = 0; i < devices_.size(); ++i)
      down[devices_[i].site] += may_begin(i) && goes_at_once(devices_[i]) && !is_down(devices_[i]);
    std::vector<Device*> out;
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      Device& device = devices_[i];
      if (may_begin(i) && (goes_at_once(device) || ++down[device.site] <= limit))
        out.push_back(&device);
    }
    return out;
  }
  // `begin` for `count` of them. Of a site that it took somebody of who was up, no more are down
  // then than may be.
  template <class Begin>
  void begin_with(std::int64_t count, Begin begin) {
    std::set<std::size_t> sites;
    for (Device* device : free_to_begin()) {
      if (count-- == 0) break;
      if (!goes_at_once(*device)) sites.insert(device->site);
      begin(*device);
    }
    EXPECT_LE(count, 0) << "more than there are";
    if (!plan_.limits.down.any()) return;
    const std::vector<std::int64_t> down = down_by_site();
    for (const std::size_t site : sites)
      EXPECT_LE(down[site], plan_.limits.down.count) << "site " << site;
  }

  // What the scheduler does in one transaction. A kill before its end changes nothing.
  void step() {
    gates_.resize(plan_.gates.size());
    const RolloutSeen seen = see();
    const Decision decision = decide(plan_, progress_, seen);
    if (random_() % 20 == 0) return;
    if (decision.step == Step::kLetGo) let_go(decision.count, seen);
    if (decision.step == Step::kRetry) retry(decision.count);
    if (decision.step == Step::kReturn) take_back(decision.count);
    gates_ = seen.gates;
    progress_ = carry_out(progress_, decision, seen);
    if (decision.step == Step::kEnd && decision.end == RolloutState::kCompleted)
      EXPECT_EQ(seen.counts.updating + seen.counts.waiting_held, 0);
    if (!has_ended(progress_.state)) EXPECT_FALSE(progress_.why.empty());
  }

  void let_go(std::int64_t count, const RolloutSeen& seen) {
    EXPECT_FALSE(progress_.returning);
    begin_with(count, [this](Device& device) {
      device.part = Part::kUpdating;
      device.began_ms = now_;
      ++device.given;
    });
    std::int64_t updating = 0;
    for (const Device& device : devices_)
      updating += device.part == Part::kUpdating && device.online;
    if (plan_.limits.updating > 0)
      EXPECT_LE(updating, std::max(plan_.limits.updating, seen.counts.updating));
  }

  bool is_time_to_retry(const Device& device) const {
    return now_ - device.settled_ms >= plan_.retries.after.count();
  }
  void retry(std::int64_t count) {
    EXPECT_FALSE(progress_.returning);
    for (Device& device : devices_) {
      if (device.part != Part::kFailed || device.tries >= plan_.retries.times ||
          !is_time_to_retry(device))
        continue;
      try_again(device);
      --count;
    }
    EXPECT_EQ(count, 0);
  }
  static void try_again(Device& device) {
    device.part = Part::kWaiting;
    ++device.tries;
  }

  void take_back(std::int64_t count) {
    EXPECT_TRUE(progress_.returning);
    begin_with(count, [](Device& device) { device.way = Way::kReturning; });
  }

  void operate() { give(static_cast<Order>(random_() % 9)); }
  void give(Order order) {
    const RolloutSeen seen = (gates_.resize(plan_.gates.size()), see());
    try {
      progress_ = obey(progress_, order, seen.counts, now_);
      if (order != Order::kRetry) return;
      for (Device& device : devices_)
        if (device.part == Part::kFailed) try_again(device);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::kConflict);
    }
  }

  void check() {
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      const Device& device = devices_[i];
      EXPECT_LE(device.given, 1 + device.tries) << "a release was given again by itself";
      if (device.given > 0)
        EXPECT_LT(static_cast<std::int64_t>(i), ends_.at(static_cast<std::size_t>(progress_.stage)))
            << "a device of a later stage was touched";
    }
  }

  void check_end() {
    for (const Device& device : devices_) {
      if (progress_.state == RolloutState::kRolledBack && device.reached())
        EXPECT_NE(device.way, Way::kNone) << "a touched device was left";
      if (progress_.state == RolloutState::kCompleted) EXPECT_EQ(device.way, Way::kNone);
    }
  }

  std::mt19937 random_;
  std::int64_t now_ = 1'700'000'000'000;
  RolloutPlan plan_;
  RolloutProgress progress_;
  std::vector<Device> devices_;
  std::vector<std::int64_t> ends_;
  std::vector<GateView> gates_;
  Check check_;
  int pauses_ = 0;
};

long number_of(const char* name, long fallback) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtol(text, nullptr, 10) : fallback;
}

TEST(RolloutModel, HoldsWhatItMustInEverySchedule) {
  const auto first = static_cast<unsigned>(number_of("FLOCK_SEED", std::random_device()()));
  const long schedules = number_of("FLOCK_SCHEDULES", 10'000);
  for (long i = 0; i < schedules; ++i) {
    const unsigned seed = first + static_cast<unsigned>(i);
    SCOPED_TRACE("FLOCK_SEED=" + std::to_string(seed) + " FLOCK_SCHEDULES=1");
    World(seed).run();
    ASSERT_FALSE(::testing::Test::HasFailure());
  }
  RecordProperty("schedules", static_cast<int>(schedules));
  std::printf("%ld schedules from FLOCK_SEED=%u\n", schedules, first);
}

}  // namespace
}  // namespace flock::domain

// SPDX-License-Identifier: Apache-2.0
// Whether updated devices do worse than those that are not updated yet: a test that may be looked
// at after every device and still raises a false alarm with a stated probability only.
//
// It bets, one updated device against some others at a time. With y, x_i in {0, 1} (1: the device
// is bad), theta an estimate of the others' rate from the past, and a stake u >= 0, a bet returns
//   (1 + u (y - theta - tolerance)) * product over the r others of (1 - u/r (x_i - theta))
// of what was staked. Its expectation is at most exp(u (p - q - tolerance)), because 1 + a <= e^a,
// so at most 1 while the rate p of the updated is no more than q + tolerance. Capital that can only
// shrink on average gets to 1/alpha with a probability of at most alpha, however often and whenever
// one looks (Ville's inequality). No approximation, and no assumption about either rate. Sources:
// Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, J. R. Stat.
// Soc. B 86 (2024); Turner, Ly and Gruenwald, Generic E-variables for exact sequential k-sample
// tests that allow for optional stopping, J. Stat. Plan. Inference 230 (2024); Johari, Koomen,
// Pekelis and Walsh, Always valid inference, Operations Research 70 (2022).
#pragma once

#include <array>
#include <cstdint>

namespace flock::domain {

// How much worse the bets expect the updated devices to be, as shares of those that are left good;
// the capital is divided among them, so that both a flood and a trickle are noticed.
inline constexpr std::array kEffects{0.05, 0.1, 0.25, 0.6};
// More others for one updated device say little more.
inline constexpr std::int64_t kOthersForEach = 8;
// Others that are looked at before the first bet, to know what is usual.
inline constexpr std::int64_t kOthersToLearn = 50;

struct Evidence {
  std::int64_t updated = 0, updated_bad = 0;  // devices, each counted once
  std::int64_t others = 0, others_bad = 0;
  std::array<double, kEffects.size()> capital{};  // logarithms; begun with 1 each
  double most = 0;                                // the logarithm of the most there ever was of all
};

// Others alone: nothing is bet on them.
void learn(Evidence& evidence, std::int64_t others, std::int64_t others_bad);
// One updated device and others (at least one; else nothing is done). Devices must come in an order
// that does not depend on how they do. `tolerance`: how much worse the updated may be, 0 to 0.5.
void bet(Evidence& evidence, bool bad, std::int64_t others, std::int64_t others_bad,
         double tolerance);
// The probability of an alarm at least this loud if the updated devices do no worse: valid at every
// time that one looks.
double p_value(const Evidence& evidence);

}  // namespace flock::domain

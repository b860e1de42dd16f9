// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "faults/ledger.h"

namespace flock::faults {

// One row of the table. Servers are started and stopped on a thread, so that devices go on.
struct Case {
  std::string name;
  // What is done to the stack; blocks. Devices have spoken for a while when it begins.
  std::function<void()> begin, end;
  Duration lasts{0};
  FleetOptions fleet = {};
  // What goes on beside the devices, from begin to end.
  std::function<Task<void>(Fleet&)> beside = {};
  bool kills_broker = false;
  bool drops_lines = false;  // policy may drop lines: gaps tell which
  // After everything arrived: what else must hold. Adds to the faults what does not; answers a
  // remark for the table.
  std::function<Task<std::string>(Fleet&, std::string& faults)> check = {};
};

struct Suite {
  Stack& stack;
  postgres::Database& db;
  Ledger& ledger;
  Duration lasts;  // of a server's fault
  FleetOptions usual;
  int failed = 0;

  static void print_header(const Suite& suite);
  // Runs it and prints its row.
  Task<void> run(Case one);
  bool is_short() const { return lasts < Duration(10'000); }

 private:
  Task<void> run(const Case& one, Fleet& devices);
  Task<Duration> recovery(Fleet& fleet, int rounds);
  void print(const Case& one, const Fleet& fleet, const Counts& counts, Duration recovery,
             const std::string& remark);
};

}  // namespace flock::faults

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "faults/fleet.h"
#include "net/http_client.h"
#include "stores/live_state/live_state.h"

namespace flock::faults {

// What became of all that a fleet said.
struct Counts {
  std::int64_t sent = 0;            // numbered messages: commands, history, telemetry, lines
  std::int64_t received = 0;        // each once
  std::int64_t gaps = 0;            // lines that are told as missing
  std::int64_t lost = 0;            // neither received nor told as missing
  std::int64_t unsent = 0;          // still kept by its device
  std::int64_t lost_by_broker = 0;  // had the acknowledgement of a broker that was killed
  std::int64_t repeated = 0;        // told on the internal bus more than once
  std::int64_t untold = 0;          // results of commands that are stored and were not told
  int wrong_reports = 0;            // devices whose newest report is not stored, or was not told
  int offline = 0;                  // turns to offline: no device ever left
  std::string faults;               // the first of what is wrong, for people
};

// Asks the stores, as a reader would.
class Ledger {
 public:
  Ledger(Executor executor, const Stack& stack, postgres::Database& db);
  // How many of the messages of the first `rounds` have arrived. Throws kUnavailable, kTimeout.
  Task<std::int64_t> arrived(Fleet& fleet, int rounds);
  static std::int64_t expected(const Fleet& fleet, int rounds);
  // `broker_back`: when a killed broker was started again; the beginning of time: it was not.
  Task<Counts> count(Fleet& fleet, SteadyPoint broker_back);
  // The numbers in the first row of the answer to `sql` about the time series.
  Task<std::vector<std::int64_t>> ask(std::string sql);

 private:
  struct Found;
  Task<void> find_rows(const Fleet& fleet, std::map<std::string, Found>& found);
  Task<void> check_reports(Fleet& fleet, Counts& counts);

  const Stack& stack_;
  postgres::Database& db_;
  std::unique_ptr<stores::TimeSeries> series_;
  std::unique_ptr<stores::LiveState> live_;
  net::HttpClient http_;
};

}  // namespace flock::faults

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "async/loop.h"
#include "base/error.h"
#include "domain/uplink.h"
#include "faults/cases.h"

namespace flock::faults {
namespace {

constexpr Duration kYear{365LL * 86'400'000};
constexpr int kBatchLines = 5000;  // of a flood
// Long enough for a flood to be over its budget for a while.
constexpr Duration kLongest{20'000};

SteadyPoint now() { return std::chrono::steady_clock::now(); }

Case case_of(const Suite& suite, std::string name) {
  Case one;
  one.name = std::move(name);
  one.lasts = std::min(suite.lasts, kLongest);
  one.fleet = suite.usual;
  return one;
}

Case scrambled(const Suite& suite) {
  Case one = case_of(suite, "everything twice and out of order");
  one.fleet.device.scrambled = true;
  return one;
}

// Every other device has a wrong clock from begin to end, and then the right one again.
Case wrong_clock(const Suite& suite, const char* name, Duration off) {
  Case one = case_of(suite, name);
  const Duration lasts = one.lasts;
  one.beside = [off, lasts](Fleet& fleet) -> Task<void> {
    const auto set = [&fleet](Duration to) {
      for (std::size_t i = 0; i < fleet.devices().size(); i += 2)
        fleet.devices()[i]->restart_with_clock(to);
    };
    set(off);
    co_await sleep_for(lasts);
    set(Duration(0));
  };
  return one;
}

// --- What cannot be read
// ----------------------------------------------------------------------------------

Task<std::int64_t> quarantined(Pair ingesters) {
  constexpr std::string_view kName = "\nflock_ingest_quarantined_total ";
  net::HttpClient http(co_await asio::this_coro::executor, {});
  std::int64_t sum = 0;
  for (const Program* ingester : {&ingesters.a, &ingesters.b}) {
    const std::string text = (co_await http.get(ingester->admin() + "/metrics")).body;
    const std::size_t at = text.find(kName);
    if (at == std::string::npos) throw Error(Code::kInternal, "no such metric");
    sum += static_cast<std::int64_t>(std::stod(text.substr(at + kName.size())));
  }
  co_return sum;
}

// Truncated, of another kind, too large, over a limit. Some of a later version, which are none of
// these. Answers how many are bad.
Task<int> send_bad(Device& device) {
  device::v1::DeviceEvent later;
  later.set_seq(1);
  later.set_kind(static_cast<device::v1::DeviceEvent::Kind>(4711));
  std::string unknown_field = later.SerializeAsString();
  unknown_field += "\xc2\x3e\x03new";  // field 1000, a string
  co_await device.send("events", std::move(unknown_field));
  device::v1::LogBatch lines;
  lines.add_streams()->add_lines()->set_text(std::string(70'000, 'x'));
  lines.mutable_streams(0)->mutable_lines(0)->set_number(1);
  int bad = 0;
  for (const char* leaf : {"state", "events", "telemetry", "logs"}) {
    for (const std::string& payload : {std::string("\x0a\x24"
                                                   "cut"),
                                       std::string("\xff\xff"), std::string(300 * 1024, 'x')}) {
      co_await device.send(leaf, payload);
      ++bad;
    }
  }
  co_await device.send("logs", lines.SerializeAsString());
  co_return bad + 1;
}

Case unreadable(const Suite& suite, Pair ingesters) {
  struct Seen {
    std::int64_t before = 0;
    int sent = 0;
  };
  const auto seen = std::make_shared<Seen>();
  Case one = case_of(suite, "payloads that are cut, foreign, too large");
  const Duration lasts = one.lasts;
  one.beside = [seen, lasts, ingesters](Fleet& fleet) -> Task<void> {
    seen->before = co_await quarantined(ingesters);
    const auto device = co_await fleet.another();
    for (const SteadyPoint end = now() + lasts; now() < end;) {
      seen->sent += co_await send_bad(*device);
      co_await sleep_for(Duration(50));
    }
    co_await device->close();
  };
  one.check = [seen, ingesters](Fleet&, std::string& faults) -> Task<std::string> {
    const std::int64_t aside = co_await quarantined(ingesters) - seen->before;
    if (aside != seen->sent)
      faults += std::to_string(aside) + " of " + std::to_string(seen->sent) + " bad ones put aside";
    co_return "all " + std::to_string(seen->sent) + " bad ones were put aside";
  };
  return one;
}

// --- A flood
// ----------------------------------------------------------------------------------------------

struct Flood {
  std::string device;
  std::int64_t lines = 0, before = 0;  // sent; by devices' rounds when it began
  double seconds = 0;
};

Task<void> send_flood(Fleet& fleet, Flood& flood, Duration lasts, double per_second) {
  const auto device = co_await fleet.another();
  flood.device = device->id();
  flood.before = fleet.rounds();
  TaskScope sending(co_await asio::this_coro::executor);
  const SteadyPoint begin = now();
  const auto due = [&] {
    return begin + std::chrono::microseconds(static_cast<std::int64_t>(
                       1e6 * static_cast<double>(flood.lines) / per_second));
  };
  while (now() < begin + lasts) {
    device::v1::LogBatch batch;
    auto* stream = batch.add_streams();
    stream->set_service("flood");
    stream->set_epoch(1);
    for (int i = 0; i < kBatchLines; ++i) {
      auto* line = stream->add_lines();
      line->set_number(++flood.lines);
      line->set_at_ms(to_unix_ms(system_clock().now()));
      line->set_text("x");
    }
    while (sending.size() > 8) co_await sleep_for(Duration(5));
    sending.spawn("flood", device->send("logs", batch.SerializeAsString()));
    if (due() > now()) co_await sleep_for(std::chrono::ceil<Duration>(due() - now()));
  }
  co_await sending.join();
  flood.seconds = std::chrono::duration<double>(now() - begin).count();
  co_await device->close();
}

// From a device's word to the backend's: the 99th of 100, in ms, over rounds from..to.
double slow_one(Fleet& fleet, std::int64_t from, std::int64_t to) {
  std::vector<double> times;
  for (const auto& device : fleet.devices()) {
    for (const auto& [number, at] : fleet.ears.of(device->id()).first) {
      if (number < from || number >= to) continue;
      times.push_back(std::chrono::duration<double, std::milli>(at - device->said(number)).count());
    }
  }
  std::ranges::sort(times);
  return times.empty() ? 0 : times[times.size() * 99 / 100];
}

Case flooding(const Suite& suite) {
  const auto flood = std::make_shared<Flood>();
  Case one = case_of(suite, "one device floods with 100 times its limit");
  const Duration lasts = one.lasts;
  one.beside = [flood, lasts](Fleet& fleet) {
    return send_flood(fleet, *flood, lasts, 100 * domain::Budget::kPerSecond);
  };
  Ledger& ledger = suite.ledger;
  one.check = [flood, &ledger](Fleet& fleet, std::string& faults) -> Task<std::string> {
    const std::string of =
        " FROM (SELECT number, gap, any(count) AS count FROM logs WHERE org = '" + fleet.org +
        "' AND device = '" + flood->device + "' GROUP BY number, gap)";
    const auto sums = co_await ledger.ask(
        "SELECT toInt64(sumIf(count, gap = 0)), toInt64(sumIf("
        "count, gap != 0))" +
        of);
    if (sums.at(0) + sums.at(1) != flood->lines)
      faults += "of " + std::to_string(flood->lines) + " lines of the flood " +
                std::to_string(sums[0]) + " arrived and " + std::to_string(sums[1]) + " are gaps";
    char text[200];
    std::snprintf(text, sizeof text,
                  "%.0f lines a second: %lld stored, %lld in gaps; p99 of the others %.0f ms, "
                  "before it %.0f ms",
                  static_cast<double>(flood->lines) / flood->seconds,
                  static_cast<long long>(sums[0]), static_cast<long long>(sums[1]),
                  slow_one(fleet, flood->before, fleet.rounds()),
                  slow_one(fleet, 1, flood->before));
    co_return text;
  };
  return one;
}

}  // namespace

std::vector<Case> bad_input(const Suite& suite, Pair ingesters) {
  std::vector<Case> cases;
  cases.push_back(scrambled(suite));
  cases.push_back(wrong_clock(suite, "clock a year ahead, then right again", kYear));
  cases.push_back(wrong_clock(suite, "clock a year behind, then right again", -kYear));
  cases.push_back(unreadable(suite, ingesters));
  cases.push_back(flooding(suite));
  return cases;
}

}  // namespace flock::faults

// SPDX-License-Identifier: Apache-2.0
#include "scale_watch.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cstdio>

#include "base/error.h"
#include "keep_alive.h"
#include "net/http_client.h"
#include "scale_crowd.h"

namespace flock::bench {
namespace {

constexpr Duration kBetweenProbes{20}, kLook{1}, kProbeTime{10'000};

SteadyPoint steady_now() { return std::chrono::steady_clock::now(); }
double ms_since(SteadyPoint at) {
  return std::chrono::duration<double, std::milli>(steady_now() - at).count();
}

}  // namespace

double Latencies::at(double share) {
  if (ms_.empty()) return 0;
  const auto index = static_cast<std::size_t>(share * static_cast<double>(ms_.size() - 1));
  std::ranges::nth_element(ms_, ms_.begin() + static_cast<std::ptrdiff_t>(index));
  return ms_[index];
}

Watch::Watch(WatchOptions options)
    : options_(std::move(options)),
      seq_(to_unix_ms(system_clock().now())),
      store_(stores::make_valkey_live_state(loop_.executor(), options_.live_address,
                                            options_.live_password)),
      link_(loop_.executor(), options_.link),
      scope_(loop_.executor()),
      stopping_(loop_.executor()),
      thread_([this] { loop_.run(live()); }) {}

Watch::~Watch() {
  asio::post(loop_.executor(), [this] { stopping_.set(); });
  thread_.join();
}

Seen Watch::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(seen_, {});
}

Task<void> Watch::live() {
  scope_.spawn("link", link_.run());
  scope_.spawn("stream", follow());
  scope_.spawn("probe", probe());
  co_await stopping_.wait();
  scope_.cancel();
  co_await scope_.join();
}

Task<void> Watch::follow() {
  net::HttpClient http(loop_.executor(), {});
  net::Headers headers;
  headers.add("Authorization", "Bearer " + options_.token);
  net::SseParser parser;
  const auto take = [&](std::string_view chunk) -> Task<void> {
    follows_ = true;
    const auto events = parser.feed(chunk);
    const std::int64_t now = steady_now().time_since_epoch().count();
    const std::lock_guard lock(mutex_);
    for (const net::SseEvent& event : events) {
      if (event.event == "gap") ++seen_.gaps;
      const std::int64_t sent = event.event == "device.state_changed" ? time_in(event.data) : 0;
      if (sent <= 0) continue;
      lag_ms_ = static_cast<double>(now - sent) / 1e6;
      seen_.events.add(lag_ms_);
    }
    co_return;
  };
  co_await http.stream("GET", options_.api_url + "/v1/events?topics=devices", headers, "", take);
  std::fprintf(stderr, "the stream of events has ended\n");
}

Task<void> Watch::probe() {
  co_await link_.wait_connected();
  for (std::size_t i = 0;; ++i) {
    co_await probe_one(options_.probes[i % options_.probes.size()]);
    co_await sleep_for(kBetweenProbes);
  }
}

Task<void> Watch::probe_one(const std::string& id) {
  const SteadyPoint began = steady_now();
  device::v1::ReportedState report = keep_alive(id);
  report.set_seq(++seq_);
  report.set_at_ms(to_unix_ms(system_clock().now()));
  report.set_error(time_mark(began));
  mqtt::Message message;
  message.topic = "devices/" + id + "/state";
  message.payload = report.SerializeAsString();
  scope_.spawn("publish", link_.publish(std::move(message)));
  bool shown = false;
  std::vector<DeviceId> ids{DeviceId::trusted(id)};
  while (!shown && ms_since(began) < static_cast<double>(kProbeTime.count())) {
    const auto values = co_await store_->get_reported(ids);
    shown = report.ParseFromString(values.at(0).value_or("")) && report.seq() >= seq_;
    if (!shown) co_await sleep_for(kLook);
  }
  const std::lock_guard lock(mutex_);
  if (shown)
    seen_.live.add(ms_since(began));
  else
    ++seen_.late_probes;
}

}  // namespace flock::bench

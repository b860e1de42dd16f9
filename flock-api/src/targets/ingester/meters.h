// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/time.h"
#include "metrics/metrics.h"

namespace flock::targets::ingester {

// What one lane counts about itself; `kind` is state, telemetry, logs or history.
struct Meters {
  explicit Meters(const std::string& kind)
      : stored(messages(kind, "stored")),
        spooled(messages(kind, "spooled")),
        refused(messages(kind, "refused")),
        batch("flock_ingest_batch_size", "Messages that one round of an ingester takes together.",
              {{"kind", kind}}, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}),
        duration("flock_ingest_batch_duration_seconds",
                 "From taking a batch until its effect is durable.", {{"kind", kind}}),
        spool_bytes("flock_ingest_spool_bytes",
                    "What waits on the ingester's disk for the time series.", {{"kind", kind}}),
        dropped("flock_ingest_spool_dropped_total",
                "Messages that were dropped because the spool was full.", {{"kind", kind}}) {}

  void took(std::size_t count, SteadyPoint began) {
    batch.observe(static_cast<double>(count));
    duration.observe(seconds_since(began));
  }
  static double seconds_since(SteadyPoint began) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }

  metrics::Counter stored, spooled, refused;
  metrics::Histogram batch, duration;
  metrics::Gauge spool_bytes;
  metrics::Counter dropped;

 private:
  static metrics::Counter messages(const std::string& kind, const std::string& result) {
    return {"flock_device_messages_total",
            "Messages of devices, by what became of them.",
            {{"kind", kind}, {"result", result}}};
  }
};

inline metrics::Histogram store_writes(const std::string& store) {
  return {"flock_store_write_duration_seconds",
          "How long a store took for a batch.",
          {{"store", store}}};
}

}  // namespace flock::targets::ingester

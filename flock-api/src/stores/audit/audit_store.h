// SPDX-License-Identifier: Apache-2.0
// Who did what, append-only, one hash chain for each organization. Implemented by a folder of files
// and by Loki behind a spool; both pass the same tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "audit/chain.h"
#include "base/id.h"
#include "base/time.h"

namespace flock::stores {

struct AuditFilter {
  std::optional<TimePoint> from, to;  // of the event's own time; `to` is not part of it
  std::string actor, action, resource_type, resource_id;  // ids; "": any
  std::optional<audit::Outcome> outcome;
};
bool matches(const AuditFilter& filter, const audit::Event& event);

struct AuditPage {
  std::vector<std::string> lines;
  std::string next;  // for the page after; "": this was the last. A page may be short or empty.
};

// Readers may be many and need no open(). Away or full is kUnavailable.
class AuditStore {
 public:
  virtual ~AuditStore() = default;
  // Becomes the one writer; kUnavailable while another process is.
  virtual Task<void> open() = 0;
  // Chains the events in their order, those left out that are there already (by Event::key()).
  // Durable when it returns; after a failure some may be, and the same call again adds the rest.
  // Only after open(), one at a time. Readers may see it later.
  virtual Task<void> append(std::vector<audit::Event> events) = 0;
  // The end of the chain as readers see it; seq 0 when there is none.
  virtual Task<audit::Head> head(OrgId org) = 0;
  // Newest first. `before`: AuditPage::next, or "". Throws kInvalidArgument for another text.
  virtual Task<AuditPage> page(OrgId org, AuditFilter filter, std::string before,
                               std::size_t limit) = 0;
  // Every line from `from_seq` on in the chain's order, until `visit` returns false.
  using Visit = std::function<Task<bool>(const std::string& line)>;
  virtual Task<void> walk(OrgId org, std::int64_t from_seq, Visit visit) = 0;
  // The writer's background work, until cancelled.
  virtual Task<void> run() = 0;
};

std::unique_ptr<AuditStore> make_file_audit_store(std::string directory,
                                                  std::size_t segment_bytes = 8 << 20);

struct LokiOptions {
  std::string url;              // http://loki:3100
  std::string unix_path;        // set: connects there
  std::string tenant;           // X-Scope-OrgID
  std::string token_file;       // bearer token, read for every request
  std::string spool_directory;  // of the writer
  std::int64_t spool_bytes = 1LL << 30;
  std::size_t segment_bytes = 4 << 20;
  std::size_t push_bytes = 1 << 20;
  Duration backoff_first{500}, backoff_max{30'000};
  const Clock* clock = &system_clock();
};
std::unique_ptr<AuditStore> make_loki_audit_store(Executor executor, LokiOptions options);

// The part of the chain that spans [from, to): from the first event of that time to the last one,
// with all that stands between them. Nothing when no event is of that time.
struct AuditRange {
  std::int64_t first, last;
};
Task<std::optional<AuditRange>> find_range(AuditStore& store, OrgId org,
                                           std::optional<TimePoint> from,
                                           std::optional<TimePoint> to);

}  // namespace flock::stores

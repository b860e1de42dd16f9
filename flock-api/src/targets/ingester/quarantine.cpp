// SPDX-License-Identifier: Apache-2.0
#include "targets/ingester/quarantine.h"

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "async/blocking.h"
#include "base/error.h"
#include "base/id.h"
#include "base/log.h"
#include "base/time.h"

namespace flock::targets::ingester {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFilesMost = 1000, kBytesMost = 64 * 1024;
// Of one batch; of a flood of nonsense the first ones tell enough.
constexpr std::size_t kAtOnceMost = 32;

// Names are times, so the oldest comes first.
void make_room(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  if (files.size() <= kFilesMost) return;
  std::ranges::sort(files);
  files.resize(files.size() - kFilesMost);
  for (const fs::path& file : files) fs::remove(file);
}

}  // namespace

Poison make_poison(std::string_view topic, std::string_view payload, std::string reason) {
  return {std::string(topic.substr(0, 1024)), std::string(payload.substr(0, kBytesMost)),
          std::move(reason)};
}

void Quarantine::write(const std::string& folder, const std::vector<Poison>& messages) {
  fs::create_directories(folder);
  fs::permissions(folder, fs::perms::owner_all);
  const std::string now = to_rfc3339(system_clock().now());
  for (std::size_t i = 0; i < std::min(messages.size(), kAtOnceMost); ++i) {
    const Poison& message = messages[i];
    std::ofstream out(fs::path(folder) / (new_uuid() + ".message"), std::ios::binary);
    out << boost::json::serialize(boost::json::object{{"topic", message.topic},
                                                      {"reason", message.reason},
                                                      {"received_at", now},
                                                      {"bytes", message.payload.size()}})
        << '\n'
        << message.payload;
    if (!out.flush()) throw Error(Code::kUnavailable, "cannot write").with("folder", folder);
  }
  make_room(folder);
}

Task<void> Quarantine::put(std::vector<Poison> messages) {
  if (messages.empty()) co_return;
  quarantined_.add(static_cast<double>(messages.size()));
  if (const std::int64_t times = seen_.count(static_cast<std::int64_t>(messages.size())))
    log::warn("messages that cannot be taken were put aside", {{"messages", times},
                                                               {"folder", folder_},
                                                               {"topic", messages.back().topic},
                                                               {"reason", messages.back().reason}});
  try {
    co_await BlockingPool::shared().run_void([this, &messages] { write(folder_, messages); });
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    log::warn("the quarantine cannot be written", error);
  } catch (const std::exception& error) {
    log::warn("the quarantine cannot be written", {{"folder", folder_}, {"error", error.what()}});
  }
}

}  // namespace flock::targets::ingester

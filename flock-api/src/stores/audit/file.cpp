// SPDX-License-Identifier: Apache-2.0
// <directory>/<organization>/<first seq>-<day>.jsonl: the chain's lines, only ever appended to.
#include <charconv>
#include <map>

#include "async/blocking.h"
#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "stores/audit/audit_store.h"
#include "stores/audit/segments.h"

namespace flock::stores {
namespace {

constexpr std::size_t kRecent = 2048;        // above what the broker may send again (process.cpp)
constexpr std::size_t kOpenChains = 256;     // more: what is known of them is read again
constexpr std::size_t kScanLimit = 100'000;  // lines that one page looks at
constexpr std::string_view kSuffix = ".jsonl";

struct Chain {
  audit::Head head;
  segments::RecentKeys recent{kRecent};
  std::string segment;  // the one that grows; "": none yet
};

std::string day_of(TimePoint time) {
  const std::string text = to_rfc3339(time);
  return text.substr(0, 4) + text.substr(5, 2) + text.substr(8, 2);
}

std::int64_t first_seq(const std::string& segment) {
  std::int64_t seq = 0;
  std::from_chars(segment.data(), segment.data() + segment.size(), seq);
  return seq;
}

class FileAuditStore final : public AuditStore {
 public:
  FileAuditStore(std::string directory, std::size_t segment_bytes)
      : directory_(std::move(directory)), segment_bytes_(segment_bytes) {}

  Task<void> open() override {
    co_await BlockingPool::shared().run_void([this] {
      make_folders(directory_);
      lock_.take(directory_);
    });
  }

  Task<void> append(std::vector<audit::Event> events) override {
    co_await BlockingPool::shared().run_void([this, &events] {
      std::map<std::string, std::vector<const audit::Event*>> by_org;
      for (const audit::Event& event : events) by_org[event.org].push_back(&event);
      for (const auto& [org, theirs] : by_org) append_to(org, theirs);
    });
  }

  Task<audit::Head> head(OrgId org) override {
    co_return co_await BlockingPool::shared().run<audit::Head>(
        [this, org] { return find_head(org.text()); });
  }

  Task<AuditPage> page(OrgId org, AuditFilter filter, std::string before,
                       std::size_t limit) override {
    co_return co_await BlockingPool::shared().run<AuditPage>(
        [&] { return find_page(org.text(), filter, before, limit); });
  }

  Task<void> walk(OrgId org, std::int64_t from_seq, Visit visit) override {
    const auto names = list_files(folder(org.text()), kSuffix);
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (i + 1 < names.size() && first_seq(names[i + 1]) <= from_seq) continue;
      const std::string path = folder(org.text()) + "/" + names[i];
      for (std::int64_t offset = 0;;) {
        std::vector<std::string> lines;
        const std::int64_t begin = offset;
        offset = co_await BlockingPool::shared().run<std::int64_t>([&] {
          return segments::read_lines(path, begin, 1 << 20,
                                      [&](std::string line) { lines.push_back(std::move(line)); });
        });
        if (lines.empty()) break;
        for (const std::string& text : lines) {
          const auto line = audit::glance(text);
          // What cannot be read is given too: the reader is to see that the file was tampered with.
          if (line && line->seq < from_seq) continue;
          if (!co_await visit(text)) co_return;
        }
      }
    }
  }

  Task<void> run() override {
    for (;;) co_await sleep_for(Duration(3'600'000));
  }

 private:
  std::string folder(const std::string& org) const { return directory_ + "/" + org; }

  void append_to(const std::string& org, const std::vector<const audit::Event*>& events) {
    Chain& chain = chain_of(org);
    audit::Head head = chain.head;
    std::string text;
    segments::RecentKeys fresh(events.size());
    for (const audit::Event* event : events) {
      const std::string key = event->key();
      if (chain.recent.contains(key) || fresh.contains(key)) continue;
      fresh.add(key);
      text += audit::next_line(*event, head) + "\n";
    }
    if (text.empty()) return;
    const std::string segment = segment_for(org, chain);
    try {
      segments::append(folder(org) + "/" + segment, text);
    } catch (const Error&) {
      chains_.erase(org);  // what is on disk now is read again
      throw;
    }
    for (const std::string& key : fresh.all()) chain.recent.add(key);
    chain.head = std::move(head);
    chain.segment = segment;
  }

  std::string segment_for(const std::string& org, const Chain& chain) const {
    const std::string day = day_of(system_clock().now());
    const std::string& now = chain.segment;
    if (!now.empty() && now.find("-" + day) != std::string::npos &&
        segments::size_of(folder(org) + "/" + now) < static_cast<std::int64_t>(segment_bytes_))
      return now;
    const std::string seq = std::to_string(chain.head.seq + 1);
    return std::string(12 - std::min<std::size_t>(12, seq.size()), '0') + seq + "-" + day +
           std::string(kSuffix);
  }

  Chain& chain_of(const std::string& org) {
    if (const auto found = chains_.find(org); found != chains_.end()) return found->second;
    if (chains_.size() >= kOpenChains) chains_.clear();
    return chains_.emplace(org, recover(org)).first->second;
  }

  Chain recover(const std::string& org) const {
    make_folders(folder(org));
    Chain chain;
    const auto names = list_files(folder(org), kSuffix);
    if (names.empty()) return chain;
    chain.segment = names.back();
    segments::cut_torn_tail(folder(org) + "/" + names.back());
    std::vector<std::string> newest_first;
    for (auto name = names.rbegin(); name != names.rend() && newest_first.size() < kRecent;
         ++name) {
      const auto lines = read_segment(org, *name);
      newest_first.insert(newest_first.end(), lines.rbegin(), lines.rend());
    }
    bool found = false;
    for (const std::string& text : newest_first) {
      const auto line = audit::read_line(text);
      if (!line || !line->intact)
        log::write(log::Level::kError,
                   "the audit log was damaged or altered; `flock audit verify` names the place",
                   {{"org", org}});
      if (!line || found) continue;
      chain.head = {line->seq, line->hash};
      found = true;
    }
    for (auto text = newest_first.rbegin(); text != newest_first.rend(); ++text) {
      if (const auto line = audit::read_line(*text)) chain.recent.add(line->event.key());
    }
    return chain;
  }

  std::vector<std::string> read_segment(const std::string& org, const std::string& name) const {
    std::vector<std::string> lines;
    segments::read_lines(folder(org) + "/" + name, 0, SIZE_MAX >> 1,
                         [&](std::string line) { lines.push_back(std::move(line)); });
    return lines;
  }

  audit::Head find_head(const std::string& org) const {
    const auto names = list_files(folder(org), kSuffix);
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      const auto lines = read_segment(org, *name);
      for (auto text = lines.rbegin(); text != lines.rend(); ++text) {
        if (const auto line = audit::read_line(*text)) return {line->seq, line->hash};
      }
    }
    return {};
  }

  AuditPage find_page(const std::string& org, const AuditFilter& filter, const std::string& before,
                      std::size_t limit) const {
    std::int64_t below = INT64_MAX;
    const char* end = before.data() + before.size();
    if (!before.empty()) {
      const auto [stop, error] = std::from_chars(before.data(), end, below);
      if (error != std::errc() || stop != end)
        throw Error(Code::kInvalidArgument, "page_token is not one of ours");
    }
    AuditPage page;
    std::size_t scanned = 0;
    const auto names = list_files(folder(org), kSuffix);
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      if (first_seq(*name) >= below) continue;
      const auto lines = read_segment(org, *name);
      for (auto text = lines.rbegin(); text != lines.rend(); ++text) {
        const auto line = audit::read_line(*text);
        if (!line || line->seq >= below) continue;
        if (page.lines.size() == limit || ++scanned > kScanLimit) {
          page.next = std::to_string(below);
          return page;
        }
        below = line->seq;
        if (matches(filter, line->event)) page.lines.push_back(*text);
      }
    }
    return page;
  }

  std::string directory_;
  std::size_t segment_bytes_;
  FolderLock lock_;
  std::map<std::string, Chain> chains_;  // by organization; the writer's
};

}  // namespace

std::unique_ptr<AuditStore> make_file_audit_store(std::string directory,
                                                  std::size_t segment_bytes) {
  return std::make_unique<FileAuditStore>(std::move(directory), segment_bytes);
}

}  // namespace flock::stores

// SPDX-License-Identifier: Apache-2.0
#include "link/desired_store.h"

#include <cstdio>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "crypto/keys.h"

namespace flock::agent {
namespace {

constexpr std::size_t kSum = 32;
constexpr std::size_t kLimit = 4 << 20;

}  // namespace

device::v1::DesiredState DesiredStore::load() {
  device::v1::DesiredState desired;
  std::string reason = "its checksum is wrong";
  try {
    const auto content = read_file(path_, kLimit);
    if (!content) return desired;
    const bool whole =
        content->size() >= kSum &&
        crypto::sha256(std::string_view(*content).substr(kSum)) == content->substr(0, kSum);
    if (whole && desired.ParseFromString(content->substr(kSum))) return desired;
  } catch (const Error& error) {
    if (error.code() != Code::kTooLarge) {
      log::error("the stored desired state cannot be read; the broker is asked for it", error);
      return {};
    }
    reason = error.message();
  }
  log::error("the stored desired state is damaged; it is moved aside and the broker asked for it",
             {{"file", path_}, {"reason", reason}});
  std::rename(path_.c_str(), (path_ + ".corrupt").c_str());
  return {};
}

void DesiredStore::save(const device::v1::DesiredState& desired) {
  const std::string text = desired.SerializeAsString();
  write_file_atomic(path_, crypto::sha256(text) + text);
}

}  // namespace flock::agent

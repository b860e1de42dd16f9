// SPDX-License-Identifier: Apache-2.0
#include "app/config_hash.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/bytes.h"
#include "crypto/keys.h"

namespace flock::agent {
namespace {

using device::v1::Service;

// Everything that makes a container what it is, its networks included. Maps have no order in
// protobuf's lite form, so the hash walks a sorted copy of them.
std::string config_hash(const Service& service, const DesiredState& state) {
  Service plain = service;
  plain.clear_environment();
  plain.clear_labels();
  std::string text = plain.SerializeAsString();
  for (const auto* map : {&service.environment(), &service.labels()}) {
    const std::map<std::string, std::string> sorted(map->begin(), map->end());
    for (const auto& [key, value] : sorted) text += key + '\0' + value + '\0';
    text += '\1';
  }
  if (service.networks().empty() && service.network_mode().empty() && state.services_size() > 1)
    text += "default network";
  for (const auto& network : state.networks()) {
    const auto& joined = service.networks();
    if (network.internal() &&
        std::find(joined.begin(), joined.end(), network.name()) != joined.end())
      text += network.name() + " is internal";
  }
  return to_hex(crypto::sha256(text)).substr(0, 24);
}

}  // namespace

ConfigHashes hashes_of(const DesiredState& state) {
  ConfigHashes out;
  for (const Service& service : state.services()) out[service.name()] = config_hash(service, state);
  return out;
}

std::string fingerprint_of(const DesiredState& state) {
  std::string text;
  for (const auto& [service, hash] : hashes_of(state)) text += service + '\0' + hash + '\0';
  if (state.has_host_command() && !state.host_command().undo()) text += state.host_command().id();
  return to_hex(crypto::sha256(text));
}

}  // namespace flock::agent

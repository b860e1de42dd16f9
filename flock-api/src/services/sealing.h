// SPDX-License-Identifier: Apache-2.0
// What is stored sealed, and under which context: a sealed value opens only in the place that it
// was sealed for.
#pragma once

#include <string>

#include "async/task.h"
#include "crypto/seal.h"
#include "flock/device/v1/device.pb.h"
#include "stores/postgres/database.h"

namespace flock::services {

// `row` has level, owner_id, service and name.
std::string variable_context(const std::string& org, const postgres::Row& row);
std::string variable_context(const std::string& org, std::string_view level,
                             const std::string& owner, const std::string& service,
                             const std::string& name);

// A desired state holds the merged environment, secrets included.
std::string seal_desired(const crypto::SealingKeys& keys, const std::string& org,
                         const std::string& device, const device::v1::DesiredState& desired);
// Serialized as the device gets it. Also takes what was stored before it was sealed.
std::string open_desired(const crypto::SealingKeys& keys, const std::string& org,
                         const std::string& device, const std::string& stored);

// Of a subscription's signing secret, the present and the previous one.
std::string subscription_context(const std::string& org, const std::string& id);
// Of what the requests of a gate's webhook are signed with.
std::string gate_context(const std::string& org, const std::string& id);

// Seals with the present key what an older one sealed, in small steps; may be repeated, and done
// beside others that do the same. A value that cannot be opened is logged, by its place, and left.
Task<void> reseal_all(postgres::Database& db, const crypto::SealingKeys& keys);

}  // namespace flock::services

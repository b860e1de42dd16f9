// SPDX-License-Identifier: Apache-2.0
#include "services/sealing.h"

#include "base/error.h"
#include "base/log.h"
#include "stores/postgres/gate_statements.h"
#include "stores/postgres/subscription_statements.h"
#include "stores/postgres/variable_statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr const char* kFirst = "00000000-0000-0000-0000-000000000000";
constexpr std::string_view kSealed = "v1.";  // no protobuf message begins so

std::string desired_context(const std::string& org, const std::string& device) {
  return "org/" + org + "/desired/" + device;
}

std::string sealed_by_present(const crypto::SealingKeys& keys) {
  return std::string(kSealed) + keys.current_id() + ".";
}

// A page of rows, each opened and sealed by `again`. Returns the last id, or "" at the end.
Task<std::string> reseal_page(const postgres::Rows& rows, const char* kind,
                              std::function<Task<void>(const Row&)> again) {
  std::string last;
  for (const Row& row : rows.rows) {
    last = row.text("id");
    try {
      co_await again(row);
    } catch (const Error& error) {
      if (error.code() != Code::kCorrupt) throw;
      log::error("a sealed value cannot be opened; it is left", error,
                 {{"kind", kind}, {"id", last}});
    }
  }
  co_return last;
}

Task<void> reseal_variables(postgres::Database& db, const crypto::SealingKeys& keys) {
  const auto again = [&](const Row& row) -> Task<void> {
    const std::string org = row.text("org_id"), context = variable_context(org, row);
    const std::string& old = row.text("sealed");
    std::string fresh = keys.seal(Secret(keys.open(old, context)).reveal(), context);
    co_await db.query(Scope::system(), sql::kVariableResealed,
                      Params().text(org).text(row.text("id")).text(old).text(std::move(fresh)));
  };
  for (std::string after = kFirst; !after.empty();) {
    const auto rows = co_await db.query(Scope::system(), sql::kVariablesToReseal,
                                        Params().text(sealed_by_present(keys)).text(after));
    after = co_await reseal_page(rows, "variable", again);
  }
}

Task<void> reseal_subscriptions(postgres::Database& db, const crypto::SealingKeys& keys) {
  const auto again = [&](const Row& row) -> Task<void> {
    const std::string org = row.text("org_id"), id = row.text("id"), &secret = row.text("secret");
    const auto fresh = [&](const std::string& old) {
      const std::string context = subscription_context(org, id);
      return keys.seal(Secret(keys.open(old, context)).reveal(), context);
    };
    const auto previous = row.optional_text("previous_secret");
    Params params = Params().text(org).text(id).text(secret).text(fresh(secret)).text(previous);
    params.text(previous ? std::optional(fresh(*previous)) : std::nullopt);
    co_await db.query(Scope::system(), sql::kSubscriptionResealed, std::move(params));
  };
  for (std::string after = kFirst; !after.empty();) {
    const auto rows = co_await db.query(Scope::system(), sql::kSubscriptionsToReseal,
                                        Params().text(sealed_by_present(keys)).text(after));
    after = co_await reseal_page(rows, "event subscription", again);
  }
}

Task<void> reseal_gates(postgres::Database& db, const crypto::SealingKeys& keys) {
  const auto again = [&](const Row& row) -> Task<void> {
    const std::string org = row.text("org_id"), id = row.text("id"), &old = row.text("secret");
    const std::string context = gate_context(org, id);
    std::string fresh = keys.seal(Secret(keys.open(old, context)).reveal(), context);
    co_await db.query(Scope::system(), sql::kGateSecretResealed,
                      Params().text(org).text(id).text(old).text(std::move(fresh)));
  };
  for (std::string after = kFirst; !after.empty();) {
    const auto rows = co_await db.query(Scope::system(), sql::kGateSecretsToReseal,
                                        Params().text(sealed_by_present(keys)).text(after));
    after = co_await reseal_page(rows, "gate", again);
  }
}

Task<void> reseal_desired(postgres::Database& db, const crypto::SealingKeys& keys) {
  const auto again = [&](const Row& row) -> Task<void> {
    const std::string org = row.text("org_id"), id = row.text("id"), old = row.bytes("desired");
    const std::string fresh = keys.seal(open_desired(keys, org, id, old), desired_context(org, id));
    co_await db.query(Scope::system(), sql::kDesiredResealed,
                      Params().text(org).text(id).bytes(old).bytes(fresh));
  };
  for (std::string after = kFirst; !after.empty();) {
    const auto rows = co_await db.query(Scope::system(), sql::kDesiredToReseal,
                                        Params().bytes(sealed_by_present(keys)).text(after));
    after = co_await reseal_page(rows, "desired state", again);
  }
}

}  // namespace

// Names hold no slash, so two places never have one context.
std::string variable_context(const std::string& org, std::string_view level,
                             const std::string& owner, const std::string& service,
                             const std::string& name) {
  return "org/" + org + "/variable/" + std::string(level) + "/" + owner + "/" + service + "/" +
         name;
}

std::string variable_context(const std::string& org, const Row& row) {
  return variable_context(org, row.text("level"), row.text("owner_id"), row.text("service"),
                          row.text("name"));
}

std::string seal_desired(const crypto::SealingKeys& keys, const std::string& org,
                         const std::string& device, const device::v1::DesiredState& desired) {
  return keys.seal(desired.SerializeAsString(), desired_context(org, device));
}

std::string open_desired(const crypto::SealingKeys& keys, const std::string& org,
                         const std::string& device, const std::string& stored) {
  if (!stored.starts_with(kSealed)) return stored;
  return keys.open(stored, desired_context(org, device));
}

std::string subscription_context(const std::string& org, const std::string& id) {
  return "org/" + org + "/event-subscription/" + id;
}

std::string gate_context(const std::string& org, const std::string& id) {
  return "org/" + org + "/gate/" + id;
}

Task<void> reseal_all(postgres::Database& db, const crypto::SealingKeys& keys) {
  co_await reseal_variables(db, keys);
  co_await reseal_desired(db, keys);
  co_await reseal_subscriptions(db, keys);
  co_await reseal_gates(db, keys);
}

}  // namespace flock::services

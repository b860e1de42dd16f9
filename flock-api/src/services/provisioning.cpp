// SPDX-License-Identifier: Apache-2.0
#include "services/provisioning.h"

#include "base/error.h"
#include "base/log.h"
#include "stores/postgres/statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

Registered read_device(const Row& row) {
  if (row.boolean("revoked"))
    throw Error(Code::kForbidden, "device_revoked: this device was revoked")
        .hint("an administrator must remove it before it can register again");
  Registered out;
  out.identity = {DeviceId::trusted(row.text("id")), OrgId::trusted(row.text("org_id")),
                  FleetId::trusted(row.text("fleet_id"))};
  out.name = row.text("name");
  return out;
}

Error refused_key(const char* why, const char* hint) {
  return Error(Code::kForbidden, std::string("provisioning_key_") + why).hint(hint);
}

void check_key(const Row* key) {
  if (key == nullptr)
    throw refused_key("unknown: no such provisioning key",
                      "copy the key again; it begins with flp_");
  if (key->boolean("revoked"))
    throw refused_key("revoked: the provisioning key was revoked",
                      "make another: flock keys create");
  if (key->boolean("expired"))
    throw refused_key("expired: the provisioning key has expired",
                      "make another: flock keys create");
  const auto most = key->optional_integer("max_uses");
  if (most && key->integer("uses") >= *most)
    throw refused_key("used_up: the provisioning key was used as often as it may",
                      "make another: flock keys create");
}

}  // namespace

Task<Registered> register_device(postgres::Database& db, Registration registration, TimePoint now) {
  const crypto::Key device_key = crypto::Key::from_public_pem(registration.device_public_key);
  DeviceTokens::check_assertion(registration.assertion, device_key, device_key.thumbprint(), now);
  const std::string public_key = device_key.public_pem();  // one form for one key
  Registered result;
  const auto work = [&](postgres::Transaction& tx) -> Task<void> {
    // A retry that overtakes its first attempt waits here, and then finds the device.
    co_await tx.query(sql::kDeviceKeyLock, Params().text(public_key));
    const auto known = co_await tx.query(sql::kDeviceByPublicKey, Params().text(public_key));
    if (const Row* row = known.first()) {
      result = read_device(*row);
      co_return;
    }
    const auto keys = co_await tx.query(sql::kProvisioningKeyByHash,
                                        Params().bytes(hash_key(registration.provisioning_key)));
    check_key(keys.first());
    const Row& key = keys.rows.front();
    result.identity = {DeviceId::fresh(), OrgId::trusted(key.text("org_id")),
                       FleetId::trusted(key.text("fleet_id"))};
    result.name = !registration.name.empty()       ? registration.name
                  : !registration.hostname.empty() ? registration.hostname
                                                   : result.identity.device.text().substr(24);
    result.created = true;
    Params device;
    device.text(result.identity.device.text())
        .text(result.identity.org.text())
        .text(result.identity.fleet.text())
        .text(result.name)
        .text(public_key)
        .text(registration.wireguard_public_key);
    device.text(registration.hardware_json)
        .text(registration.architecture)
        .text(registration.variant)
        .text(registration.agent_version);
    co_await tx.query(sql::kDeviceInsert, std::move(device));
    co_await tx.query(sql::kProvisioningKeyUse,
                      Params().text(result.identity.org.text()).text(key.text("id")));
  };
  // The tenant is known only once the key was found.
  co_await db.transaction(Scope::system(), work);
  if (result.created)
    log::info("device registered",
              {{"device", result.identity.device.text()}, {"name", result.name}});
  co_return result;
}

Task<Registered> renew_device(postgres::Database& db, DeviceId device, std::string assertion,
                              TimePoint now) {
  const auto rows =
      co_await db.query(Scope::system(), sql::kDeviceForToken, Params().text(device.text()));
  const Row* row = rows.first();
  if (row == nullptr)
    throw Error(Code::kUnauthenticated, "no such device")
        .hint("register again with a provisioning key");
  const crypto::Key key = crypto::Key::from_public_pem(row->text("public_key"));
  DeviceTokens::check_assertion(assertion, key, device.text(), now);
  co_return read_device(*row);
}

}  // namespace flock::services

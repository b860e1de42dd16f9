// SPDX-License-Identifier: Apache-2.0
#include "services/provisioning.h"

#include <boost/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "services/audited.h"
#include "stores/postgres/statements.h"

namespace flock::services {
namespace {

namespace sql = postgres::sql;
using internal::v1::AuditEvent;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

constexpr std::int64_t kMostWaiting = 1000;  // for one provisioning key

std::vector<std::string> texts_of(const std::string& array) {
  std::vector<std::string> out;
  const boost::json::value document = json::parse(array);
  for (const auto& item : document.as_array()) out.emplace_back(item.as_string());
  return out;
}

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

Error refused_key(const char* why, std::string hint) {
  return Error(Code::kForbidden, std::string("provisioning_key_") + why).hint(std::move(hint));
}

void check_key(const Row* key, const std::optional<domain::Address>& from) {
  if (key == nullptr)
    throw refused_key("unknown: no such provisioning key",
                      "copy the key again; it begins with flp_");
  if (key->boolean("revoked"))
    throw refused_key("revoked: the provisioning key was revoked",
                      "make another: flock keys create");
  const auto networks = texts_of(key->text("allowed_networks"));
  if (networks.empty()) return;
  if (!from || !domain::contained(networks, *from))
    throw refused_key(
        "network: this address is outside the networks of the provisioning key",
        "it is " + (from ? to_string(*from) : "unknown") + "; flock keys show names the networks");
}

// What an approval overrules: somebody said yes to this very device.
void check_limits(const Row& key) {
  if (key.boolean("expired"))
    throw refused_key("expired: the provisioning key has expired",
                      "make another: flock keys create");
  const auto most = key.optional_integer("max_uses");
  if (most && key.integer("uses") >= *most)
    throw refused_key("used_up: the provisioning key was used as often as it may",
                      "make another: flock keys create");
}

struct UnlimitedKey {
  std::string org, id;
};

// What it counts is for people to read: a device that is in stays in when this fails.
Task<void> count_use(postgres::Database& db, UnlimitedKey key) {
  try {
    co_await db.query(Scope::system(), sql::kProvisioningKeyCount,
                      Params().text(key.org).text(key.id));
  } catch (const Error& e) {
    log::warn("the use of a provisioning key was not counted",
              {{"key", key.id}, {"error", e.what()}});
  }
}

// One registration under way: what each step finds out for the next.
class Admission {
 public:
  Admission(postgres::Transaction& tx, const Registration& registration, const crypto::Key& key)
      : tx_(tx),
        registration_(registration),
        public_key_(key.public_pem()),  // one form for one key
        thumbprint_(key.thumbprint()) {}

  Task<std::vector<AuditEvent>> run() {
    // A retry that overtakes its first attempt waits here, and then finds the device.
    co_await tx_.query(sql::kDeviceKeyLock, Params().text(public_key_));
    const auto known = co_await tx_.query(sql::kDeviceByPublicKey, Params().text(public_key_));
    if (const Row* row = known.first()) {
      result = read_device(*row);
      co_return events_;
    }
    const auto keys = co_await find_key();
    check_key(keys.first(), registration_.from);
    const Row& key = keys.rows.front();
    org_ = key.text("org_id");
    key_id_ = key.text("id");
    key_name_ = key.text("name");
    fleet_ = key.text("fleet_id");
    labels_ = key.text("labels");
    if (key.text("mode") == "PREREGISTERED") co_await find_preregistration();
    const bool approved = key.boolean("approval_required") && co_await is_approved(key);
    if (std::holds_alternative<Waiting>(result)) co_return events_;
    if (!approved) check_limits(key);
    co_await admit();
    if (key.optional_integer("max_uses"))
      co_await use_key(approved);
    else
      counted_later = UnlimitedKey{org_, key_id_};
    co_return events_;
  }

  std::variant<Registered, Waiting> result;
  // A crowd that comes with one key would queue for its row, each until the one before has
  // committed. Where no limit hangs on the count, it is made after the commit.
  std::optional<UnlimitedKey> counted_later;

 private:
  Task<postgres::Rows> find_key() {
    return tx_.query(sql::kProvisioningKeyByHash,
                     Params().bytes(hash_key(registration_.provisioning_key)));
  }

  // Last of all, for the row is locked from here on: whoever registers with this key waits.
  Task<void> use_key(bool approved) {
    const auto used = co_await tx_.query(sql::kProvisioningKeyUse,
                                         Params().text(org_).text(key_id_).boolean(approved));
    if (!used.empty()) co_return;
    const auto keys = co_await find_key();  // it was good a moment ago
    check_key(keys.first(), registration_.from);
    check_limits(keys.rows.front());
    throw Error(Code::kConflict, "the provisioning key is being changed").hint("try again");
  }

  Task<void> find_preregistration() {
    const auto rows = co_await tx_.query(sql::kPreregistrationOf,
                                         Params().text(org_).text(key_id_).text(thumbprint_));
    if (rows.empty())
      throw refused_key("unlisted: the provisioning key admits only devices that were named before",
                        "name it: flock keys add-device, thumbprint " + thumbprint_);
    const Row& row = rows.rows.front();
    preregistration_ = row.text("id");
    fleet_ = row.text("fleet_id");
    given_name_ = row.optional_text("name").value_or("");
  }

  // True once an administrator said yes; otherwise `result` is Waiting.
  Task<bool> is_approved(const Row& key) {
    const std::string ip = registration_.from ? to_string(*registration_.from) : "";
    const auto rows = co_await tx_.query(sql::kDeviceRequestOf,
                                         Params().text(org_).text(key_id_).text(thumbprint_));
    if (rows.empty()) {
      check_limits(key);
      co_await make_request(ip);
      co_return false;
    }
    const Row& row = rows.rows.front();
    request_ = row.text("id");
    const std::string state = row.text("state");
    if (state == "APPROVED") co_return true;
    if (state == "REJECTED")
      throw Error(Code::kForbidden, "device_request_rejected: an administrator refused this device")
          .with("request", request_)
          .hint("to let it in after all: flock device-requests approve " + request_);
    if (state == "ADMITTED") check_limits(key);
    const char* touch = state == "ADMITTED" ? sql::kDeviceRequestReopen : sql::kDeviceRequestAsked;
    co_await tx_.query(touch, Params().text(org_).text(request_).text(ip));
    result = Waiting{request_};
    co_return false;
  }

  Task<void> make_request(const std::string& ip) {
    co_await tx_.query(sql::kProvisioningKeyLock, Params().text(org_).text(key_id_));  // to count
    const auto waiting =
        co_await tx_.query(sql::kDeviceRequestsWaiting, Params().text(org_).text(key_id_));
    if (waiting.rows.at(0).integer("count") >= kMostWaiting)
      throw Error(Code::kRateLimited, "too many devices wait for an approval already")
          .hint("flock device-requests lists them");
    request_ = new_uuid();
    Params params;
    params.text(request_).text(org_).text(fleet_).text(key_id_).text(thumbprint_).text(name_of(""));
    params.text(registration_.hardware_json).text(registration_.agent_version).text(ip);
    co_await tx_.query(sql::kDeviceRequestInsert, std::move(params));
    tell("requestDevice", "device_request", request_, name_of(""));
    result = Waiting{request_};
  }

  Task<void> admit() {
    Registered made;
    made.identity = {DeviceId::fresh(), OrgId::trusted(org_), FleetId::trusted(fleet_)};
    const std::string id = made.identity.device.text();
    made.name = !given_name_.empty() ? given_name_ : name_of(id);
    made.created = true;
    Params device;
    device.text(id).text(org_).text(fleet_).text(made.name).text(public_key_);
    device.text(registration_.wireguard_public_key)
        .text(registration_.hardware_json)
        .text(registration_.architecture)
        .text(registration_.variant)
        .text(registration_.agent_version);
    co_await tx_.query(sql::kDeviceInsert, std::move(device));
    if (labels_ != "{}")
      co_await tx_.query(sql::kDeviceLabelsOfKey, Params().text(org_).text(id).text(labels_));
    if (!preregistration_.empty())
      co_await tx_.query(sql::kPreregistrationUsed,
                         Params().text(org_).text(preregistration_).text(id));
    if (!request_.empty())
      co_await tx_.query(sql::kDeviceRequestAdmitted, Params().text(org_).text(request_).text(id));
    tell("registerDevice", "device", id, made.name);
    result = std::move(made);
  }

  void tell(const char* action, const char* type, const std::string& id, const std::string& name) {
    AuditEvent event = audit_event(AuditEvent::DEVICE, org_, action, type, id, name);
    event.set_actor_id(std::string(type) == "device" ? id : thumbprint_);
    event.set_actor_name(name);
    event.set_request_id(registration_.request_id);
    if (registration_.from) event.set_ip(to_string(*registration_.from));
    event.set_detail_json(boost::json::serialize(boost::json::object{
        {"fleet", fleet_}, {"provisioning_key", key_id_}, {"provisioning_key_name", key_name_}}));
    events_.push_back(std::move(event));
  }

  // A device that has no name of its own gets the end of its id.
  std::string name_of(const std::string& id) const {
    if (!registration_.name.empty()) return registration_.name;
    if (!registration_.hostname.empty()) return registration_.hostname;
    return id.empty() ? thumbprint_.substr(0, 12) : id.substr(24);
  }

  postgres::Transaction& tx_;
  const Registration& registration_;
  const std::string public_key_, thumbprint_;
  std::string org_, key_id_, key_name_, fleet_, labels_, given_name_, preregistration_, request_;
  std::vector<AuditEvent> events_;
};

}  // namespace

Task<std::variant<Registered, Waiting>> register_device(postgres::Database& db, AuditTrail& audit,
                                                        Registration registration, TimePoint now) {
  const crypto::Key device_key = crypto::Key::from_public_pem(registration.device_public_key);
  DeviceTokens::check_assertion(registration.assertion, device_key, device_key.thumbprint(), now);
  std::variant<Registered, Waiting> result;
  std::optional<UnlimitedKey> counted_later;
  const auto work = [&](postgres::Transaction& tx) -> Task<std::vector<AuditEvent>> {
    Admission admission(tx, registration, device_key);
    auto events = co_await admission.run();
    result = std::move(admission.result);
    counted_later = std::move(admission.counted_later);
    co_return events;
  };
  // The tenant is known only once the key was found.
  co_await audited_transaction(db, audit, Scope::system(), work);
  if (counted_later) co_await count_use(db, *std::move(counted_later));
  if (const auto* made = std::get_if<Registered>(&result); made && made->created)
    log::info("device registered",
              {{"device", made->identity.device.text()}, {"name", made->name}});
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

// SPDX-License-Identifier: Apache-2.0
// SQL of event subscriptions. No statement for answers selects a secret.
#pragma once

namespace flock::postgres::sql {

#define FLOCK_SUBSCRIPTION_COLUMNS                                                               \
  "SELECT id, name, url, array_to_json(event_types)::text AS event_types, filter, enabled, "     \
  "flock_ms(created_at) AS created_at, flock_ms(updated_at) AS updated_at, CASE WHEN "           \
  "previous_until > now() THEN flock_ms(previous_until) END AS previous_secret_expires_at FROM " \
  "event_subscriptions "
inline constexpr const char* kSubscriptionInsert =
    "INSERT INTO event_subscriptions(id, org_id, name, url, event_types, filter, enabled, secret) "
    "VALUES ($1, $2, $3, $4, $5::text[], $6, $7::boolean, $8)";
inline constexpr const char* kSubscriptionList = FLOCK_SUBSCRIPTION_COLUMNS
    "WHERE org_id = $1 AND id::text > $2 ORDER BY id::text LIMIT $3::bigint";
inline constexpr const char* kSubscriptionGet =
    FLOCK_SUBSCRIPTION_COLUMNS "WHERE org_id = $1 AND id = $2";
inline constexpr const char* kSubscriptionLock =
    FLOCK_SUBSCRIPTION_COLUMNS "WHERE org_id = $1 AND id = $2 FOR UPDATE";
inline constexpr const char* kSubscriptionChange =
    "UPDATE event_subscriptions SET name = $3, url = $4, event_types = $5::text[], filter = $6, "
    "enabled = $7::boolean, updated_at = now() WHERE org_id = $1 AND id = $2";
inline constexpr const char* kSubscriptionRotate =
    "UPDATE event_subscriptions SET previous_secret = secret, previous_until = now() + interval "
    "'24 hours', secret = $3, updated_at = now() WHERE org_id = $1 AND id = $2";
inline constexpr const char* kSubscriptionDelete =
    "DELETE FROM event_subscriptions WHERE org_id = $1 AND id = $2";

// --- Secrets under an older key. $1: how a value under the present key begins
inline constexpr const char* kSubscriptionsToReseal =
    "SELECT id, org_id, secret, previous_secret FROM event_subscriptions WHERE NOT "
    "(starts_with(secret, $1) AND starts_with(coalesce(previous_secret, $1), $1)) AND id > "
    "$2::uuid ORDER BY id LIMIT 100";
// Each is replaced where it is still the one that was read: a rotation may come between.
inline constexpr const char* kSubscriptionResealed =
    "UPDATE event_subscriptions SET secret = CASE WHEN secret = $3 THEN $4 ELSE secret END, "
    "previous_secret = CASE WHEN previous_secret = $5 THEN $6 WHEN previous_secret = $3 THEN $4 "
    "ELSE previous_secret END WHERE org_id = $1 AND id = $2";

}  // namespace flock::postgres::sql

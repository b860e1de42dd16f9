-- People, what they may do, and keys that may do less than everything. A member or key may be limited to some fleets; the
-- wall for that is here too, so that no statement can forget it.
SELECT set_config('flock.system', 'on', true);

-- True for everybody who is not limited. `flock.fleets` is a list of ids with commas, '*' or nothing for all.
CREATE FUNCTION flock_in_fleets(fleet uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce(current_setting('flock.fleets', true), '') IN ('', '*')
    OR fleet::text = ANY (string_to_array(current_setting('flock.fleets', true), ','))
$$;

CREATE TABLE users (
  id uuid PRIMARY KEY,
  issuer text NOT NULL,
  subject text NOT NULL,
  email text NOT NULL DEFAULT '',
  name text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (issuer, subject)
);

CREATE TABLE members (
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  user_id uuid NOT NULL REFERENCES users,
  role text NOT NULL CHECK (role IN ('viewer', 'developer', 'admin', 'owner')),
  fleet_ids uuid[],             -- NULL: every fleet
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, user_id),
  CHECK (role <> 'owner' OR fleet_ids IS NULL)
);
CREATE INDEX members_by_user ON members (user_id);

CREATE TABLE invitations (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  email text NOT NULL,
  role text NOT NULL CHECK (role IN ('viewer', 'developer', 'admin', 'owner')),
  fleet_ids uuid[],
  hash bytea NOT NULL UNIQUE,
  invited_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  accepted_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX invitations_by_org ON invitations (org_id, id);

-- Keys made before this had no limits.
ALTER TABLE api_keys ADD COLUMN role text NOT NULL DEFAULT 'owner' CHECK (role IN ('viewer', 'developer', 'admin', 'owner'));
ALTER TABLE api_keys ADD COLUMN scopes text[];      -- NULL: all that the role has
ALTER TABLE api_keys ADD COLUMN fleet_ids uuid[];   -- NULL: every fleet
ALTER TABLE api_keys ADD COLUMN expires_at timestamptz;
ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;
ALTER TABLE api_keys ADD COLUMN created_by text NOT NULL DEFAULT '';
CREATE INDEX api_keys_by_org ON api_keys (org_id, id);

-- The first answer to a POST with an Idempotency-Key, for 24 hours.
CREATE TABLE idempotency_keys (
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  principal text NOT NULL,
  operation text NOT NULL,
  key text NOT NULL,
  fingerprint bytea NOT NULL,   -- SHA-256 of path, query and body
  status integer,
  answer bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, principal, operation, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['members','invitations','idempotency_keys'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id))', t);
  END LOOP;
  FOREACH t IN ARRAY ARRAY['devices','provisioning_keys','deployments','rollouts'] LOOP
    EXECUTE format('CREATE POLICY fleets ON %I AS RESTRICTIVE USING (flock_in_fleets(fleet_id)) WITH CHECK (flock_in_fleets(fleet_id))', t);
  END LOOP;
  CREATE POLICY fleets ON fleets AS RESTRICTIVE USING (flock_in_fleets(id)) WITH CHECK (flock_in_fleets(id));
  -- A user is nobody's tenant: seen by the organizations that he is a member of.
  ALTER TABLE users ENABLE ROW LEVEL SECURITY;
  ALTER TABLE users FORCE ROW LEVEL SECURITY;
  CREATE POLICY tenant ON users USING (current_setting('flock.system', true) = 'on'
    OR EXISTS (SELECT FROM members m WHERE m.user_id = users.id))
    WITH CHECK (current_setting('flock.system', true) = 'on');
END $$;

-- Tenants, who may act for them, their devices, releases and rollouts. Every tenant table carries org_id and row-level security
-- that binds the owner too: a statement sees rows of `flock.org_id`, or all in a system transaction (docs: contracts, 5).

CREATE FUNCTION flock_visible(org uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT current_setting('flock.system', true) = 'on' OR org = nullif(current_setting('flock.org_id', true), '')::uuid
$$;
-- Times leave as Unix milliseconds.
CREATE FUNCTION flock_ms(t timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT (extract(epoch FROM t) * 1000)::bigint $$;

CREATE TABLE setup (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  key_hash bytea NOT NULL,
  used_at timestamptz
);

CREATE TABLE organizations (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  slug text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations,
  name text NOT NULL,
  prefix text NOT NULL,
  hash bytea NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz
);

CREATE TABLE fleets (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations,
  name text NOT NULL,
  slug text NOT NULL,
  deployment_id uuid,           -- the latest deployment to the whole fleet: what a new device gets
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, slug),
  UNIQUE (org_id, id)
);

CREATE TABLE provisioning_keys (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  fleet_id uuid NOT NULL,
  name text NOT NULL,
  prefix text NOT NULL,
  hash bytea NOT NULL UNIQUE,
  uses bigint NOT NULL DEFAULT 0,
  max_uses bigint,
  expires_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id) ON DELETE CASCADE
);

CREATE TABLE releases (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations,
  version text NOT NULL,
  note text,
  compose text NOT NULL,
  workload text NOT NULL,       -- canonical JSON, images locked to digests; never changed
  digest text NOT NULL,
  notes text NOT NULL DEFAULT '[]',
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, version),
  UNIQUE (org_id, id)
);

CREATE TABLE devices (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  fleet_id uuid NOT NULL,
  name text NOT NULL,
  public_key text NOT NULL UNIQUE,
  wireguard_public_key text,
  hardware text NOT NULL DEFAULT '{}',
  architecture text NOT NULL,
  variant text NOT NULL DEFAULT '',
  agent_version text,
  online boolean NOT NULL DEFAULT false,
  last_seen_at timestamptz,
  registered_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz,
  removed_at timestamptz,
  desired_version bigint NOT NULL DEFAULT 0,
  published_version bigint NOT NULL DEFAULT 0,   -- what the broker holds; behind desired_version until published
  desired_release_id uuid,
  desired_rollout_id uuid,
  desired bytea,
  FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id),
  UNIQUE (org_id, id)
);
CREATE INDEX devices_by_fleet ON devices (org_id, fleet_id);
CREATE INDEX devices_unpublished ON devices (id) WHERE published_version < desired_version;
CREATE INDEX devices_online ON devices (id) WHERE online;

CREATE TABLE deployments (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  release_id uuid NOT NULL,
  fleet_id uuid,
  device_ids uuid[],
  soak_ms bigint NOT NULL,
  failure_timeout_ms bigint NOT NULL,
  max_failed_ratio double precision NOT NULL,
  state text NOT NULL DEFAULT 'PENDING',
  rollout_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (org_id, release_id) REFERENCES releases (org_id, id),
  CHECK ((fleet_id IS NULL) <> (device_ids IS NULL))
);
CREATE INDEX deployments_pending ON deployments (created_at) WHERE state = 'PENDING';

CREATE TABLE rollouts (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  deployment_id uuid NOT NULL UNIQUE REFERENCES deployments,
  release_id uuid NOT NULL,
  fleet_id uuid,
  state text NOT NULL DEFAULT 'RUNNING',
  reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE INDEX rollouts_running ON rollouts (id) WHERE state = 'RUNNING';

CREATE TABLE rollout_devices (
  org_id uuid NOT NULL,
  rollout_id uuid NOT NULL REFERENCES rollouts,
  device_id uuid NOT NULL,
  state text NOT NULL DEFAULT 'PENDING',
  reason text,
  desired_version bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (rollout_id, device_id),
  FOREIGN KEY (org_id, device_id) REFERENCES devices (org_id, id)
);
CREATE INDEX rollout_devices_by_device ON rollout_devices (device_id);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['api_keys','fleets','provisioning_keys','releases','devices','deployments','rollouts','rollout_devices'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id))', t);
  END LOOP;
  ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
  ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
  CREATE POLICY tenant ON organizations USING (flock_visible(id)) WITH CHECK (flock_visible(id));
END $$;

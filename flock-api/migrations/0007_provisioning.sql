-- Provisioning keys that ask for more than the secret: a network, an administrator's word, or a device known beforehand.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE provisioning_keys ADD COLUMN allowed_networks text[] NOT NULL DEFAULT '{}';   -- CIDR; empty: from anywhere
ALTER TABLE provisioning_keys ADD COLUMN labels jsonb NOT NULL DEFAULT '{}';              -- what its devices get
ALTER TABLE provisioning_keys ADD COLUMN approval_required boolean NOT NULL DEFAULT false;
ALTER TABLE provisioning_keys ADD COLUMN mode text NOT NULL DEFAULT 'OPEN' CHECK (mode IN ('OPEN', 'PREREGISTERED'));
ALTER TABLE provisioning_keys ADD UNIQUE (org_id, id);

-- Devices that a key in the mode PREREGISTERED lets in, by the RFC 7638 thumbprint of their key.
CREATE TABLE preregistrations (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  key_id uuid NOT NULL,
  fleet_id uuid NOT NULL,       -- where the device comes in; the key's own unless said otherwise
  thumbprint text NOT NULL,
  name text,
  device_id uuid,               -- once it came
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (key_id, thumbprint),
  FOREIGN KEY (org_id, key_id) REFERENCES provisioning_keys (org_id, id) ON DELETE CASCADE,
  FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id) ON DELETE CASCADE
);

-- The waiting room. A device asks again until somebody decides.
CREATE TABLE device_requests (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  fleet_id uuid NOT NULL,
  key_id uuid NOT NULL,
  thumbprint text NOT NULL,
  name text NOT NULL,
  hardware text NOT NULL,
  agent_version text,
  ip text NOT NULL DEFAULT '',
  state text NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'APPROVED', 'REJECTED', 'ADMITTED')),
  device_id uuid,
  created_at timestamptz NOT NULL DEFAULT now(),
  asked_at timestamptz NOT NULL DEFAULT now(),
  decided_at timestamptz,
  decided_by text,
  UNIQUE (key_id, thumbprint),
  FOREIGN KEY (org_id, key_id) REFERENCES provisioning_keys (org_id, id) ON DELETE CASCADE,
  FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id) ON DELETE CASCADE
);
CREATE INDEX device_requests_by_org ON device_requests (org_id, id);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['preregistrations','device_requests'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id))', t);
    EXECUTE format('CREATE POLICY fleets ON %I AS RESTRICTIVE USING (flock_in_fleets(fleet_id)) WITH CHECK (flock_in_fleets(fleet_id))', t);
  END LOOP;
END $$;

-- Environment variables of an organization, a fleet or a device. A secret is stored sealed, and so is every desired state, for it
-- holds the merged environment (services/sealing.h).
SELECT set_config('flock.system', 'on', true);

CREATE TABLE variables (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  level text NOT NULL CHECK (level IN ('organization', 'fleet', 'device')),
  fleet_id uuid,
  device_id uuid,
  owner_id uuid NOT NULL GENERATED ALWAYS AS (coalesce(device_id, fleet_id, org_id)) STORED,
  service text NOT NULL DEFAULT '',   -- '': every service
  name text NOT NULL,
  value text,                   -- of a plain one
  sealed text,                  -- of a secret
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  updated_by text NOT NULL,
  FOREIGN KEY (org_id, fleet_id) REFERENCES fleets (org_id, id) ON DELETE CASCADE,
  FOREIGN KEY (org_id, device_id) REFERENCES devices (org_id, id) ON DELETE CASCADE,
  UNIQUE (org_id, owner_id, service, name),
  CHECK ((fleet_id IS NOT NULL) = (level = 'fleet')),
  CHECK ((device_id IS NOT NULL) = (level = 'device')),
  CHECK ((value IS NULL) <> (sealed IS NULL))
);
CREATE INDEX variables_sealed ON variables (id) WHERE sealed IS NOT NULL;

ALTER TABLE variables ENABLE ROW LEVEL SECURITY;
ALTER TABLE variables FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON variables USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));
-- Who is limited to fleets sees what reaches his devices, and changes what is his fleets' or his devices' own. Devices have a
-- wall of their own, which stands in the sub-select too.
CREATE FUNCTION flock_owns_variable(fleet uuid, device uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT flock_in_fleets(fleet) OR EXISTS (SELECT FROM devices d WHERE d.id = device)
$$;
CREATE POLICY fleets_read ON variables AS RESTRICTIVE FOR SELECT
  USING (level = 'organization' OR flock_owns_variable(fleet_id, device_id));
CREATE POLICY fleets_insert ON variables AS RESTRICTIVE FOR INSERT WITH CHECK (flock_owns_variable(fleet_id, device_id));
CREATE POLICY fleets_update ON variables AS RESTRICTIVE FOR UPDATE
  USING (flock_owns_variable(fleet_id, device_id)) WITH CHECK (flock_owns_variable(fleet_id, device_id));
CREATE POLICY fleets_delete ON variables AS RESTRICTIVE FOR DELETE USING (flock_owns_variable(fleet_id, device_id));

-- Set when a variable that reaches the device was changed; the scheduler makes its desired state anew.
ALTER TABLE devices ADD COLUMN desired_stale boolean NOT NULL DEFAULT false;
CREATE INDEX devices_stale ON devices (id) WHERE desired_stale;
-- A removed device whose desired state the broker still holds.
CREATE INDEX devices_to_clear ON devices (id) WHERE removed_at IS NOT NULL AND desired IS NOT NULL;

-- Another fleet has other variables.
CREATE FUNCTION flock_device_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.desired_stale := true;
  RETURN NEW;
END $$;
CREATE TRIGGER device_moved BEFORE UPDATE OF fleet_id ON devices
  FOR EACH ROW WHEN (OLD.fleet_id IS DISTINCT FROM NEW.fleet_id) EXECUTE FUNCTION flock_device_moved();

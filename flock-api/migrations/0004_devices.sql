-- What people say of a device, what became of it, work on many devices at once, and the indexes under sorted pages.
SELECT set_config('flock.system', 'on', true);

ALTER TABLE devices
  ADD COLUMN labels jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),           -- text -> text
  ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),   -- text -> text, number, boolean
  ADD COLUMN notes text NOT NULL DEFAULT '',
  ADD COLUMN decommissioned_at timestamptz,
  ADD COLUMN decommission_reason text,
  ADD COLUMN removed_from_fleet_id uuid,      -- where undelete brings it back to
  ADD COLUMN clone_suspected_at timestamptz,
  ALTER COLUMN hardware DROP DEFAULT,
  ALTER COLUMN hardware TYPE jsonb USING hardware::jsonb,
  ALTER COLUMN hardware SET DEFAULT '{}',
  ALTER COLUMN name TYPE text COLLATE "C",    -- sorted by bytes, like every text of a list
  ADD CHECK (decommissioned_at IS NULL OR revoked_at IS NOT NULL);

-- Pages are ranges of these. Removed devices are in no list.
CREATE INDEX devices_by_name ON devices (org_id, name, id);
CREATE INDEX devices_by_registered ON devices (org_id, registered_at, id);
CREATE INDEX devices_by_last_seen ON devices (org_id, (coalesce(last_seen_at, 'epoch'::timestamptz)), id);
CREATE INDEX devices_by_labels ON devices USING gin (labels jsonb_path_ops);

-- Under row-level security a condition whose operator could leak a value may not be looked up in an index before the policy was
-- asked, and jsonb's `@>` is not known to be safe. Equality of text is: so labels stand here once more, for lists that name one.
CREATE TABLE device_labels (
  org_id uuid NOT NULL,
  device_id uuid NOT NULL REFERENCES devices ON DELETE CASCADE,
  key text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  PRIMARY KEY (device_id, key)
);
CREATE INDEX device_labels_by_value ON device_labels (org_id, key, value, device_id);
CREATE FUNCTION flock_copy_labels() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    DELETE FROM device_labels l WHERE l.device_id = NEW.id AND NEW.labels ->> l.key IS DISTINCT FROM l.value;
  END IF;
  INSERT INTO device_labels (org_id, device_id, key, value)
    SELECT NEW.org_id, NEW.id, e.key, e.value FROM jsonb_each_text(NEW.labels) e ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$;
CREATE TRIGGER devices_labels_inserted AFTER INSERT ON devices FOR EACH ROW WHEN (NEW.labels <> '{}')
  EXECUTE FUNCTION flock_copy_labels();
CREATE TRIGGER devices_labels_updated AFTER UPDATE OF labels ON devices FOR EACH ROW WHEN (OLD.labels <> NEW.labels)
  EXECUTE FUNCTION flock_copy_labels();

-- What happened to a device, newest last. It outlives the device's removal.
CREATE TABLE device_history (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id uuid NOT NULL,
  device_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  kind text NOT NULL,
  actor text NOT NULL DEFAULT '',
  detail jsonb NOT NULL DEFAULT '{}',
  FOREIGN KEY (org_id, device_id) REFERENCES devices (org_id, id) ON DELETE CASCADE
);
CREATE INDEX device_history_by_device ON device_history (org_id, device_id, id);
INSERT INTO device_history (org_id, device_id, at, kind, actor)
  SELECT org_id, id, registered_at, 'REGISTERED', 'device' FROM devices;

-- Work that goes on after its request was answered. The devices are fixed when it is asked for, so that what was counted is
-- what is changed; they are forgotten at its end.
CREATE TABLE operations (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  kind text NOT NULL,
  state text NOT NULL CHECK (state IN ('RUNNING', 'DONE', 'FAILED')),
  actor text NOT NULL,
  fleets text[],                -- what its caller may see; NULL: every fleet
  request jsonb NOT NULL,
  device_ids uuid[],
  total_count bigint NOT NULL DEFAULT 0,
  changed_count bigint NOT NULL DEFAULT 0,
  problem text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
ALTER TABLE operations ALTER COLUMN device_ids SET STORAGE EXTERNAL;  -- read in slices
CREATE INDEX operations_by_org ON operations (org_id, id);
CREATE INDEX operations_running ON operations (id) WHERE state = 'RUNNING';

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['device_history', 'device_labels', 'operations'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id))', t);
  END LOOP;
  -- A removed device still belongs to those who saw it.
  DROP POLICY fleets ON devices;
  CREATE POLICY fleets ON devices AS RESTRICTIVE USING (flock_in_fleets(coalesce(fleet_id, removed_from_fleet_id)))
    WITH CHECK (flock_in_fleets(coalesce(fleet_id, removed_from_fleet_id)));
  CREATE POLICY fleets ON device_history AS RESTRICTIVE FOR SELECT
    USING (current_setting('flock.system', true) = 'on' OR EXISTS (SELECT FROM devices d WHERE d.id = device_id));
  -- Who is limited to fleets sees what was done in the same limits.
  CREATE POLICY fleets ON operations AS RESTRICTIVE USING (
    coalesce(current_setting('flock.fleets', true), '') IN ('', '*')
    OR fleets <@ string_to_array(current_setting('flock.fleets', true), ','));
END $$;

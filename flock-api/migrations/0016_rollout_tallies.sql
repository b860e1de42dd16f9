-- A rollout's devices, counted while they change: what a decision asks for costs the same for ten devices and for a million.
SELECT set_config('flock.system', 'on', true);

-- What decisions ask about a device beside its part in the rollout stands with that part. Who adds a device says whether it is
-- online, from `devices`, in the same statement; device_turns keeps it so. Only the scheduler's leader adds devices.
ALTER TABLE rollout_devices
  ADD COLUMN online boolean NOT NULL DEFAULT false,
  ADD COLUMN wanted boolean NOT NULL DEFAULT false;  -- what the device is to run comes from this rollout
UPDATE rollout_devices x SET online = d.online, wanted = x.desired_version > 0 AND d.desired_rollout_id IS NOT DISTINCT FROM x.rollout_id
  FROM devices d WHERE d.org_id = x.org_id AND d.id = x.device_id;
ALTER TABLE rollout_devices ALTER COLUMN online DROP DEFAULT;

-- One more device that looks like this, or one less: the sum over the rows of a rollout is how many there are. Rows are only added,
-- so that no two transactions wait for each other; the scheduler puts them together now and then. What began or settled so long ago
-- that nobody asks for the time any more stands under '-infinity' then.
CREATE TABLE rollout_tallies (
  org_id uuid NOT NULL,
  rollout_id uuid NOT NULL,
  stage integer NOT NULL,
  state text NOT NULL,
  online boolean NOT NULL,
  wanted boolean NOT NULL,
  unhealthy boolean NOT NULL,
  restarting boolean NOT NULL,
  began_at timestamptz NOT NULL,    -- '-infinity': it has not begun
  settled_at timestamptz NOT NULL,  -- confirmed or failed in this minute; '-infinity': neither
  count bigint NOT NULL
);
CREATE INDEX rollout_tallies_of ON rollout_tallies (rollout_id);
-- Rows come and go by the thousand.
ALTER TABLE rollout_tallies SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                                 autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

CREATE FUNCTION flock_settled_minute(state text, at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN state IN ('CONFIRMED', 'FAILED') THEN date_trunc('minute', at, 'UTC') ELSE '-infinity'::timestamptz END
$$;
CREATE FUNCTION flock_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO rollout_tallies (org_id, rollout_id, stage, state, online, wanted, unhealthy, restarting, began_at, settled_at, count)
    SELECT org_id, rollout_id, stage, state, online, wanted, unhealthy, restarting, coalesce(began_at, '-infinity'),
        flock_settled_minute(state, updated_at), TG_ARGV[0]::bigint * count(*)
      FROM changed GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;
  RETURN NULL;
END $$;
CREATE TRIGGER tally_inserted AFTER INSERT ON rollout_devices REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION flock_tally('1');
CREATE TRIGGER tally_after AFTER UPDATE ON rollout_devices REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION flock_tally('1');
CREATE TRIGGER tally_before AFTER UPDATE ON rollout_devices REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION flock_tally('-1');
CREATE TRIGGER tally_deleted AFTER DELETE ON rollout_devices REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION flock_tally('-1');
INSERT INTO rollout_tallies (org_id, rollout_id, stage, state, online, wanted, unhealthy, restarting, began_at, settled_at, count)
  SELECT org_id, rollout_id, stage, state, online, wanted, unhealthy, restarting, coalesce(began_at, '-infinity'),
      flock_settled_minute(state, updated_at), count(*)
    FROM rollout_devices GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10;

-- Devices that came, went or were revoked since the scheduler looked last. Its rollouts hear of it in its next round: whoever says
-- that a device is there waits for no rollout.
CREATE TABLE device_turns (
  org_id uuid NOT NULL,
  device_id uuid NOT NULL
);
ALTER TABLE device_turns SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE FUNCTION flock_device_turned() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO device_turns (org_id, device_id) VALUES (NEW.org_id, NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER devices_turned AFTER UPDATE OF online, revoked_at ON devices FOR EACH ROW
  WHEN (OLD.online <> NEW.online OR (OLD.revoked_at IS NULL) <> (NEW.revoked_at IS NULL)) EXECUTE FUNCTION flock_device_turned();

-- What a decision looks for among a million rows.
DROP INDEX rollout_devices_waiting;
CREATE INDEX rollout_devices_waiting ON rollout_devices (rollout_id, online, stage, place) WHERE state = 'WAITING';
CREATE INDEX rollout_devices_failed ON rollout_devices (rollout_id, state, left(reason, 200))
  WHERE state IN ('FAILED', 'ROLLBACK_FAILED');
CREATE INDEX rollout_devices_moving ON rollout_devices (rollout_id, updated_at)
  WHERE online AND desired_version > 0 AND state IN ('DELIVERED', 'DOWNLOADING', 'STARTING', 'SOAKING', 'ROLLING_BACK');

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['rollout_tallies', 'device_turns'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id))', t);
  END LOOP;
END $$;

-- A removed device leaves its fleet, so that an empty fleet can be deleted, and gives its key free, so that the same hardware
-- can come in again with a provisioning key. Its row stays for the history of rollouts.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE devices ALTER COLUMN fleet_id DROP NOT NULL;
UPDATE devices SET fleet_id = NULL WHERE removed_at IS NOT NULL;
ALTER TABLE devices DROP CONSTRAINT devices_public_key_key;
CREATE UNIQUE INDEX devices_by_public_key ON devices (public_key) WHERE removed_at IS NULL;
ALTER TABLE devices ADD CHECK (removed_at IS NOT NULL OR fleet_id IS NOT NULL);

-- A device that failed may be given the release again: by the rollout's retries, or by an operator.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE rollout_devices ADD COLUMN retries integer NOT NULL DEFAULT 0;  -- how often it was

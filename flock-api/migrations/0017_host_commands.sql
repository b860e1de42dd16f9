-- Host commands: what a deployment asks of the machines themselves, with a release or in place of one (services/host_command_json.h).
ALTER TABLE deployments
  ADD COLUMN host_command jsonb,
  ALTER COLUMN release_id DROP NOT NULL,
  ADD CONSTRAINT deployments_do_something CHECK (release_id IS NOT NULL OR host_command IS NOT NULL);
ALTER TABLE rollouts ALTER COLUMN release_id DROP NOT NULL;  -- NULL: every device keeps its own
ALTER TABLE rollout_devices ADD COLUMN host_command jsonb;   -- how far it is, as the device said last

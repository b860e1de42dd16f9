-- Rollouts in stages (domain/rollout_decide.h): how it is done stands with the deployment, how far it is with the rollout.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE deployments
  ADD COLUMN strategy jsonb NOT NULL DEFAULT '{"kind":"immediate"}',
  ADD COLUMN created_by text;

ALTER TABLE rollouts
  ADD COLUMN stage integer NOT NULL DEFAULT 0,              -- the open one
  ADD COLUMN stage_ends bigint[] NOT NULL DEFAULT '{0}',    -- how many devices each stage reaches
  ADD COLUMN progress jsonb NOT NULL DEFAULT '{}',          -- what else the engine remembers
  ADD COLUMN gates jsonb NOT NULL DEFAULT '[]',             -- as they were measured last
  ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(), -- of the last decision
  ADD COLUMN previous_deployment_id uuid REFERENCES deployments;  -- the fleet's, before this one became it
DROP INDEX rollouts_running;
CREATE INDEX rollouts_open ON rollouts (id) WHERE ended_at IS NULL;

ALTER TABLE rollout_devices
  ADD COLUMN stage integer NOT NULL DEFAULT 0,
  ADD COLUMN place bigint NOT NULL DEFAULT 0,    -- in the order in which devices begin
  ADD COLUMN began_at timestamptz,               -- NULL: waits for its stage
  ADD COLUMN previous_release_id uuid,           -- what it was to run before; NULL: nothing
  ADD COLUMN unhealthy boolean NOT NULL DEFAULT false,
  ADD COLUMN restarting boolean NOT NULL DEFAULT false;
UPDATE rollout_devices SET began_at = updated_at;
CREATE INDEX rollout_devices_waiting ON rollout_devices (rollout_id, place) WHERE state = 'WAITING';
-- What is to get a desired state: it begins, or goes back.
CREATE INDEX rollout_devices_to_make ON rollout_devices (began_at) WHERE desired_version = 0 AND state IN ('PENDING', 'ROLLING_BACK');

-- Every decision with what it was made from, and every order of an operator.
CREATE TABLE rollout_decisions (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  rollout_id uuid NOT NULL REFERENCES rollouts ON DELETE CASCADE,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  step text NOT NULL,
  actor text,            -- NULL: the engine itself
  state text NOT NULL,   -- of the rollout, after it
  stage integer NOT NULL,
  devices bigint,        -- that the step was about
  why text NOT NULL,
  seen jsonb NOT NULL,
  told boolean NOT NULL  -- to the other targets, where they are to hear of it
);
CREATE INDEX rollout_decisions_of ON rollout_decisions (rollout_id, id);
CREATE INDEX rollout_decisions_untold ON rollout_decisions (id) WHERE NOT told;
ALTER TABLE rollout_decisions ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollout_decisions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON rollout_decisions USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));

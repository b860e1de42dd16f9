-- What the gates of rollouts that look elsewhere found last (services/gate_checks.h), and what their requests are signed with.
SELECT set_config('flock.system', 'on', true);
CREATE TABLE rollout_checks (
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  rollout_id uuid NOT NULL REFERENCES rollouts ON DELETE CASCADE,
  gate integer NOT NULL,            -- its place in the strategy, from 0
  checked_at timestamptz NOT NULL,  -- when the check began
  value double precision,           -- NULL: it could not be measured
  sample bigint NOT NULL,           -- devices
  verdict text NOT NULL,
  reason text NOT NULL,             -- in words
  evidence jsonb,                   -- what a comparison gathered so far
  PRIMARY KEY (rollout_id, gate)
);
ALTER TABLE rollout_checks ENABLE ROW LEVEL SECURITY;
ALTER TABLE rollout_checks FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON rollout_checks USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));

CREATE TABLE gate_secrets (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  deployment_id uuid NOT NULL REFERENCES deployments ON DELETE CASCADE,
  gate integer NOT NULL,
  secret text NOT NULL,             -- sealed
  UNIQUE (deployment_id, gate)
);
ALTER TABLE gate_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE gate_secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON gate_secrets USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));

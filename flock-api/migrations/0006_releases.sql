-- A release begins as a draft or final, may be found invalid, and leaves a stone behind when it is deleted: rollouts of the
-- past name it.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE releases ADD COLUMN state text NOT NULL DEFAULT 'FINAL' CHECK (state IN ('DRAFT', 'FINAL', 'INVALID'));
ALTER TABLE releases ADD COLUMN invalid_reason text;
ALTER TABLE releases ADD COLUMN tags text[] NOT NULL DEFAULT '{}';
ALTER TABLE releases ADD COLUMN finalized_at timestamptz;
ALTER TABLE releases ADD COLUMN deleted_at timestamptz;   -- compose and workload are empty then
UPDATE releases SET finalized_at = created_at;
ALTER TABLE releases ALTER COLUMN finalized_at SET DEFAULT now();
ALTER TABLE releases ADD CHECK ((state = 'INVALID') = (invalid_reason IS NOT NULL));
ALTER TABLE releases ADD CHECK (state <> 'DRAFT' OR finalized_at IS NULL);
ALTER TABLE releases DROP CONSTRAINT releases_org_id_version_key;
CREATE UNIQUE INDEX releases_by_version ON releases (org_id, version) WHERE deleted_at IS NULL;
CREATE INDEX releases_by_org ON releases (org_id, id) WHERE deleted_at IS NULL;
CREATE INDEX releases_by_tag ON releases USING gin (tags);
CREATE INDEX deployments_by_release ON deployments (org_id, release_id);
CREATE INDEX devices_by_release ON devices (org_id, desired_release_id) WHERE removed_at IS NULL;

-- How many old releases an organization keeps. No row: all of them.
CREATE TABLE release_retention (
  org_id uuid PRIMARY KEY REFERENCES organizations ON DELETE CASCADE,
  keep_last bigint CHECK (keep_last > 0),
  keep_days bigint CHECK (keep_days > 0)
);
ALTER TABLE release_retention ENABLE ROW LEVEL SECURITY;
ALTER TABLE release_retention FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON release_retention USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));

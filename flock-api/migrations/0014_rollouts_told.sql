-- The state of a rollout that the other targets were told of last, its start or its end: what was not told because of a crash is
-- told afterwards.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE rollouts ADD COLUMN told_state text;
UPDATE rollouts SET told_state = state;
CREATE INDEX rollouts_untold ON rollouts (id) WHERE told_state IS NULL OR (ended_at IS NOT NULL AND told_state <> state);

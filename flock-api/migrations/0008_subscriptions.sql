-- Where customers want to be told of events (Standard Webhooks). Stored here; delivery has its own tables.
SELECT set_config('flock.system', 'on', true);
CREATE TABLE event_subscriptions (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
  name text NOT NULL,
  url text NOT NULL,
  event_types text[] NOT NULL,
  filter text NOT NULL DEFAULT '',      -- the canonical text of the filter grammar
  enabled boolean NOT NULL DEFAULT true,
  -- whsec_..., sealed: it signs, so it cannot be kept as a hash.
  secret text NOT NULL,
  previous_secret text,                 -- signs too until previous_until, so that receivers can follow a rotation
  previous_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, name),
  CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);
CREATE INDEX event_subscriptions_by_org ON event_subscriptions (org_id, id);
ALTER TABLE event_subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_subscriptions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON event_subscriptions USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));

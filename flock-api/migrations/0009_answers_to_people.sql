-- An answer to an Idempotency-Key belongs to an organization, or to a person who asked for what is above organizations: to make
-- one, to enter one. That one is seen by the system alone.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey;
ALTER TABLE idempotency_keys ALTER COLUMN org_id DROP NOT NULL;
ALTER TABLE idempotency_keys ADD COLUMN user_id uuid REFERENCES users ON DELETE CASCADE;
ALTER TABLE idempotency_keys ADD COLUMN owner_id uuid NOT NULL GENERATED ALWAYS AS (coalesce(org_id, user_id)) STORED;
ALTER TABLE idempotency_keys ADD CHECK (num_nonnulls(org_id, user_id) = 1);
ALTER TABLE idempotency_keys ADD PRIMARY KEY (owner_id, principal, operation, key);

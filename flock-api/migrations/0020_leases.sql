-- Leaders are told from those that only believe that they lead.
-- Who leads, by what (the keys are Database::lead's), and in which term.
CREATE TABLE leases (
  key bigint PRIMARY KEY,
  term bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  -- A change of the term is one of a key, which waits for those who hold it FOR KEY SHARE; an extension waits for nobody.
  UNIQUE (key, term)
);
ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE leases FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON leases USING (current_setting('flock.system', true) = 'on') WITH CHECK (current_setting('flock.system', true) = 'on');
-- Refuses the transaction of a leader whose term is over; otherwise no other term begins before its end. One whose program stopped
-- in the middle of it is ended, so that nobody waits for what it holds.
CREATE FUNCTION flock_fence(lease bigint, number bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM leases WHERE key = lease AND term = number FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'term % of this leader is over: another process leads, and nothing is written', number USING ERRCODE = 'FL001';
  END IF;
  PERFORM set_config('idle_in_transaction_session_timeout', '5000', true);
END $$;

-- What the scheduler looks for in every round: nothing, when every device has its release.
CREATE INDEX devices_without_release ON devices (id) WHERE desired_release_id IS NULL AND revoked_at IS NULL AND removed_at IS NULL;

-- What a device was told to do. A command waits for a device that is offline until it expires.
SELECT set_config('flock.system', 'on', true);
CREATE TABLE device_commands (
  id uuid PRIMARY KEY,
  org_id uuid NOT NULL,
  device_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('restart_service', 'reboot', 'identify', 'purge')),
  service text NOT NULL DEFAULT '',
  volumes text[] NOT NULL DEFAULT '{}',   -- purge; empty: all of the service
  seconds integer NOT NULL DEFAULT 0,     -- identify
  state text NOT NULL DEFAULT 'PENDING'
    CHECK (state IN ('PENDING', 'SENT', 'STARTED', 'DONE', 'FAILED', 'EXPIRED', 'CANCELLED')),
  message text NOT NULL DEFAULT '',
  actor text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  changed_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  expires_at timestamptz NOT NULL,
  FOREIGN KEY (org_id, device_id) REFERENCES devices (org_id, id) ON DELETE CASCADE
);
CREATE INDEX device_commands_by_device ON device_commands (org_id, device_id, id);
CREATE INDEX device_commands_open ON device_commands (device_id) WHERE state IN ('PENDING', 'SENT', 'STARTED');
ALTER TABLE device_commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE device_commands FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON device_commands USING (flock_visible(org_id)) WITH CHECK (flock_visible(org_id));
CREATE POLICY fleets ON device_commands AS RESTRICTIVE
  USING (current_setting('flock.system', true) = 'on' OR EXISTS (SELECT FROM devices d WHERE d.id = device_id));

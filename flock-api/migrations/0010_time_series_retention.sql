-- How long an organization's time series are kept; NULL: as long as the configuration says.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE organizations
  ADD COLUMN telemetry_retention_days integer CHECK (telemetry_retention_days BETWEEN 1 AND 400),
  ADD COLUMN logs_retention_days integer CHECK (logs_retention_days BETWEEN 1 AND 400);

-- Since when and why a device is online or offline: shown in lists too, and while the store of time series is away. Nothing for a
-- device that did not come or go since.
ALTER TABLE devices
  ADD COLUMN turned_at timestamptz,
  ADD COLUMN turned_reason text;

-- Which message of a device said last whether it is there, so that late and repeated ones change nothing (domain/presence.h), and
-- after how much silence it counts as offline.
ALTER TABLE devices
  ADD COLUMN presence_seq bigint NOT NULL DEFAULT 0,
  ADD COLUMN session_seq bigint NOT NULL DEFAULT 0,
  ADD COLUMN session_before bigint NOT NULL DEFAULT 0,
  ADD COLUMN silent_after_ms bigint NOT NULL DEFAULT 180000;

-- Who a deployment is for: fleet, list and filter each narrow it (domain/selector.h). Who it takes from other rollouts, and
-- whether devices that come to match later join.
SELECT set_config('flock.system', 'on', true);
ALTER TABLE deployments
  DROP CONSTRAINT deployments_check,               -- fleet and list can stand together, or neither of them
  ADD COLUMN filter text NOT NULL DEFAULT '',      -- canonical (docs/filter.md)
  ADD COLUMN membership text NOT NULL DEFAULT 'DYNAMIC' CHECK (membership IN ('DYNAMIC', 'FROZEN')),
  ADD COLUMN priority integer NOT NULL DEFAULT 0,
  ADD COLUMN on_conflict text NOT NULL DEFAULT 'TAKE_OVER' CHECK (on_conflict IN ('TAKE_OVER', 'REFUSE', 'LEAVE_OUT')),
  -- Devices that come to match get its release. A whole fleet's stands in fleets.deployment_id instead.
  ADD COLUMN stands boolean NOT NULL DEFAULT false,
  ADD COLUMN displaced_by uuid,                    -- the newer deployment for the same devices; NULL again when that is taken back
  ADD CHECK (fleet_id IS NOT NULL OR device_ids IS NOT NULL OR filter <> '');
UPDATE deployments SET membership = 'FROZEN' WHERE device_ids IS NOT NULL;
CREATE INDEX deployments_standing ON deployments (org_id) WHERE stands;

-- A device that is new, or was changed in what filters ask about: it may match deployments that stand. The scheduler looks, and
-- takes the mark away.
ALTER TABLE devices ADD COLUMN selection_stale boolean NOT NULL DEFAULT false;
ALTER TABLE devices ALTER COLUMN selection_stale SET DEFAULT true;
CREATE INDEX devices_to_select ON devices (id) WHERE selection_stale;
CREATE FUNCTION flock_device_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.selection_stale := true;
  RETURN NEW;
END $$;
CREATE TRIGGER device_changed
  BEFORE UPDATE OF fleet_id, name, labels, attributes, notes, hardware, architecture, variant, agent_version, revoked_at ON devices
  FOR EACH ROW WHEN ((OLD.fleet_id, OLD.name, OLD.labels, OLD.attributes, OLD.notes, OLD.hardware, OLD.architecture, OLD.variant,
                      OLD.agent_version, OLD.revoked_at)
    IS DISTINCT FROM (NEW.fleet_id, NEW.name, NEW.labels, NEW.attributes, NEW.notes, NEW.hardware, NEW.architecture, NEW.variant,
                      NEW.agent_version, NEW.revoked_at))
  EXECUTE FUNCTION flock_device_changed();

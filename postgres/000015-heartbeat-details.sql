-- What the newest heartbeat says of the programs and the machine of a node. Null if it says nothing of it.
ALTER TABLE heartbeats
  ADD COLUMN agent_version text,
  ADD COLUMN xray_version text,
  ADD COLUMN telemt_version text,
  ADD COLUMN cpu_percent double precision,
  ADD COLUMN memory_bytes bigint,
  ADD COLUMN uptime_seconds bigint;

ALTER TABLE nodes
  -- The change_seq of the newest change of the node's own settings. A change of its links does not count.
  ADD COLUMN settings_seq bigint NOT NULL DEFAULT 0,
  -- Set while Core itself has rolled the node back: when, from which revision, and what the node reported
  -- of that revision. pinned_revision has the revision that it was rolled back to.
  ADD COLUMN faulty_at timestamptz,
  ADD COLUMN faulty_revision integer,
  ADD COLUMN faulty_message text,
  ADD COLUMN faulty_code text,
  -- When the node refused the settings that it was rolled back to, too.
  ADD COLUMN faulty_again_at timestamptz,
  -- Revisions that Core skipped because the node had reported one of them, which this database never
  -- issued: it was restored from an older backup.
  ADD COLUMN skipped_revisions int4range;

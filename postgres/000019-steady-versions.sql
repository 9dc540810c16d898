ALTER TABLE heartbeats
  -- The version of Xray that the node's configuration is rendered for. It is the reported one, unless a node
  -- reports one version after the other.
  ADD COLUMN rendered_xray_version text,
  -- Changes of the reported version, each within an hour of the one before it, and when the newest one came.
  ADD COLUMN xray_changes integer NOT NULL DEFAULT 0,
  ADD COLUMN xray_changed_at timestamptz;
UPDATE heartbeats SET rendered_xray_version = xray_version;

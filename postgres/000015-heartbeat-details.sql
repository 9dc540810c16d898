-- What the newest heartbeat says of the programs and the machine of a node. Null if it says nothing of it.
ALTER TABLE heartbeats
  ADD COLUMN agent_version text,
  ADD COLUMN xray_version text,
  ADD COLUMN telemt_version text,
  ADD COLUMN cpu_percent real,
  ADD COLUMN memory_bytes bigint,
  ADD COLUMN uptime_seconds bigint;

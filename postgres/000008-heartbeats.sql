-- What a heartbeat says has a narrow row of its own. In `nodes` each heartbeat locked and rewrote a row
-- of some thirty columns, which took Postgres twice as long. `nodes.last_seen_at` goes on saying when a
-- node registered, applied a configuration or reported an error; the later of the two counts.
CREATE TABLE heartbeats (
  node_id integer PRIMARY KEY REFERENCES nodes ON DELETE CASCADE,
  last_seen_at timestamptz NOT NULL,
  -- What the node says that it runs; null where it runs nothing yet.
  reported_revision bigint
) WITH (fillfactor = 50);

INSERT INTO heartbeats (node_id, last_seen_at, reported_revision)
SELECT id, last_seen_at, reported_revision FROM nodes WHERE last_seen_at IS NOT NULL;

ALTER TABLE nodes DROP COLUMN reported_revision;

-- Two rollups by the hour in place of one: by subscription and user, and by node and protocol. One of
-- all four has about as many rows as there are reports in a minute's merge, millions, and making it
-- was most of what a merge cost; these have as many as there are subscriptions, and nodes. A sum over
-- a subscription on a node reads the rows themselves. bench/README.md has the figures.

-- Where the old one is still being made for older rows, it could not be dropped.
KILL MUTATION WHERE database = currentDatabase() AND table = 'usage'
  AND command LIKE '%MATERIALIZE PROJECTION hourly%' SYNC;
ALTER TABLE usage DROP PROJECTION IF EXISTS hourly SETTINGS mutations_sync = 0;

ALTER TABLE usage ADD PROJECTION IF NOT EXISTS hourly_subscriptions (
  SELECT toStartOfHour(recorded_at) AS hour, subscription_id, user_id,
    sum(bytes_up), sum(bytes_down), count()
  GROUP BY hour, subscription_id, user_id
);
ALTER TABLE usage ADD PROJECTION IF NOT EXISTS hourly_nodes (
  SELECT toStartOfHour(recorded_at) AS hour, node_id, node_protocol_id,
    sum(bytes_up), sum(bytes_down), count()
  GROUP BY hour, node_id, node_protocol_id
);

-- For the rows that are there; in the background, and going on after a restart.
ALTER TABLE usage MATERIALIZE PROJECTION hourly_subscriptions SETTINGS mutations_sync = 0;
ALTER TABLE usage MATERIALIZE PROJECTION hourly_nodes SETTINGS mutations_sync = 0;

-- A subscription with a duration and no expiry has not started: its time runs from its first traffic.
ALTER TABLE subscriptions
  ADD COLUMN duration_seconds bigint CHECK (duration_seconds > 0),
  -- What another system calls the subscription, like marzban:alice. An import that is repeated finds by it
  -- what is there already.
  ADD COLUMN external_id text;
CREATE UNIQUE INDEX subscriptions_external_id ON subscriptions (external_id)
  WHERE external_id IS NOT NULL;

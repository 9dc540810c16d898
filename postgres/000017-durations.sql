-- A subscription with a duration and no expiry has not started: its time runs from its first traffic.
ALTER TABLE subscriptions ADD COLUMN duration_seconds bigint CHECK (duration_seconds > 0);

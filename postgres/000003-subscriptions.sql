-- Counters only ever grow, so that they stay equal to the sum of the rows (see audit/). What was
-- used in a period is the difference to the counters at the last reset.
ALTER TABLE subscriptions
  ADD COLUMN period_base_up bigint NOT NULL DEFAULT 0,
  ADD COLUMN period_base_down bigint NOT NULL DEFAULT 0,
  ADD COLUMN reset_period text NOT NULL DEFAULT 'none'
    CHECK (reset_period IN ('none', 'day', 'week', 'month')),
  -- Periods are counted from here, in UTC; see subscriptions/period.ts.
  ADD COLUMN anchor_at timestamptz NOT NULL DEFAULT now(),
  -- Null where nothing is ever reset.
  ADD COLUMN next_reset_at timestamptz,
  -- An operator's decision. status is derived from it and more; see subscriptions/status.ts.
  ADD COLUMN disabled boolean NOT NULL DEFAULT false,
  -- Highest warning given in this period: 0, 80 or 95.
  ADD COLUMN warned_percent smallint NOT NULL DEFAULT 0;
UPDATE subscriptions SET anchor_at = created_at, disabled = status = 'disabled',
  warned_percent = CASE status WHEN 'limited' THEN 95 ELSE 0 END;
CREATE INDEX subscriptions_reset ON subscriptions (next_reset_at) WHERE next_reset_at IS NOT NULL;
CREATE INDEX users_name ON users (name);

-- One row a reset.
CREATE TABLE subscription_resets (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id bigint NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
  cause text NOT NULL CHECK (cause IN ('schedule', 'operator')),
  -- The end of the period by the calendar; null where an operator ended it.
  due_at timestamptz,
  reset_at timestamptz NOT NULL DEFAULT now(),
  -- What the period that ended had used.
  used_up bigint NOT NULL,
  used_down bigint NOT NULL
);
CREATE INDEX subscription_resets_subscription ON subscription_resets (subscription_id, id);

-- What happened to subscriptions. Rows outlive their subscription, so there is no reference.
CREATE TABLE subscription_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  subscription_id bigint NOT NULL,
  kind text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  data json NOT NULL DEFAULT '{}',
  -- Not yet handed to the webhook's queue; see webhooks/dispatch.ts.
  pending boolean NOT NULL DEFAULT true
);
CREATE INDEX subscription_events_subscription ON subscription_events (subscription_id, id);
CREATE INDEX subscription_events_pending ON subscription_events (id) WHERE pending;
CREATE INDEX subscription_events_at ON subscription_events (at);

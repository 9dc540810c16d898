-- A subscription's page: where its client apps fetch their links. Its address holds a token, of which Core keeps
-- only the SHA-256. The table is one of its own, because settling rewrites the rows of subscriptions all the time.
CREATE TABLE subscription_pages (
  subscription_id bigint PRIMARY KEY REFERENCES subscriptions (id) ON DELETE CASCADE,
  token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
  created_at timestamptz NOT NULL DEFAULT now()
);

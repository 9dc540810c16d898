-- SHA-256 of the token in the address of a subscription's page. Null if it has none.
ALTER TABLE subscriptions ADD COLUMN page_token_hash bytea;
CREATE UNIQUE INDEX subscriptions_page_token ON subscriptions (page_token_hash);

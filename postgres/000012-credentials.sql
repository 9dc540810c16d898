-- What a client app holds, apart from what traffic is counted by.

-- From link_secret and the protocol Core derives the credential of each link that has no other. A
-- credential given for a subscription is that of all its links.
ALTER TABLE subscriptions
  ADD COLUMN link_secret uuid NOT NULL DEFAULT gen_random_uuid(),
  ADD COLUMN credential text;

-- The credential of one link. Null in a row from before credentials: there it is the UUID.
ALTER TABLE subscription_links ADD COLUMN credential text;

-- What a client app holds, apart from what traffic is counted by.

-- Core derives the credential of a link from link_secret and the protocol, unless the subscription or the link
-- has a given one. credential is the text as it was given. credential_uuid is what Xray reads the text as:
-- the UUID itself, or the UUID of version 5 of any other text. credential_key is that without its bytes 7 and
-- 8, which VLESS and Hysteria2 ignore: two credentials with the same key may be one user of a proxy.
ALTER TABLE subscriptions
  ADD COLUMN link_secret uuid NOT NULL DEFAULT gen_random_uuid(),
  ADD COLUMN credential text,
  ADD COLUMN credential_uuid uuid,
  ADD COLUMN credential_key bytea GENERATED ALWAYS AS (
    substr(uuid_send(credential_uuid), 1, 6) || substr(uuid_send(credential_uuid), 9)) STORED,
  ADD CONSTRAINT subscriptions_credential_whole
    CHECK ((credential IS NULL) = (credential_uuid IS NULL));
CREATE UNIQUE INDEX subscriptions_credential ON subscriptions (credential_key)
  WHERE credential_key IS NOT NULL;

-- The credential of one link. Null in a row from before credentials: there it is the UUID.
ALTER TABLE subscription_links
  ADD COLUMN credential text,
  ADD COLUMN credential_uuid uuid,
  ADD CONSTRAINT subscription_links_credential_whole
    CHECK ((credential IS NULL) = (credential_uuid IS NULL));

-- Imported UUIDs of one protocol may differ in bytes 7 and 8 only. VLESS and Hysteria2 served the last of them
-- under every one. All but the first get a new credential, so that each user is counted as himself.
UPDATE subscription_links l SET credential = given.credential::text, credential_uuid = given.credential
FROM (
  SELECT uuid, gen_random_uuid() AS credential, row_number() OVER (
    PARTITION BY node_protocol_id, substr(uuid_send(uuid), 1, 6), substr(uuid_send(uuid), 9)
    ORDER BY subscription_id) AS place
  FROM subscription_links
) AS given
WHERE l.uuid = given.uuid AND given.place > 1;

ALTER TABLE subscription_links
  ADD COLUMN credential_key bytea NOT NULL GENERATED ALWAYS AS (
    substr(uuid_send(coalesce(credential_uuid, uuid)), 1, 6)
    || substr(uuid_send(coalesce(credential_uuid, uuid)), 9)) STORED;
CREATE UNIQUE INDEX subscription_links_credential
  ON subscription_links (credential_key, node_protocol_id);

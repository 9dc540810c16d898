-- Who gets what: a protocol is in groups, a subscription has groups, and a link exists where they meet. So a
-- link needs no row. subscription_links keeps rows of links with something special about them only: a UUID
-- from before groups, or a credential of their own.

CREATE TABLE groups (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE protocol_groups (
  node_protocol_id bigint NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
  group_id integer NOT NULL REFERENCES groups (id),
  PRIMARY KEY (node_protocol_id, group_id)
);
CREATE INDEX protocol_groups_group ON protocol_groups (group_id, node_protocol_id);

CREATE TABLE subscription_groups (
  group_id integer NOT NULL REFERENCES groups (id),
  subscription_id bigint NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
  PRIMARY KEY (group_id, subscription_id)
);
CREATE INDEX subscription_groups_subscription ON subscription_groups (subscription_id, group_id);

-- Until now every subscription had a link to every protocol.
INSERT INTO groups (name) VALUES ('default');
INSERT INTO protocol_groups (node_protocol_id, group_id)
  SELECT p.id, g.id FROM node_protocols p CROSS JOIN groups g;
INSERT INTO subscription_groups (group_id, subscription_id)
  SELECT g.id, s.id FROM subscriptions s CROSS JOIN groups g;

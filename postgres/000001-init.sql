CREATE TABLE nodes (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  host text NOT NULL DEFAULT '',
  ip text NOT NULL DEFAULT '',
  region text NOT NULL DEFAULT '',
  -- SHA-256 of the auth key; null before registration and after a rekey or revocation.
  auth_key_hash bytea UNIQUE,
  revoked_at timestamptz,
  registered_at timestamptz,
  last_seen_at timestamptz,
  -- Grows with every change of what the node should run. See nodes/bump.ts.
  revision integer NOT NULL DEFAULT 1,
  revision_bumped_at timestamptz NOT NULL DEFAULT now(),
  -- A change came less than a second after the last bump: the worker bumps once more.
  revision_pending boolean NOT NULL DEFAULT false,
  applied_revision integer,
  sync_status text NOT NULL DEFAULT 'pending'
    CHECK (sync_status IN ('pending', 'synced', 'failed')),
  error_message text,
  error_code text,
  -- json, not jsonb: a node may send escapes (U+0000, lone surrogates) that jsonb refuses.
  error_details json,
  error_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX nodes_revision_pending ON nodes (id) WHERE revision_pending;

CREATE TABLE registration_codes (
  -- SHA-256 of the code.
  code_hash bytea PRIMARY KEY,
  node_id integer NOT NULL UNIQUE REFERENCES nodes (id) ON DELETE CASCADE,
  expires_at timestamptz NOT NULL
);

CREATE TABLE node_protocols (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  protocol text NOT NULL
    CHECK (protocol IN ('VLESS', 'VMESS', 'TROJAN', 'SHADOWSOCKS', 'HYSTERIA2', 'MTPROTO')),
  port integer NOT NULL CHECK (port BETWEEN 1 AND 65535),
  settings jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (node_id, port)
);

CREATE TABLE node_outbounds (
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  tag text NOT NULL,
  -- Null where the tag came from a usage report and no operator ever configured it.
  protocol text,
  settings jsonb NOT NULL DEFAULT '{}',
  configured boolean NOT NULL,
  position integer NOT NULL DEFAULT 0,
  traffic_bytes_up bigint NOT NULL DEFAULT 0,
  traffic_bytes_down bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (node_id, tag)
) WITH (fillfactor = 70);

CREATE TABLE routing_rules (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  node_id integer NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
  position integer NOT NULL,
  rule jsonb NOT NULL,
  UNIQUE (node_id, position)
);

CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE subscriptions (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES users (id),
  status text NOT NULL DEFAULT 'active'
    CHECK (status IN ('active', 'limited', 'expired', 'disabled')),
  traffic_limit_bytes bigint CHECK (traffic_limit_bytes > 0),
  traffic_bytes_up bigint NOT NULL DEFAULT 0,
  traffic_bytes_down bigint NOT NULL DEFAULT 0,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX subscriptions_user ON subscriptions (user_id);
CREATE INDEX subscriptions_expiry ON subscriptions (expires_at)
  WHERE expires_at IS NOT NULL AND status IN ('active', 'limited');

CREATE TABLE subscription_links (
  uuid uuid PRIMARY KEY,
  subscription_id bigint NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
  node_protocol_id bigint NOT NULL REFERENCES node_protocols (id) ON DELETE CASCADE,
  UNIQUE (subscription_id, node_protocol_id)
);
CREATE INDEX subscription_links_protocol ON subscription_links (node_protocol_id);

-- One row a Redis stream of the spool: how far it is sealed.
CREATE TABLE streams (
  stream text PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('usage', 'outbound', 'session')),
  shard integer NOT NULL,
  next_seq bigint NOT NULL DEFAULT 1,
  -- Redis id of the last sealed entry.
  sealed_id text NOT NULL DEFAULT '0-0',
  -- Rows settled that named a subscription or node that does not exist; they count towards nothing.
  unknown_rows bigint NOT NULL DEFAULT 0
);

-- A sealed range of a stream. Its range never changes; see ARCHITECTURE.md.
CREATE TABLE segments (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream text NOT NULL REFERENCES streams (stream),
  seq bigint NOT NULL,
  first_id text NOT NULL,
  last_id text NOT NULL,
  rows bigint NOT NULL,
  bytes bigint NOT NULL,
  -- Bytes ever appended to the stream up to and with last_id; what trim writes off.
  appended_bytes bigint NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'sealed' CHECK (state IN ('sealed', 'settled')),
  last_error text,
  sealed_at timestamptz NOT NULL DEFAULT now(),
  settled_at timestamptz,
  UNIQUE (stream, seq)
);
CREATE INDEX segments_unsettled ON segments (stream, seq) WHERE state = 'sealed';

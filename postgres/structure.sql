CREATE TABLE audits (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  ran_at timestamp with time zone NOT NULL DEFAULT now(),
  segments bigint NOT NULL,
  differences bigint NOT NULL,
  details json NOT NULL,
  CONSTRAINT audits_pkey PRIMARY KEY (id)
);

CREATE TABLE groups (
  id integer GENERATED ALWAYS AS IDENTITY NOT NULL,
  name text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT groups_name_key UNIQUE (name),
  CONSTRAINT groups_pkey PRIMARY KEY (id)
);

CREATE TABLE heartbeats (
  node_id integer NOT NULL,
  last_seen_at timestamp with time zone NOT NULL,
  reported_revision bigint,
  agent_version text,
  xray_version text,
  telemt_version text,
  cpu_percent double precision,
  memory_bytes bigint,
  uptime_seconds bigint,
  rendered_xray_version text,
  xray_changes integer NOT NULL DEFAULT 0,
  xray_changed_at timestamp with time zone,
  CONSTRAINT heartbeats_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT heartbeats_pkey PRIMARY KEY (node_id)
) WITH (fillfactor=50);

CREATE TABLE instance (
  is_only boolean NOT NULL DEFAULT true,
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  CONSTRAINT instance_is_only_check CHECK (is_only),
  CONSTRAINT instance_pkey PRIMARY KEY (is_only)
);

CREATE TABLE migrations (
  version integer NOT NULL,
  name text NOT NULL,
  hash text NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT migrations_pkey PRIMARY KEY (version)
);

CREATE TABLE node_outbounds (
  node_id integer NOT NULL,
  tag text NOT NULL,
  protocol text,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  configured boolean NOT NULL,
  position integer NOT NULL DEFAULT 0,
  traffic_bytes_up bigint NOT NULL DEFAULT 0,
  traffic_bytes_down bigint NOT NULL DEFAULT 0,
  options jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT node_outbounds_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT node_outbounds_pkey PRIMARY KEY (node_id, tag)
) WITH (fillfactor=70);

CREATE TABLE node_protocols (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  node_id integer NOT NULL,
  protocol text NOT NULL,
  port integer NOT NULL,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  listens_tcp boolean NOT NULL GENERATED ALWAYS AS ((protocol <> 'HYSTERIA2'::text) AND (NOT ((protocol = 'SHADOWSOCKS'::text) AND (COALESCE((settings ->> 'network'::text), ''::text) = 'udp'::text)))) STORED,
  listens_udp boolean NOT NULL GENERATED ALWAYS AS ((protocol = 'HYSTERIA2'::text) OR ((protocol = 'SHADOWSOCKS'::text) AND (COALESCE((settings ->> 'network'::text), ''::text) <> 'tcp'::text))) STORED,
  name text NOT NULL DEFAULT (gen_random_uuid())::text,
  CONSTRAINT node_protocols_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT node_protocols_pkey PRIMARY KEY (id),
  CONSTRAINT node_protocols_port_check CHECK (((port >= 1) AND (port <= 65535))),
  CONSTRAINT node_protocols_protocol_check CHECK ((protocol = ANY (ARRAY['VLESS'::text, 'VMESS'::text, 'TROJAN'::text, 'SHADOWSOCKS'::text, 'HYSTERIA2'::text, 'MTPROTO'::text]))),
  CONSTRAINT node_protocols_socket EXCLUDE USING btree (node_id WITH =, split_part((settings ->> 'listen'::text), ','::text, 1) WITH =) WHERE (((settings ->> 'listen'::text) ~ '^[/@]'::text)) DEFERRABLE,
  CONSTRAINT node_protocols_tcp EXCLUDE USING btree (node_id WITH =, port WITH =, COALESCE((settings ->> 'listen'::text), '0.0.0.0'::text) WITH =) WHERE ((listens_tcp AND (COALESCE((settings ->> 'listen'::text), ''::text) !~ '^[/@]'::text))) DEFERRABLE,
  CONSTRAINT node_protocols_udp EXCLUDE USING btree (node_id WITH =, port WITH =, COALESCE((settings ->> 'listen'::text), '0.0.0.0'::text) WITH =) WHERE (listens_udp) DEFERRABLE
);

CREATE TABLE node_reports (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  node_id integer NOT NULL,
  kind text NOT NULL,
  revision integer NOT NULL,
  message text,
  code text,
  details json,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT node_reports_kind_check CHECK ((kind = ANY (ARRAY['applied'::text, 'error'::text]))),
  CONSTRAINT node_reports_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT node_reports_pkey PRIMARY KEY (id)
);

CREATE TABLE node_revisions (
  node_id integer NOT NULL,
  revision integer NOT NULL,
  content_hash bytea NOT NULL,
  content_bytes integer NOT NULL,
  settings_hash bytea NOT NULL,
  causes text[] NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT node_revisions_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT node_revisions_pkey PRIMARY KEY (node_id, revision)
);

CREATE TABLE node_settings (
  node_id integer NOT NULL,
  settings_hash bytea NOT NULL,
  settings jsonb NOT NULL,
  CONSTRAINT node_settings_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT node_settings_pkey PRIMARY KEY (node_id, settings_hash)
);

CREATE TABLE nodes (
  id integer GENERATED ALWAYS AS IDENTITY NOT NULL,
  name text NOT NULL,
  host text NOT NULL DEFAULT ''::text,
  ip text NOT NULL DEFAULT ''::text,
  region text NOT NULL DEFAULT ''::text,
  auth_key_hash bytea,
  revoked_at timestamp with time zone,
  registered_at timestamp with time zone,
  last_seen_at timestamp with time zone,
  revision integer NOT NULL DEFAULT 1,
  applied_revision integer,
  sync_status text NOT NULL DEFAULT 'pending'::text,
  error_message text,
  error_code text,
  error_details json,
  error_at timestamp with time zone,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  change_seq bigint NOT NULL DEFAULT 0,
  changed_at timestamp with time zone,
  change_causes text[] NOT NULL DEFAULT '{}'::text[],
  published_seq bigint NOT NULL DEFAULT 0,
  published_at timestamp with time zone,
  content_hash bytea,
  content_bytes integer,
  publish_error text,
  publish_failed_seq bigint,
  publish_failed_at timestamp with time zone,
  pinned_revision integer,
  pinned_settings_hash bytea,
  maintenance_at timestamp with time zone,
  maintenance_reason text,
  reported_name text NOT NULL DEFAULT ''::text,
  reported_host text NOT NULL DEFAULT ''::text,
  reported_region text NOT NULL DEFAULT ''::text,
  settings_seq bigint NOT NULL DEFAULT 0,
  faulty_at timestamp with time zone,
  faulty_revision integer,
  faulty_message text,
  faulty_code text,
  faulty_again_at timestamp with time zone,
  skipped_revisions int4range,
  xray_settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  CONSTRAINT nodes_auth_key_hash_key UNIQUE (auth_key_hash),
  CONSTRAINT nodes_pkey PRIMARY KEY (id),
  CONSTRAINT nodes_sync_status_check CHECK ((sync_status = ANY (ARRAY['pending'::text, 'synced'::text, 'failed'::text])))
) WITH (fillfactor=70);

CREATE TABLE processes (
  id uuid NOT NULL,
  role text NOT NULL,
  host text NOT NULL,
  pid integer NOT NULL,
  started_at timestamp with time zone NOT NULL DEFAULT now(),
  seen_at timestamp with time zone NOT NULL DEFAULT now(),
  stopped_at timestamp with time zone,
  stores_away jsonb NOT NULL,
  CONSTRAINT processes_pkey PRIMARY KEY (id),
  CONSTRAINT processes_role_check CHECK ((role = ANY (ARRAY['api'::text, 'worker'::text])))
);

CREATE TABLE protocol_groups (
  node_protocol_id bigint NOT NULL,
  group_id integer NOT NULL,
  CONSTRAINT protocol_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES groups(id),
  CONSTRAINT protocol_groups_node_protocol_id_fkey FOREIGN KEY (node_protocol_id) REFERENCES node_protocols(id) ON DELETE CASCADE,
  CONSTRAINT protocol_groups_pkey PRIMARY KEY (node_protocol_id, group_id)
);

CREATE TABLE registration_codes (
  code_hash bytea NOT NULL,
  node_id integer NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT registration_codes_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT registration_codes_node_id_key UNIQUE (node_id),
  CONSTRAINT registration_codes_pkey PRIMARY KEY (code_hash)
);

CREATE TABLE rejected_rows (
  segment_id bigint NOT NULL,
  month integer NOT NULL,
  position integer NOT NULL,
  kind text NOT NULL,
  row_bytes bytea NOT NULL,
  row_json json NOT NULL,
  reason text NOT NULL,
  rejected_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT rejected_rows_kind_check CHECK ((kind = ANY (ARRAY['usage'::text, 'session'::text]))),
  CONSTRAINT rejected_rows_pkey PRIMARY KEY (segment_id, month, "position"),
  CONSTRAINT rejected_rows_segment_id_fkey FOREIGN KEY (segment_id) REFERENCES segments(id)
);

CREATE TABLE routing_rules (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  node_id integer NOT NULL,
  position integer NOT NULL,
  rule jsonb NOT NULL,
  CONSTRAINT routing_rules_node_id_fkey FOREIGN KEY (node_id) REFERENCES nodes(id) ON DELETE CASCADE,
  CONSTRAINT routing_rules_node_id_position_key UNIQUE (node_id, "position"),
  CONSTRAINT routing_rules_pkey PRIMARY KEY (id)
);

CREATE TABLE segment_prunings (
  settled_before timestamp with time zone NOT NULL,
  up_to_id bigint NOT NULL,
  segments bigint NOT NULL,
  usage_rows bigint NOT NULL,
  session_rows bigint NOT NULL,
  CONSTRAINT segment_prunings_pkey PRIMARY KEY (settled_before)
);

CREATE TABLE segments (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  stream text NOT NULL,
  seq bigint NOT NULL,
  first_id text NOT NULL,
  last_id text NOT NULL,
  rows bigint NOT NULL,
  bytes bigint NOT NULL,
  appended_bytes bigint NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'sealed'::text,
  last_error text,
  sealed_at timestamp with time zone NOT NULL DEFAULT now(),
  settled_at timestamp with time zone,
  rejected bigint NOT NULL DEFAULT 0,
  CONSTRAINT segments_pkey PRIMARY KEY (id),
  CONSTRAINT segments_state_check CHECK ((state = ANY (ARRAY['sealed'::text, 'settled'::text]))),
  CONSTRAINT segments_stream_fkey FOREIGN KEY (stream) REFERENCES streams(stream),
  CONSTRAINT segments_stream_seq_key UNIQUE (stream, seq)
);

CREATE TABLE streams (
  stream text NOT NULL,
  kind text NOT NULL,
  shard integer NOT NULL,
  next_seq bigint NOT NULL DEFAULT 1,
  sealed_id text NOT NULL DEFAULT '0-0'::text,
  unknown_rows bigint NOT NULL DEFAULT 0,
  CONSTRAINT streams_kind_check CHECK ((kind = ANY (ARRAY['usage'::text, 'outbound'::text, 'session'::text]))),
  CONSTRAINT streams_pkey PRIMARY KEY (stream)
);

CREATE TABLE subscription_events (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  subscription_id bigint NOT NULL,
  kind text NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT now(),
  data json NOT NULL DEFAULT '{}'::json,
  pending boolean NOT NULL DEFAULT true,
  CONSTRAINT subscription_events_pkey PRIMARY KEY (id)
);

CREATE TABLE subscription_groups (
  group_id integer NOT NULL,
  subscription_id bigint NOT NULL,
  CONSTRAINT subscription_groups_group_id_fkey FOREIGN KEY (group_id) REFERENCES groups(id),
  CONSTRAINT subscription_groups_pkey PRIMARY KEY (group_id, subscription_id),
  CONSTRAINT subscription_groups_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id) ON DELETE CASCADE
);

CREATE TABLE subscription_links (
  uuid uuid NOT NULL,
  subscription_id bigint NOT NULL,
  node_protocol_id bigint NOT NULL,
  credential text,
  credential_uuid uuid,
  credential_key bytea NOT NULL GENERATED ALWAYS AS (substr(uuid_send(COALESCE(credential_uuid, uuid)), 1, 6) || substr(uuid_send(COALESCE(credential_uuid, uuid)), 9)) STORED,
  CONSTRAINT subscription_links_credential_whole CHECK (((credential IS NULL) = (credential_uuid IS NULL))),
  CONSTRAINT subscription_links_node_protocol_id_fkey FOREIGN KEY (node_protocol_id) REFERENCES node_protocols(id) ON DELETE CASCADE,
  CONSTRAINT subscription_links_pkey PRIMARY KEY (uuid),
  CONSTRAINT subscription_links_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id) ON DELETE CASCADE,
  CONSTRAINT subscription_links_subscription_id_node_protocol_id_key UNIQUE (subscription_id, node_protocol_id)
);

CREATE TABLE subscription_pages (
  subscription_id bigint NOT NULL,
  token_hash bytea NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT subscription_pages_pkey PRIMARY KEY (subscription_id),
  CONSTRAINT subscription_pages_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id) ON DELETE CASCADE,
  CONSTRAINT subscription_pages_token_hash_check CHECK ((length(token_hash) = 32)),
  CONSTRAINT subscription_pages_token_hash_key UNIQUE (token_hash)
);

CREATE TABLE subscription_resets (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  subscription_id bigint NOT NULL,
  cause text NOT NULL,
  due_at timestamp with time zone,
  reset_at timestamp with time zone NOT NULL DEFAULT now(),
  used_up bigint NOT NULL,
  used_down bigint NOT NULL,
  CONSTRAINT subscription_resets_cause_check CHECK ((cause = ANY (ARRAY['schedule'::text, 'operator'::text]))),
  CONSTRAINT subscription_resets_pkey PRIMARY KEY (id),
  CONSTRAINT subscription_resets_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES subscriptions(id) ON DELETE CASCADE
);

CREATE TABLE subscriptions (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  user_id bigint NOT NULL,
  status text NOT NULL DEFAULT 'active'::text,
  traffic_limit_bytes bigint,
  traffic_bytes_up bigint NOT NULL DEFAULT 0,
  traffic_bytes_down bigint NOT NULL DEFAULT 0,
  expires_at timestamp with time zone,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  period_base_up bigint NOT NULL DEFAULT 0,
  period_base_down bigint NOT NULL DEFAULT 0,
  reset_period text NOT NULL DEFAULT 'none'::text,
  anchor_at timestamp with time zone NOT NULL DEFAULT now(),
  next_reset_at timestamp with time zone,
  disabled boolean NOT NULL DEFAULT false,
  warned_percent smallint NOT NULL DEFAULT 0,
  link_secret uuid NOT NULL DEFAULT gen_random_uuid(),
  credential text,
  credential_uuid uuid,
  credential_key bytea GENERATED ALWAYS AS (substr(uuid_send(credential_uuid), 1, 6) || substr(uuid_send(credential_uuid), 9)) STORED,
  duration_seconds bigint,
  external_id text,
  CONSTRAINT subscriptions_credential_whole CHECK (((credential IS NULL) = (credential_uuid IS NULL))),
  CONSTRAINT subscriptions_duration_seconds_check CHECK ((duration_seconds > 0)),
  CONSTRAINT subscriptions_pkey PRIMARY KEY (id),
  CONSTRAINT subscriptions_reset_period_check CHECK ((reset_period = ANY (ARRAY['none'::text, 'day'::text, 'week'::text, 'month'::text]))),
  CONSTRAINT subscriptions_status_check CHECK ((status = ANY (ARRAY['active'::text, 'limited'::text, 'expired'::text, 'disabled'::text]))),
  CONSTRAINT subscriptions_traffic_limit_bytes_check CHECK ((traffic_limit_bytes > 0)),
  CONSTRAINT subscriptions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id)
) WITH (fillfactor=45);

CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  name text NOT NULL,
  created_at timestamp with time zone NOT NULL DEFAULT now(),
  CONSTRAINT users_pkey PRIMARY KEY (id)
);

CREATE INDEX audits_ran_at ON public.audits USING btree (ran_at);
CREATE UNIQUE INDEX node_protocols_name ON public.node_protocols USING btree (node_id, name);
CREATE INDEX node_protocols_node ON public.node_protocols USING btree (node_id);
CREATE INDEX node_reports_node ON public.node_reports USING btree (node_id, kind, id);
CREATE INDEX protocol_groups_group ON public.protocol_groups USING btree (group_id, node_protocol_id);
CREATE INDEX segment_prunings_up_to_id ON public.segment_prunings USING btree (up_to_id);
CREATE INDEX segments_unsettled ON public.segments USING btree (stream, seq) WHERE (state = 'sealed'::text);
CREATE INDEX subscription_events_at ON public.subscription_events USING btree (at);
CREATE INDEX subscription_events_pending ON public.subscription_events USING btree (id) WHERE pending;
CREATE INDEX subscription_events_subscription ON public.subscription_events USING btree (subscription_id, id);
CREATE INDEX subscription_groups_subscription ON public.subscription_groups USING btree (subscription_id, group_id);
CREATE UNIQUE INDEX subscription_links_credential ON public.subscription_links USING btree (credential_key, node_protocol_id);
CREATE INDEX subscription_links_protocol ON public.subscription_links USING btree (node_protocol_id);
CREATE INDEX subscription_resets_subscription ON public.subscription_resets USING btree (subscription_id, id);
CREATE UNIQUE INDEX subscriptions_credential ON public.subscriptions USING btree (credential_key) WHERE (credential_key IS NOT NULL);
CREATE INDEX subscriptions_expiry ON public.subscriptions USING btree (expires_at) WHERE ((expires_at IS NOT NULL) AND (status = ANY (ARRAY['active'::text, 'limited'::text])));
CREATE UNIQUE INDEX subscriptions_external_id ON public.subscriptions USING btree (external_id) WHERE (external_id IS NOT NULL);
CREATE INDEX subscriptions_reset ON public.subscriptions USING btree (next_reset_at) WHERE (next_reset_at IS NOT NULL);
CREATE INDEX subscriptions_user ON public.subscriptions USING btree (user_id);
CREATE INDEX users_name ON public.users USING btree (name);

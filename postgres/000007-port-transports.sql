-- A port is two: what listens on TCP leaves UDP free. HYSTERIA2 is UDP only, SHADOWSOCKS is what its
-- network says (both where it says nothing), all others are TCP. nodes/port-transports.ts says the
-- same; a test holds the two together.
ALTER TABLE node_protocols
  ADD COLUMN listens_tcp boolean NOT NULL GENERATED ALWAYS AS (
    protocol <> 'HYSTERIA2'
    AND NOT (protocol = 'SHADOWSOCKS' AND coalesce(settings ->> 'network', '') = 'udp')
  ) STORED,
  ADD COLUMN listens_udp boolean NOT NULL GENERATED ALWAYS AS (
    protocol = 'HYSTERIA2'
    OR (protocol = 'SHADOWSOCKS' AND coalesce(settings ->> 'network', '') <> 'tcp')
  ) STORED;
CREATE UNIQUE INDEX node_protocols_tcp ON node_protocols (node_id, port) WHERE listens_tcp;
CREATE UNIQUE INDEX node_protocols_udp ON node_protocols (node_id, port) WHERE listens_udp;
ALTER TABLE node_protocols DROP CONSTRAINT node_protocols_node_id_port_key;
-- It also found a node's protocols.
CREATE INDEX node_protocols_node ON node_protocols (node_id);

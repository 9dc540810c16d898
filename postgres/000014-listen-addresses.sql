-- Protocols on different addresses of a node may share a port, and on a unix socket none listens on the
-- port. settings/port-transports.ts also compares addresses that are written differently, and an address
-- with all of them, in the transaction that holds the node.
DROP INDEX node_protocols_tcp;
DROP INDEX node_protocols_udp;
CREATE UNIQUE INDEX node_protocols_tcp
  ON node_protocols (node_id, port, (coalesce(settings ->> 'listen', '0.0.0.0')))
  WHERE listens_tcp AND coalesce(settings ->> 'listen', '') !~ '^[/@]';
CREATE UNIQUE INDEX node_protocols_udp
  ON node_protocols (node_id, port, (coalesce(settings ->> 'listen', '0.0.0.0')))
  WHERE listens_udp;
CREATE UNIQUE INDEX node_protocols_socket
  ON node_protocols (node_id, (split_part(settings ->> 'listen', ',', 1)))
  WHERE settings ->> 'listen' ~ '^[/@]';

-- Protocols on different addresses of a node may share a port, and on a unix socket none listens on the
-- port. settings/port-transports.ts also compares addresses that are written differently, and an address
-- with all of them, in the transaction that holds the node.
DROP INDEX node_protocols_tcp;
DROP INDEX node_protocols_udp;
-- A transaction may defer the checks, so that two protocols can swap their places.
ALTER TABLE node_protocols
  ADD CONSTRAINT node_protocols_tcp EXCLUDE USING btree
    (node_id WITH =, port WITH =, coalesce(settings ->> 'listen', '0.0.0.0') WITH =)
    WHERE (listens_tcp AND coalesce(settings ->> 'listen', '') !~ '^[/@]') DEFERRABLE,
  ADD CONSTRAINT node_protocols_udp EXCLUDE USING btree
    (node_id WITH =, port WITH =, coalesce(settings ->> 'listen', '0.0.0.0') WITH =)
    WHERE (listens_udp) DEFERRABLE,
  ADD CONSTRAINT node_protocols_socket EXCLUDE USING btree
    (node_id WITH =, split_part(settings ->> 'listen', ',', 1) WITH =)
    WHERE (settings ->> 'listen' ~ '^[/@]') DEFERRABLE;

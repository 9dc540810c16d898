-- Protocols on different addresses of a node may share a port. Core checks that no two collide, in the
-- transaction that holds the node.
DROP INDEX node_protocols_tcp;
DROP INDEX node_protocols_udp;

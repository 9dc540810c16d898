-- A fleet file recognises a protocol by its name on the node, so that a changed port keeps its links. Core
-- names each protocol that it adds. The default is for rows that are written by hand.
ALTER TABLE node_protocols ADD COLUMN name text NOT NULL DEFAULT gen_random_uuid()::text;
UPDATE node_protocols p SET name = lower(p.protocol) || '-' || p.port || CASE WHEN EXISTS (
    SELECT FROM node_protocols o WHERE o.node_id = p.node_id AND o.port = p.port
      AND o.protocol = p.protocol AND o.id < p.id) THEN '-' || p.id ELSE '' END;
CREATE UNIQUE INDEX node_protocols_name ON node_protocols (node_id, name);

-- What an outbound has beside its settings (transport, multiplexing, the way it leaves), and what a node's Xray has
-- beside its inbounds, outbounds and rules (DNS, balancers, observatories, raw JSON).
ALTER TABLE node_outbounds ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
ALTER TABLE nodes ADD COLUMN xray_settings jsonb NOT NULL DEFAULT '{}';

-- What a node said of itself at its registration, beside what an operator set: it no longer replaces
-- that. Empty where it said nothing. A node that a registration renamed earlier keeps the name and the
-- host that it has; nobody knows any more what the operator had called it.
ALTER TABLE nodes
  ADD COLUMN reported_name text NOT NULL DEFAULT '',
  ADD COLUMN reported_host text NOT NULL DEFAULT '',
  ADD COLUMN reported_region text NOT NULL DEFAULT '';

-- A settle may update every subscription in one transaction. An update stays cheap (HOT: no index is
-- touched) where the new version of the row finds room on the same page, so half of each page is
-- kept free. Pages that exist fill up and thin out by themselves; VACUUM FULL does it at once.
ALTER TABLE subscriptions SET (fillfactor = 45);

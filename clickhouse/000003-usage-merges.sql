-- Each merge makes the hourly rollup of all its rows anew, so a row should be merged few times. Sixteen
-- parts of about one size are merged at once instead of five: as many more parts lie there, some
-- dozens, and a row is rewritten less often by half. bench/README.md has what it saves.
ALTER TABLE usage MODIFY SETTING merge_selector_base = 16;

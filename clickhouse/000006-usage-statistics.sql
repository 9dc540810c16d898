-- What inserts and merges of usage need not do; bench/README.md has what each costs.
--
-- ClickHouse keeps statistics of every column of a merged part (least, greatest, how many values), for
-- planning joins and for skipping parts. A part holds all nodes and all users of its time, and the
-- partition key already knows the times: no part would ever be skipped. And it counts each column's
-- zeros to store mostly empty columns sparse, of which there are none.
ALTER TABLE usage MODIFY SETTING
  auto_statistics_types = '',
  ratio_of_defaults_for_sparse_serialization = 1;

-- The two counts are most of a row. T64 leaves little in them for ZSTD to find, which costs every insert
-- and merge, and every merge its reading. Parts that are there keep their codecs until they are next
-- merged.
ALTER TABLE usage
  MODIFY COLUMN bytes_up UInt64 CODEC(T64, LZ4),
  MODIFY COLUMN bytes_down UInt64 CODEC(T64, LZ4);

import { type Account, type Bound, boundsOf } from './access.ts';
import { clickhouseFault } from './fault.ts';

/**
 * Settings that every request may change: they shape an answer, or choose between ways to the same answer.
 * All others are refused, because many of them read a file, open a connection or lift a bound.
 */
const harmless: readonly (string | RegExp)[] = [
  'add_http_cors_header',
  'aggregate_functions_null_for_empty',
  'any_join_distinct_right_table_keys',
  'cancel_http_readonly_queries_on_client_close',
  'cast_keep_nullable',
  'cast_string_to_dynamic_use_inference',
  'count_distinct_implementation',
  'date_time_input_format',
  'date_time_output_format',
  'describe_compact_output',
  'describe_include_subcolumns',
  'enable_http_compression',
  'extremes',
  'final',
  'group_by_use_nulls',
  'http_headers_progress_interval_ms',
  'http_zlib_compression_level',
  'join_algorithm',
  'join_default_strictness',
  'join_use_nulls',
  'low_cardinality_allow_in_native_format',
  'prefer_column_name_to_alias',
  'result_overflow_mode',
  'send_progress_in_http_headers',
  'session_timezone',
  'timeout_overflow_mode',
  'transform_null_in',
  'union_default_mode',
  'use_skip_indexes',
  /^(allow_experimental|enable)_(dynamic|json|variant)_type$/,
  /^force_/,
  /^format_(csv|tsv|custom)_/,
  /^optimize_/,
  /^output_format_(?!schema)/,
];

/** Settings that an INSERT or a change of a table needs, too. */
const writing: readonly (string | RegExp)[] = [
  'alter_sync',
  'async_insert',
  'insert_deduplicate',
  'insert_deduplication_token',
  'lightweight_deletes_sync',
  'materialize_skip_indexes_on_insert',
  'max_insert_block_size',
  'max_insert_threads',
  'max_partitions_per_insert_block',
  'min_insert_block_size_bytes',
  'min_insert_block_size_rows',
  'mutations_sync',
  'wait_for_async_insert',
  /^input_format_(?!record_errors|values_)/,
];

/** Settings of a table. `disk` and `storage_policy` are missing, because they can name any path. */
const tableSettings: readonly (string | RegExp)[] = [
  'auto_statistics_types',
  'deduplicate_merge_projection_mode',
  'default_compression_codec',
  'fsync_after_insert',
  'fsync_part_directory',
  'index_granularity',
  'index_granularity_bytes',
  'lightweight_mutation_projection_mode',
  'materialize_projections_on_insert',
  'materialize_projections_on_merge',
  'merge_selector_base',
  'min_bytes_for_wide_part',
  'min_rows_for_wide_part',
  'min_rows_to_fsync_after_merge',
  'non_replicated_deduplication_window',
  'parts_to_delay_insert',
  'parts_to_throw_insert',
  'ratio_of_defaults_for_sparse_serialization',
  'ttl_only_drop_parts',
  'vertical_merge_algorithm_min_columns_to_activate',
];

/** Which settings an account may change, and how far. */
export interface SettingRules {
  /** @throws 452 SETTING_CONSTRAINT_VIOLATION, or 115 for a setting that ClickHouse does not have. */
  check(account: Account, name: string, value: string): void;
}

/** `known` are the names of the engine's own settings. */
export function createSettingRules(known: ReadonlySet<string>): SettingRules {
  const bounds = {
    core: new Map(boundsOf('core').map((bound) => [bound.name, bound])),
    analyst: new Map(boundsOf('analyst').map((bound) => [bound.name, bound])),
  };
  return {
    check: (account, name, value) => {
      const bound = bounds[account].get(name);
      if (bound !== undefined) return checkBound(bound, value);
      if (matches(harmless, name)) return;
      if (account === 'core' && (matches(writing, name) || matches(tableSettings, name))) return;
      if (!known.has(name)) {
        throw clickhouseFault(115, 'UNKNOWN_SETTING', `Unknown setting '${name}'`);
      }
      throw constraintFault(`Setting ${name} cannot be changed by ${account}.`);
    },
  };
}

function matches(rules: readonly (string | RegExp)[], name: string): boolean {
  return rules.some((rule) => (typeof rule === 'string' ? rule === name : rule.test(name)));
}

function checkBound({ name, max }: Bound, value: string): void {
  // Plain digits only: nobody needs the other forms that ClickHouse reads as a number.
  if (!/^\d{1,16}$/.test(value)) {
    throw constraintFault(`Setting ${name} has to be a whole number from 1 to ${max}.`);
  }
  if (Number(value) > max)
    throw constraintFault(`Setting ${name} shouldn't be greater than ${max}.`);
  if (Number(value) < 1) throw constraintFault(`Setting ${name} shouldn't be less than 1.`);
}

function constraintFault(message: string): Error {
  return clickhouseFault(452, 'SETTING_CONSTRAINT_VIOLATION', message);
}

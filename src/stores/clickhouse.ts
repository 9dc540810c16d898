import { Readable } from 'node:stream';
import { type ClickHouseClient, createClient } from '@clickhouse/client';

export type { ClickHouseClient };

/**
 * A client for the database that the URL's path names (`http://host:8123/core`), or `default` without a path.
 * Integers of 64 bits come as JSON numbers, not as strings.
 */
export function createClickHouse(
  url: string,
  options: { requestTimeoutMs?: number } = {},
): ClickHouseClient {
  const parsed = new URL(url);
  const database = decodeURIComponent(parsed.pathname.slice(1)) || 'default';
  const username = decodeURIComponent(parsed.username) || 'default';
  const password = decodeURIComponent(parsed.password);
  return createClient({
    url: `${parsed.protocol}//${parsed.host}`,
    username,
    password,
    database,
    application: 'core',
    request_timeout: options.requestTimeoutMs ?? 60_000,
    keep_alive: { enabled: true, idle_socket_ttl: 2_000 },
    log: { level: 127 as never },
    clickhouse_settings: { output_format_json_quote_64bit_integers: 0 },
  });
}

/** The database that `createClickHouse` uses for this URL. */
export function clickhouseDatabase(url: string): string {
  return decodeURIComponent(new URL(url).pathname.slice(1)) || 'default';
}

/**
 * Writes rows of one partition with one INSERT. ClickHouse makes one part of them, which is there
 * wholly or not at all. The token makes a second copy of a running INSERT a no-op.
 *
 * Source: https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
 */
export async function writePart(
  clickhouse: ClickHouseClient,
  part: {
    table: string;
    columns: readonly string[];
    token: string;
    format: 'RowBinary' | 'Native';
    bytes: Uint8Array;
  },
): Promise<void> {
  const result = await clickhouse.exec({
    query: `INSERT INTO ${part.table} (${part.columns.join(', ')}) FORMAT ${part.format}`,
    values: Readable.from([part.bytes], { objectMode: false }),
    clickhouse_settings: {
      async_insert: 0,
      insert_deduplicate: 1,
      insert_deduplication_token: part.token,
      max_insert_block_size: '1048576',
      min_insert_block_size_rows: '1048576',
      min_insert_block_size_bytes: '0',
      max_insert_threads: '1',
      wait_end_of_query: 1,
    },
  });
  // The answer has no rows, but its connection is free only once its body is read.
  result.stream.resume();
}

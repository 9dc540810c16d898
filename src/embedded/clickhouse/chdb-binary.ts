import { createRequire } from 'node:module';
import { CoreError } from '../../errors.ts';

const require = createRequire(import.meta.url);

/**
 * Makes sure that there is an embedded ClickHouse for this system. It works with every version of Node, but
 * not on every system; on the others npm leaves its package out.
 * @throws CoreError EMBEDDED_SERVER_FAILED naming the setting for another ClickHouse.
 */
export function requireChdb(platform: string = process.platform, arch = process.arch): void {
  const name = `@chdb/lib-${platform}-${arch}${platform === 'linux' ? '-gnu' : ''}`;
  try {
    require.resolve(name);
  } catch (cause) {
    throw new CoreError(
      'EMBEDDED_SERVER_FAILED',
      `There is no embedded ClickHouse for ${platform} ${arch} (${name}). Set CLICKHOUSE_URL to a running ClickHouse`,
      { cause },
    );
  }
}

import type { Command } from 'commander';
import { CoreError } from '../errors.ts';
import { maskPassword } from '../processes/reachable.ts';
import { analystUrl, readSecrets, secretsFile } from '../secrets.ts';
import type { CliContext, Run } from './context.ts';
import { fieldsText } from './table.ts';

/** `core stores` */
export function addStoresCommand(program: Command, run: Run): void {
  program
    .command('stores')
    .description('URLs of Postgres, Redis and ClickHouse, for psql, redis-cli and other tools')
    .option('--reveal', 'show the passwords')
    .addHelpText(
      'after',
      `
clickhouseAnalyst is a user who can only read. Core itself uses the other three.

Examples:
  core stores
  psql "$(core stores --reveal --json | jq -r .postgres)"
  redis-cli -u "$(core stores --reveal --json | jq -r .redis)"`,
    )
    .action(
      run(async (context, options: { reveal?: boolean }) => {
        const urls = storeUrls(context);
        context.print(options.reveal === true ? urls : mask(urls), urlsText(urls, options));
      }),
    );
}

interface StoreUrls {
  postgres: string;
  redis: string;
  clickhouse: string;
  /** Null for an external ClickHouse, since Core does not know its users. */
  clickhouseAnalyst: string | null;
}

/**
 * The URLs with their passwords.
 * @throws CoreError SECRETS_UNUSABLE if a store is embedded and has never run.
 */
function storeUrls({ config }: CliContext): StoreUrls {
  const { postgresUrl, redisUrl, clickhouseUrl } = config.stores;
  const { dataDir, postgres, redis, clickhouse } = config.embedded;
  const isAnyEmbedded = postgres || redis || clickhouse;
  const secrets = isAnyEmbedded ? readSecrets(dataDir) : undefined;
  if (isAnyEmbedded && secrets === undefined) {
    throw new CoreError(
      'SECRETS_UNUSABLE',
      `There is no file of secrets ${secretsFile(dataDir)}; the first start of core up makes it`,
    );
  }
  return {
    postgres: postgresUrl,
    redis: redisUrl,
    clickhouse: clickhouseUrl,
    clickhouseAnalyst: analystUrl(config, secrets) ?? null,
  };
}

function mask(urls: StoreUrls): StoreUrls {
  const { postgres, redis, clickhouse, clickhouseAnalyst } = urls;
  return {
    postgres: maskPassword(postgres),
    redis: maskPassword(redis),
    clickhouse: maskPassword(clickhouse),
    clickhouseAnalyst: clickhouseAnalyst === null ? null : maskPassword(clickhouseAnalyst),
  };
}

function urlsText(urls: StoreUrls, { reveal }: { reveal?: boolean }): string {
  const { clickhouseAnalyst, ...others } = reveal === true ? urls : mask(urls);
  const fields = fieldsText({
    ...others,
    ...(clickhouseAnalyst === null ? {} : { clickhouseAnalyst }),
  });
  return reveal === true ? fields : `${fields}--reveal shows the passwords.\n`;
}

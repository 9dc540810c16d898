import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { readConfig } from '../src/config.ts';
import {
  makeSecrets,
  readSecrets,
  secretsFile,
  withSecrets,
  withStoredSecrets,
} from '../src/secrets.ts';

t.test(
  'the first start makes secrets of 32 random bytes that only the owner can read',
  async (t) => {
    const dataDir = t.testdir({});
    t.equal(readSecrets(dataDir), undefined, 'there are none before');
    const secrets = makeSecrets(dataDir);
    const values = Object.values(secrets);
    t.equal(values.length, 5);
    t.equal(new Set(values).size, 5, 'no two are the same');
    for (const value of values) t.equal(Buffer.from(value, 'base64url').length, 32);
    t.equal(statSync(secretsFile(dataDir)).mode & 0o777, 0o600);
    t.same(makeSecrets(dataDir), secrets, 'a later start keeps them');
    t.same(readSecrets(dataDir), secrets);
  },
);

t.test('a secret that an older file lacks is added, and the others stay', async (t) => {
  const dataDir = t.testdir({});
  const { redis, ...others } = makeSecrets(dataDir);
  writeFileSync(secretsFile(dataDir), JSON.stringify(others));
  t.throws(() => readSecrets(dataDir), { code: 'SECRETS_UNUSABLE', message: /lacks redis/ });
  t.match(makeSecrets(dataDir), others);
  t.not(readSecrets(dataDir)?.redis, redis);
});

t.test('reading the file closes it to others', async (t) => {
  const dataDir = t.testdir({});
  makeSecrets(dataDir);
  chmodSync(secretsFile(dataDir), 0o644);
  readSecrets(dataDir);
  t.equal(statSync(secretsFile(dataDir)).mode & 0o777, 0o600);
});

t.test('a damaged file is one clear line that quotes nothing of it', async (t) => {
  const dataDir = t.testdir({});
  const { redis } = makeSecrets(dataDir);
  for (const damaged of [
    `{"redis":"${redis}"`,
    `{"redis":["${redis}"]}`,
    `{"nobody":"${redis}"}`,
  ]) {
    writeFileSync(secretsFile(dataDir), damaged);
    try {
      makeSecrets(dataDir);
      t.fail('it was taken');
    } catch (thrown) {
      t.match(thrown, { code: 'SECRETS_UNUSABLE', message: /is damaged/ });
      const { message, cause } = thrown as Error;
      t.notOk(`${message} ${String(cause)}`.includes(redis), 'the secret is not told');
    }
    t.equal(readFileSync(secretsFile(dataDir), 'utf8'), damaged, 'the file is left as it was');
  }
});

t.test('only the URLs of embedded servers get a password', async (t) => {
  const dataDir = t.testdir({});
  const secrets = makeSecrets(dataDir);
  const config = readConfig({ CORE_DATA_DIR: dataDir, REDIS_URL: 'redis://db.example.net' });
  const { stores } = withStoredSecrets(config);
  t.same(stores, withSecrets(config, secrets).stores);
  t.equal(new URL(stores.postgresUrl).password, secrets.postgres);
  t.equal(new URL(stores.clickhouseUrl).password, secrets.clickhouse);
  t.equal(stores.redisUrl, 'redis://db.example.net');
});

import { integerIn, pick, type Random } from '../simulator/random.ts';

/** A request that Core accepts, before it is damaged. */
interface ValidRequest {
  method: 'GET' | 'POST';
  path: string;
  body: string;
}

/** A time of 2026 with milliseconds, sometimes with an offset. */
function time(random: Random): string {
  const at = new Date(1_767_225_600_000 + integerIn(random, 0, 20_000_000_000)).toISOString();
  return random() < 0.2 ? at.replace('Z', '+02:00') : at;
}

const several = <T>(random: Random, make: () => T): T[] =>
  Array.from({ length: integerIn(random, 1, 4) }, make);

const usage = (random: Random): string =>
  JSON.stringify({
    entries: several(random, () => ({
      userId: integerIn(random, 1, 5_000),
      subscriptionId: pick(random, [null, 1, 77, undefined]),
      nodeProtocolId: integerIn(random, 1, 50),
      bytesUp: integerIn(random, 0, Number.MAX_SAFE_INTEGER),
      bytesDown: integerIn(random, 0, 1_000_000),
      recordedAt: time(random),
    })),
  });

const outbound = (random: Random): string =>
  JSON.stringify({
    items: several(random, () => ({
      tag: pick(random, ['direct', 'warp', 'blöck', '\ud83d\ude00', '\ud800']),
      bytesUp: integerIn(random, 0, 1_000_000),
      bytesDown: integerIn(random, 0, 1_000_000),
    })),
  });

const sessions = (random: Random): string =>
  JSON.stringify({
    events: several(random, () => ({
      userId: integerIn(random, 1, 5_000),
      protocol: pick(random, ['VLESS', 'vmess', 'Trojan', 'MTPROTO']),
      eventType: pick(random, ['ONLINE', 'offline']),
      occurredAt: time(random),
      ipAddress: pick(random, [undefined, '198.51.100.7', '2001:db8::1', '']),
    })),
  });

const report = (random: Random): string =>
  JSON.stringify({
    message: 'xray: exit 23',
    code: pick(random, [undefined, 'XRAY']),
    details: pick(random, [undefined, {}, { line: 'a\u0000b', deep: [[{}]] }]),
  });

const register = (random: Random): string =>
  JSON.stringify({
    code: `AAAAA-BBBBB-CCCCC-${integerIn(random, 10_000, 99_999)}`,
    name: 'fra-1',
    host: 'fra-1.example.net',
    ip: '198.51.100.7',
    region: 'eu',
  });

/** A request to a random route, most often to one of the three ingest routes. */
export function validRequest(random: Random): ValidRequest {
  const posts = (path: string, body: string): ValidRequest => ({ method: 'POST', path, body });
  const gets = (path: string): ValidRequest => ({ method: 'GET', path, body: '' });
  const roll = random();
  if (roll < 0.24) return posts('/node/usage', usage(random));
  if (roll < 0.4) return posts('/node/session-events', sessions(random));
  if (roll < 0.54) return posts('/node/outbound-usage', outbound(random));
  if (roll < 0.66) {
    const revision = pick(random, [0, 1, 2, 2_147_483_648, Number.MAX_SAFE_INTEGER]);
    return posts('/node/heartbeat', JSON.stringify({ ip: '203.0.113.9', revision }));
  }
  if (roll < 0.74) {
    const revision = pick(random, [0, 1, 1, 2, 2_147_483_648, Number.MAX_SAFE_INTEGER]);
    return posts('/node/config/applied', JSON.stringify({ revision }));
  }
  if (roll < 0.8) return posts('/node/error', report(random));
  if (roll < 0.86) return posts('/node/register', register(random));
  if (roll < 0.96) return gets('/node/config/latest');
  if (roll < 0.985) return gets('/healthz');
  return gets(pick(random, ['/readyz', '/metrics', '/node', '/', '/node/usage/']));
}

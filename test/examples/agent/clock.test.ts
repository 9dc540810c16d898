import t from 'tap';
import { account } from '../../../examples/agent/account.ts';
import { createClock } from '../../../examples/agent/clock.ts';
import { openLedger } from '../../../examples/agent/ledger.ts';
import { scratchFolder } from '../../support/scratch-folder.ts';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const startMs = Date.parse('2026-11-24T10:00:00Z');

t.test('the clock of the machine is believed as long as it agrees with that of Core', async (t) => {
  const now = { wall: startMs, steady: 0 };
  const clock = createClock({ wallMs: () => now.wall, steadyMs: () => now.steady });
  const pass = (ms: number): void => {
    now.wall += ms;
    now.steady += ms;
  };
  pass(hourMs);
  t.equal(clock.nowMs(), startMs + hourMs);
  now.wall += 1_000;
  t.equal(clock.nowMs(), now.wall, 'a small correction is taken');

  now.wall += 400 * 24 * hourMs;
  pass(minuteMs);
  t.equal(clock.nowMs(), startMs + hourMs + minuteMs, 'a jump ahead is not');
  now.wall = 0;
  pass(minuteMs);
  t.equal(clock.nowMs(), startMs + hourMs + 2 * minuteMs, 'nor one back');

  clock.heard(new Date(startMs + 3 * hourMs).toUTCString());
  pass(1_000);
  t.equal(clock.nowMs(), startMs + 3 * hourMs + 1_000, 'Core has the last word');
  clock.heard(null);
  clock.heard('no date');
  t.equal(clock.nowMs(), startMs + 3 * hourMs + 1_000, 'an answer without a date says nothing');
  now.wall = startMs + 3 * hourMs + 5_000;
  t.equal(clock.nowMs(), now.wall, 'the machine agrees again');
});

t.test('who was online while the clock was ahead goes offline all the same', async (t) => {
  const baseline = { proxyId: 'a', counters: {}, online: { '1 VLESS': startMs + 24 * hourMs } };
  const first = account(baseline, undefined, { nowMs: startMs, restMs: 1_000 });
  t.same(first.posts, []);
  const second = account(first.baseline, undefined, { nowMs: startMs + 1_000, restMs: 1_000 });
  t.match(second.posts, [{ body: { events: [{ eventType: 'OFFLINE' }] } }]);
});

t.test(
  'a session at rest ends when Xray stops naming it, not when its bytes last moved',
  async (t) => {
    const uuid = '11111111-1111-4111-8111-111111111111';
    const link = { userId: 1, subscriptionId: 7, nodeProtocolId: 5, protocol: 'VLESS' } as const;
    const links = new Map([[uuid, link]]);
    const ledger = openLedger(scratchFolder(t), { bytesMax: 1e6 });
    const sample = (nowMs: number, isOnline: boolean) => {
      const online = new Map(isOnline ? [[uuid, ['198.51.100.7']]] : []);
      const reading = { proxyId: 'a', counters: {}, links, online };
      const { posts, baseline } = account(ledger.baseline(), reading, { nowMs, restMs: minuteMs });
      ledger.commit(posts, baseline);
      return posts;
    };
    t.match(sample(startMs, true), [{ body: { events: [{ eventType: 'ONLINE' }] } }]);
    t.same(sample(startMs + hourMs, true), []);
    t.equal(ledger.size().posts, 1, 'what brings no post is not written');
    t.same(sample(startMs + hourMs + 10_000, false), [], 'apps open and close connections');
    t.match(sample(startMs + hourMs + minuteMs, false), [
      { body: { events: [{ eventType: 'OFFLINE', occurredAt: '2026-11-24T11:00:00.000Z' }] } },
    ]);
  },
);

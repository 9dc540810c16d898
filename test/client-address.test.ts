import t from 'tap';
import { createClientAddresses, parseTrustedProxies } from '../src/client-address.ts';
import { readConfig } from '../src/config.ts';

const proxies = '10.0.0.0/8, 192.0.2.1, 2001:db8:ffff::/48, ::ffff:198.51.100.0/120';

/** The sender, for a peer and the X-Forwarded-For that it sent. */
function senderOf(peer: string, forwardedFor = '', trusted = proxies): string {
  return createClientAddresses(trusted).senderOf(peer, () => forwardedFor);
}

t.test('X-Forwarded-For counts from a trusted proxy only', async (t) => {
  const never = (): string => {
    throw new Error('the header was looked at');
  };
  t.equal(createClientAddresses(proxies).senderOf('203.0.113.9', never), '203.0.113.9');
  t.equal(createClientAddresses('').senderOf('10.0.0.1', never), '10.0.0.1');
  for (const peer of [
    '10.0.0.1',
    '10.255.255.255',
    '192.0.2.1',
    '198.51.100.7',
    '::ffff:10.0.0.1',
    '2001:db8:ffff:1::1',
    // In the form of uWebSockets.js.
    '0000:0000:0000:0000:0000:ffff:0a00:0001',
    '2001:0db8:ffff:0000:0000:0000:0000:0001',
  ]) {
    t.equal(senderOf(peer, '203.0.113.9'), '203.0.113.9', peer);
  }
  for (const peer of ['11.0.0.1', '192.0.2.2', '198.51.101.7', '::ffff:11.0.0.1']) {
    t.equal(senderOf(peer, '203.0.113.9'), peer.replace('::ffff:', ''), peer);
  }
  t.equal(senderOf('2001:db8:fffe::1', '203.0.113.9'), '2001:db8:fffe:0::/64');
});

t.test('the right-most address that is no trusted proxy is the sender', async (t) => {
  const cases: [string, string][] = [
    ['203.0.113.9', '203.0.113.9'],
    // Addresses to the left are only the sender's claim.
    ['198.18.0.1, 203.0.113.9', '203.0.113.9'],
    ['unknown, 203.0.113.9', '203.0.113.9'],
    ['198.18.0.1,203.0.113.9 , 10.1.2.3,192.0.2.1', '203.0.113.9'],
    // A sender within a trusted network.
    ['10.9.9.9, 10.1.2.3', '10.9.9.9'],
    ['203.0.113.9:4711', '203.0.113.9'],
    ['::ffff:203.0.113.9', '203.0.113.9'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['[2001:db8:1:2::6]:443', '2001:db8:1:2::/64'],
    ['[2001:db8:1:2::7]', '2001:db8:1:2::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    // If the entry is no address, the peer's address counts.
    ['', '10.0.0.1'],
    ['unknown', '10.0.0.1'],
    ['203.0.113.9, ', '10.0.0.1'],
    ['203.0.113.9, 999.1.1.1', '10.0.0.1'],
    ['203.0.113.9, unknown, 10.1.2.3', '10.0.0.1'],
    ['203.0.113.9; DROP', '10.0.0.1'],
  ];
  for (const [forwardedFor, sender] of cases) {
    t.equal(senderOf('10.0.0.1', forwardedFor), sender, JSON.stringify(forwardedFor));
  }
});

t.test('parsing names an entry that is no address and no prefix', async (t) => {
  for (const good of ['', ' ', '10.0.0.1', '::1', '0.0.0.0/0', '::/0', '10.0.0.0/8,::1/128', ',']) {
    t.equal(parseTrustedProxies(good).outcome, 'parsed', JSON.stringify(good));
  }
  for (const bad of [
    'localhost',
    '10.0.0.256',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/-1',
    '2001:db8::/129',
    '::ffff:10.0.0.0/95',
    '2001:db8:::1',
    '*',
  ]) {
    t.throws(() => readConfig({ CORE_TRUSTED_PROXIES: `127.0.0.1, ${bad}` }), {
      code: 'INVALID_SETTINGS',
      message: `Invalid settings: CORE_TRUSTED_PROXIES: "${bad}" is not an address, and not a prefix like 10.0.0.0/8`,
    });
  }
});

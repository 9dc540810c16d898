import t from 'tap';
import { formatFor } from '../../src/pages/format.ts';

const agents: [format: string, ...userAgents: string[]][] = [
  [
    'mihomo',
    'clash-verge/v2.4.0',
    'ClashMetaForAndroid/2.11.14.Meta',
    'Clash.Meta',
    'clash.meta/v1.19.26',
    'mihomo/1.19.26',
    'FlClash/v0.8.80 clash-verge Platform/android',
    'Stash/2.7.1 Clash/1.9.0',
    'NekoBox/Android/1.3.8 (Prefer ClashMeta Format)',
  ],
  [
    'sing-box',
    'SFA/1.14.0 (535; sing-box 1.14.0)',
    'SFI/1.14.0 (Build 1; sing-box 1.14.0)',
    'SFM/1.12.0',
    'sing-box 1.14.1',
    'Karing/1.1.2.601 (platform;android) like ClashMeta v2ray sing-box',
    'HiddifyNext/2.5.7 (android) like ClashMeta v2ray sing-box',
  ],
  ['base64', 'v2rayNG/1.10.2', 'v2rayN/7.10.5', 'Happ/3.2.1', 'Streisand', 'Shadowrocket/2.2', ''],
];

for (const [format, ...userAgents] of agents) {
  t.test(`apps that get ${format}`, async (t) => {
    for (const userAgent of userAgents) {
      t.equal(formatFor({ format: '', userAgent, accept: '*/*' }), format, userAgent);
    }
  });
}

t.test('a browser gets a page to read, and the query decides over everything', async (t) => {
  const accept = 'text/html,application/xhtml+xml';
  const userAgent = 'Mozilla/5.0 (X11; Linux x86_64) Chrome/140';
  t.equal(formatFor({ format: '', userAgent, accept }), 'html');
  t.equal(formatFor({ format: '', userAgent: 'clash-verge/v2.4.0', accept }), 'mihomo');
  t.equal(formatFor({ format: 'plain', userAgent, accept }), 'plain');
  t.equal(formatFor({ format: 'clash', userAgent, accept }), 'mihomo');
  t.throws(() => formatFor({ format: 'Plain', userAgent, accept }), { code: 'INVALID_QUERY' });
});

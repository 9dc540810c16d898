import type { VpnProtocol } from '../../../src/contract/enums.ts';
import {
  createDatabase,
  type PanelUser,
  threeXUiSchema,
  writeMarzban,
  writeRemnawave,
} from '../../support/panel-files.ts';
import { type Certificate, serverName } from './certificate.ts';
import type { Door } from './site.ts';

export const panelNames = ['marzban', '3x-ui', 'remnawave'] as const;
export type PanelName = (typeof panelNames)[number];

/** An inbound that a panel had, what an operator makes of it in Core, and the links that the panel gave out. */
export interface ImportedInbound {
  name: string;
  protocol: VpnProtocol;
  settings: Record<string, unknown>;
  isInnerTls: boolean;
  /** The link as the panel writes it. */
  link: (user: PanelUser, port: number) => string;
  /** Writes the panel's file. */
  write: (file: string, users: readonly PanelUser[], placed: readonly PlacedInbound[]) => void;
}

/** An inbound of the panel, and the protocol of Core that took its place. */
export interface PlacedInbound {
  inbound: ImportedInbound;
  nodeProtocolId: number;
  port: number;
}

/** A key pair of X25519 in base64url, as `xray x25519` prints it. */
const realityKey = {
  private: 'yBaw532IIUNuQWDTncozoBaLJmcd1JZzvsHUgVPxMk8',
  public: '7xhH4b_VkliBxGulljcyPOH-bYUA2dl-XAdZAsfhk04',
};
const shortId = '0123456789abcdef';
const method = '2022-blake3-aes-128-gcm';
const serverKey = Buffer.alloc(16, 7).toString('base64');

/** A user's key of Shadowsocks 2022, as 3x-ui makes it. */
const userKey = (user: PanelUser): string =>
  Buffer.from(user.uuid.replaceAll('-', ''), 'hex').toString('base64');

/** The inbounds of a panel: those that it and Core have in common. */
export function inboundsOf(
  panel: PanelName,
  { certificateFile, keyFile }: Certificate,
  target: Door,
): ImportedInbound[] {
  const listen = '127.0.0.1';
  const tls = { certificateFile, keyFile, serverName };
  const flow = 'xtls-rprx-vision';
  const reality = {
    target: `127.0.0.1:${target.port}`,
    serverNames: [serverName],
    privateKey: realityKey.private,
    shortIds: [shortId],
  };
  const write = {
    marzban: writeMarzban,
    '3x-ui': writeThreeXUiOf,
    remnawave: writeRemnawave,
  }[panel];
  const common = { isInnerTls: false, write };
  const shared: ImportedInbound[] = [
    {
      ...common,
      ...{ name: 'reality', protocol: 'VLESS', isInnerTls: true },
      settings: { listen, security: 'reality', reality, flow },
      link: (user, port) =>
        `vless://${user.uuid}@127.0.0.1:${port}?security=reality&type=tcp&headerType=&flow=${flow}&sni=${serverName}&fp=chrome&pbk=${realityKey.public}&sid=${shortId}#${user.name}`,
    },
    {
      ...common,
      ...{ name: 'trojan', protocol: 'TROJAN' },
      settings: { listen, security: 'tls', tls },
      link: (user, port) =>
        `trojan://${encodeURIComponent(user.password)}@127.0.0.1:${port}?security=tls&type=tcp&headerType=&sni=${serverName}&fp=chrome#${user.name}`,
    },
    {
      ...common,
      ...{ name: 'vless-ws', protocol: 'VLESS' },
      settings: { listen, network: 'ws', ws: { path: '/moved' } },
      link: (user, port) =>
        `vless://${user.uuid}@127.0.0.1:${port}?security=none&type=ws&headerType=&path=%2Fmoved&host=#${user.name}`,
    },
  ];
  if (panel === 'remnawave') return shared;
  const vmess: ImportedInbound = {
    ...common,
    ...{ name: 'vmess-ws', protocol: 'VMESS' },
    settings: { listen, network: 'ws', ws: { path: '/vmess' } },
    link: vmessLink,
  };
  if (panel === 'marzban') return [...shared, vmess];
  return [
    ...shared,
    vmess,
    {
      ...common,
      ...{ name: 'ss-2022', protocol: 'SHADOWSOCKS' },
      settings: { listen, method, serverKey },
      link: (user, port) =>
        `ss://${Buffer.from(`${method}:${serverKey}:${userKey(user)}`).toString('base64url')}@127.0.0.1:${port}#${user.name}`,
    },
    {
      ...common,
      ...{ name: 'hysteria2', protocol: 'HYSTERIA2' },
      settings: { listen, tls },
      link: (user, port) =>
        `hysteria2://${encodeURIComponent(user.password)}@127.0.0.1:${port}?sni=${serverName}&alpn=h3#${user.name}`,
    },
  ];
}

function vmessLink(user: PanelUser, port: number): string {
  const fields = {
    ...{ add: '127.0.0.1', aid: '0', host: '', id: user.uuid, net: 'ws', path: '/vmess', port },
    ...{ ps: user.name, scy: 'auto', tls: 'none', type: '', v: '2' },
  };
  return `vmess://${Buffer.from(JSON.stringify(fields)).toString('base64')}`;
}

/** `x-ui.db` with each user in each inbound, as 3x-ui 3 writes it: one email, and the same counters. */
function writeThreeXUiOf(
  file: string,
  users: readonly PanelUser[],
  placed: readonly PlacedInbound[],
): void {
  createDatabase(file, threeXUiSchema, (db) => {
    for (const { inbound, port } of placed) {
      const isShadowsocks = inbound.protocol === 'SHADOWSOCKS';
      const clients = users.map((user) => ({
        ...credentialOf(inbound, user),
        ...{ email: user.name, enable: true, totalGB: user.limit, expiryTime: user.expire * 1_000 },
      }));
      const settings = {
        clients,
        ...(isShadowsocks ? { method, password: serverKey, network: 'tcp,udp' } : {}),
      };
      db.run(
        `INSERT INTO inbounds (user_id, remark, enable, port, protocol, settings, stream_settings, tag)
         VALUES (1, ?, 1, ?, ?, ?, '{}', ?)`,
        [
          ...[inbound.name, port, inbound.protocol.toLowerCase().replace(/2$/, '')],
          ...[JSON.stringify(settings, null, 2), `inbound-${port}`],
        ],
      );
    }
    for (const { name, used } of users) {
      const sql = 'INSERT INTO client_traffics (inbound_id, enable, email, up, down) VALUES';
      db.run(`${sql} (1, 1, ?, 0, ?)`, [name, used]);
    }
  });
}

function credentialOf({ protocol, isInnerTls }: ImportedInbound, user: PanelUser): object {
  switch (protocol) {
    case 'SHADOWSOCKS':
      return { password: userKey(user) };
    case 'TROJAN':
      return { password: user.password };
    case 'HYSTERIA2':
      return { auth: user.password };
    default:
      return { id: user.uuid, flow: isInnerTls ? 'xtls-rprx-vision' : '' };
  }
}

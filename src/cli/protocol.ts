import type { Command } from 'commander';
import { type VpnProtocol, vpnProtocols } from '../contract/enums.ts';
import { CoreError } from '../errors.ts';
import { protocolGroupEffects } from '../groups/membership.ts';
import { protocolEffects } from '../nodes/effects.ts';
import { warningsOf } from '../protocols/warnings.ts';
import { crowdedMtprotoWarnings } from '../settings/crowded-mtproto.ts';
import { protocolSettings } from '../settings/harmless.ts';
import { addProtocol, listProtocols, removeProtocol, setProtocol } from '../settings/protocols.ts';
import { groupNames, id, nodeId, port, protocolName, settings, vpnProtocol } from './arguments.ts';
import { confirm, counted, countedLinks, yesOption } from './confirm.ts';
import type { CliContext, Run } from './context.ts';
import { rawCheck } from './raw-check.ts';
import { fieldsText, objectsText, settingsToShow } from './table.ts';

/** `core protocol …` */
export function addProtocolCommands(program: Command, run: Run): void {
  const protocol = program.command('protocol').description('Protocols that a node serves');

  protocol
    .command('add')
    .description('Let a node serve a protocol on a port')
    .requiredOption('--node <id>', 'id of the node', nodeId)
    .requiredOption('--protocol <protocol>', vpnProtocols.join(', '), vpnProtocol)
    .requiredOption('--port <port>', 'port that the node listens on', port)
    .option('--name <name>', 'what fleet files call it (like vless-443)', protocolName)
    .option('--settings <json>', 'settings of the protocol: a JSON object or @file', settings, {})
    .option('--groups <names>', 'groups, like default,premium (default: default)', groupNames)
    .addHelpText(
      'after',
      `
${protocolSettingsHelp}
Examples:
  core protocol add --node 1 --protocol VLESS --port 443
  core protocol add --node 1 --protocol VLESS --port 443 --settings \
    '{"security":"reality","flow":"xtls-rprx-vision","reality":{"target":"www.example.com:443"}}'
  core protocol add --node 1 --protocol SHADOWSOCKS --port 8388
  core protocol add --node 1 --protocol MTPROTO --port 8443 --settings @mtproto.json`,
    )
    .action(
      run(async (context, options: AddOptions) => {
        const { node, ...added } = options;
        const pool = await context.postgres();
        const { nodeProtocolId } = await addProtocol(
          pool,
          { ...added, nodeId: node },
          rawCheck(context),
        );
        await printWithWarnings(context, { nodeProtocolId });
      }),
    );

  protocol
    .command('set')
    .description('Change a protocol; keys that --settings leaves out stay')
    .argument('<id>', 'id of the protocol', id)
    .option('--port <port>', 'port that the node listens on', port)
    .option('--name <name>', 'what fleet files call it', protocolName)
    .option('--settings <json>', 'all settings of the protocol: a JSON object or @file', settings)
    .option('--groups <names>', 'all its groups, like default,premium', groupNames)
    .option(...yesOption)
    .addHelpText(
      'after',
      '\nExamples:\n  core protocol set 1 --port 8443\n  core protocol set 1 --groups premium',
    )
    .action(
      run(async (context, { yes, ...change }: SetOptions, nodeProtocolId: number) => {
        if (Object.keys(change).length === 0) {
          throw new CoreError('INVALID_ARGUMENT', 'Nothing to change: name at least one option');
        }
        if (change.groups !== undefined) {
          await confirmGroups(context, nodeProtocolId, change.groups, yes);
        }
        const { nodeId } = await setProtocol(
          await context.postgres(),
          nodeProtocolId,
          change,
          rawCheck(context),
        );
        await printWithWarnings(context, { nodeProtocolId, nodeId });
      }),
    );
  addProtocolRemove(protocol, run);
  addProtocolList(protocol, run);
}

/** Asks if links end. */
async function confirmGroups(
  context: CliContext,
  nodeProtocolId: number,
  groups: readonly string[],
  yes: boolean | undefined,
): Promise<void> {
  const pool = await context.postgres();
  const { name } = await protocolEffects(pool, nodeProtocolId);
  const effects = await protocolGroupEffects(pool, nodeProtocolId, groups);
  if (effects.linksEnded === 0) return;
  await confirm(context, {
    what: `Changing the groups of protocol ${nodeProtocolId} (${name})`,
    effects: [
      `makes ${counted(effects.linksAdded, 'link')} and ends ${counted(effects.linksEnded, 'link')}`,
    ],
    answer: 'yes',
    yes,
    isUndoable: true,
  });
}

/** Prints what a command did, and what the operator should know of the settings. */
async function printWithWarnings(
  context: CliContext,
  done: { nodeProtocolId: number; nodeId?: number },
): Promise<void> {
  const { nodeProtocolId } = done;
  const pool = await context.postgres();
  const [stored] = await listProtocols(pool, { nodeProtocolId });
  const crowded = await crowdedMtprotoWarnings(pool, { nodeProtocolId });
  const warnings =
    stored === undefined
      ? []
      : [...warningsOf(stored.protocol, stored.settings), ...crowded.values()];
  context.print(warnings.length === 0 ? done : { ...done, warnings }, textOf(done, warnings));
}

function textOf(done: object, warnings: readonly string[]): string {
  return `${fieldsText({ ...done })}${warnings.map((warning) => `Warning: ${warning}\n`).join('')}`;
}

function addProtocolRemove(protocol: Command, run: Run): void {
  protocol
    .command('remove')
    .description('End a protocol of a node, and its links with it')
    .argument('<id>', 'id of the protocol', id)
    .option(...yesOption)
    .addHelpText('after', '\nExample:\n  core protocol remove 1')
    .action(
      run(async (context, { yes }: { yes?: boolean }, nodeProtocolId: number) => {
        const pool = await context.postgres();
        const protocol = await protocolEffects(pool, nodeProtocolId);
        await confirm(context, {
          what: `Removing protocol ${nodeProtocolId} (${protocol.name})`,
          effects: [`ends ${countedLinks(protocol)}`, 'removes its keys'],
          answer: 'yes',
          yes,
        });
        const { nodeId } = await removeProtocol(pool, nodeProtocolId);
        context.print({ nodeProtocolId, nodeId, status: 'removed' });
      }),
    );
}

function addProtocolList(protocol: Command, run: Run): void {
  protocol
    .command('list')
    .description('Protocols of one node, or of all')
    .option('--node <id>', 'id of the node', nodeId)
    .option('--secrets', 'with keys, and everything else that is not known to be harmless')
    .addHelpText('after', '\nExample:\n  core protocol list --node 1')
    .action(
      run(async (context, options: { node?: number; secrets?: boolean }) => {
        const pool = await context.postgres();
        const listed = await listProtocols(pool, { nodeId: options.node });
        const crowded = await crowdedMtprotoWarnings(pool, { nodeId: options.node });
        const found = listed.map((one) => ({
          ...one,
          settings: settingsToShow(one.settings, protocolSettings, options),
          warnings: [
            ...warningsOf(one.protocol, one.settings),
            ...[crowded.get(one.nodeProtocolId) ?? []].flat(),
          ],
        }));
        const columns = [
          'nodeProtocolId',
          'nodeId',
          'name',
          'protocol',
          'port',
          'groups',
          'settings',
        ];
        const table = objectsText(found, columns, 'There are no protocols.');
        context.print(found, `${table}${warningsText(found)}`);
      }),
    );
}

/** Each warning once, with the protocols that it is about. */
function warningsText(
  listed: readonly { nodeProtocolId: number; warnings: readonly string[] }[],
): string {
  const about = new Map<string, number[]>();
  for (const { nodeProtocolId, warnings } of listed) {
    for (const warning of warnings) {
      about.set(warning, [...(about.get(warning) ?? []), nodeProtocolId]);
    }
  }
  return [...about]
    .map(([warning, ids]) => `\nWarning (protocol ${shortened(ids)}): ${warning}\n`)
    .join('');
}

function shortened(ids: readonly number[]): string {
  const shown = ids.slice(0, 10).join(', ');
  return ids.length > 10 ? `${shown} and ${ids.length - 10} more` : shown;
}

interface AddOptions {
  node: number;
  name?: string;
  protocol: VpnProtocol;
  port: number;
  settings: Record<string, unknown>;
  groups?: string[];
}

interface SetOptions {
  name?: string;
  port?: number;
  settings?: Record<string, unknown>;
  groups?: string[];
  yes?: boolean;
}

/** For `core protocol add --help`. docs/protocols.md has an example of every protocol. */
const protocolSettingsHelp = `\
Settings (all optional unless marked; a name that is not listed is refused). docs/protocols.md says more.
  every protocol   listen       address to listen on (0.0.0.0); with VLESS, VMESS and TROJAN also a
                                unix socket: /path, /path,0660 or @name
                   publicHost   host in share links (the node's host, else its ip)
                   publicPort   port in share links (the port)
                   faces        [{ name, host, port }]: a share link for each; with VLESS, VMESS and
                                TROJAN also security, sni, httpHost, path, alpn, fingerprint and
                                pins, with HYSTERIA2 also sni and pins
  all but MTPROTO  sniffing     whether rules can match domains (true)
                   raw          JSON that is merged into the inbound
  VLESS, VMESS     network      raw, ws, grpc or xhttp (raw)
  and TROJAN       security     none or tls, with VLESS also reality (none)
                   ws           { path, host }
                   grpc         { serviceName }
                   xhttp        { path, host, mode, extra }
                   tls          { certificateFile, keyFile, serverName, alpn }: paths on the node;
                                the files are needed with security tls
                   fingerprint  whose TLS client apps imitate (chrome)
                   pins         SHA-256 of certificates that client apps accept
                   sockopt      { acceptProxyProtocol, trustedXForwardedFor, tcpFastOpen, … }
  VLESS, TROJAN    fallbacks    [{ name, alpn, path, dest, xver }]: dest is a port, a host:port or
                                a unix socket
  VLESS            reality      { target, serverNames, privateKey, publicKey, shortIds,
                                minClientVer, maxClientVer, maxTimeDiff, xver, mldsa65Seed,
                                mldsa65Verify }; target, a host:port or a unix socket, is needed
                                with security reality; Core makes keys and short ids that are not
                                given
                   flow         xtls-rprx-vision
                   splice       cheaper with flow, but traffic counts when a connection ends (false)
                   decryption   of xray vlessenc, and
                   encryption   what belongs to it, for client apps
  SHADOWSOCKS      method       2022-blake3-aes-128-gcm or 2022-blake3-aes-256-gcm (the first)
                   serverKey    16 or 32 bytes in base64 (Core makes one)
                   network      tcp,udp or tcp or udp (tcp,udp)
  HYSTERIA2        tls          needed: { certificateFile, keyFile, serverName }
                   pins         as above
                   udpIdleTimeout   seconds (Xray's own, 60)
                   masquerade   { type: proxy, url, rewriteHost }, { type: file, dir } or
                                { type: string, content, statusCode }
                   obfs         { type: salamander, password }
                   congestion   { control, up, down }: bbr, reno, brutal or force-brutal; 100 mbps
  MTPROTO          tlsDomain    site that the TLS mode imitates (www.cloudflare.com)
                   modes        { classic, secure, tls } (tls only)
                   adTag        32 hex digits
                   maxTcpConns  connections of one user
                   maxUniqueIps addresses of one user
`;

import { type ProtocolSettings, parseProtocolSettings } from '../protocols/settings.ts';
import type { ProtocolRow } from './node-rows.ts';

/**
 * The variables that Xray sets for itself, from 26.7.11 on; an older one ignores them, so an agent also
 * starts it with them. Undefined if it needs none.
 *
 * With flow vision the kernel moves the bytes from socket to socket (splice), and Xray learns how many
 * they were when the connection ends: a limit would not bite during a download, and a killed Xray would
 * lose the count. The switch is one for the whole process, so splicing stays on only if every protocol
 * with vision asks for it.
 */
export function xrayEnv(protocols: readonly ProtocolRow[]): Record<string, string> | undefined {
  const withVision = protocols.filter((row) => row.protocol === 'VLESS').map(visionOf);
  const counted = withVision.some((vision) => vision !== undefined && vision.splice !== true);
  return counted ? { 'xray.buf.splice': 'disable' } : undefined;
}

function visionOf(row: ProtocolRow): Pick<ProtocolSettings['VLESS'], 'splice'> | undefined {
  const settings = parseProtocolSettings('VLESS', row.settings);
  return settings.flow === undefined ? undefined : { splice: settings.splice };
}

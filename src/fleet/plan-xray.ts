import { type XraySettings, xrayFaults } from '../protocols/routing/xray-settings.ts';
import { xraySettings } from '../settings/harmless.ts';
import { differences } from './plan-lines.ts';
import { keepSecrets, type Planned } from './planned.ts';

/** What the node's Xray is to have beside inbounds, outbounds and rules. Undefined if nothing changes. */
export function planXray(planned: Planned): XraySettings | undefined {
  const { declared, stored, lines, faults } = planned;
  if (declared.xray === undefined) return undefined;
  const path = [...planned.path, 'xray'];
  const faultsBefore = faults.length;
  const wanted = keepSecrets(planned, declared.xray, stored?.xray as typeof declared.xray, path);
  const changes = differences(stored?.xray ?? {}, wanted, xraySettings, ['xray']);
  if (changes.length === 0) return undefined;
  // If a marker stands for nothing, that fault is in the list already, and says more.
  if (faults.length === faultsBefore) {
    for (const fault of xrayFaults(wanted)) {
      faults.push({ path: [...path, ...fault.path], message: fault.message });
    }
  }
  const object = `Xray settings of node ${declared.name}`;
  lines.push({ action: 'change', object, changes });
  return wanted as XraySettings;
}

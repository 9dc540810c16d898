/** A fault that comparing with documentation did not find. */
interface Fault {
  fault: string;
  /** What showed it. */
  before: string;
  /** What would fail if it came back. */
  now: string;
}

/** docs/conformance.md has them in this order, which is that of issue 28. */
export const faults: readonly Fault[] = [
  {
    fault: 'Bytes of flow vision were counted only when the connection ended.',
    before: 'step c of the vision cells, 26.7.28: 73,584 of 3,069,442 bytes of an open download.',
    now: 'the same cells, and the run `vision`, which has both ways of it.',
  },
  {
    fault: 'Core gave Hysteria2 to each Xray.',
    before: 'Xray 25.12.8 did not start (`unknown transport protocol: hysteria`).',
    now: 'the row hysteria2-quic-tls with gap 2, and test/render/xray-versions.test.ts.',
  },
  {
    fault: 'REALITY locked sing-box and mihomo out without a word.',
    before: 'step b of the REALITY cells from 26.7.11 on.',
    now:
      'gap 3, the cells named `any`, and the warnings of `core protocol add` ' +
      '(test/protocols/warnings.test.ts).',
  },
  {
    fault: 'Outbounds had no transport.',
    before: 'a `hysteria` outbound ended Xray 26.7.28: `not hysteria transport`.',
    now: 'the run `outbounds`.',
  },
  {
    fault: 'Links said `security=none` where a proxy ends TLS.',
    before: 'step a of the cells named `behind-nginx`: Core did not take a public face.',
    now: 'the same cells, and the run `behind-proxy`, which has the address of the client, too.',
  },
  {
    fault: 'docs/agents.md was wrong on counters of removed users, GetUsersStats and telemt.',
    before: 'the source of Xray and of telemt; no run of this command showed it.',
    now: '`npm run real-node` with Xray, which removes users during transfers.',
  },
  {
    fault: 'Two UUIDs that differ in bytes 7 and 8 only are one user of VLESS and Hysteria2.',
    before: 'the source of Xray, which takes such a pair (`xray run -test`).',
    now: 'test/subscriptions/import-links.test.ts: the second one gets another credential.',
  },
  {
    fault: 'Core took rules, outbounds and listen addresses that Xray refuses.',
    before:
      '26.7.28 refused the prefix 10.0.0.0/33, the expression `(` and the address fe80::1%eth0, ' +
      'and with one of them the whole configuration.',
    now: 'the runs `rules`, `outbounds` and `inbounds`, and test/protocols/settings.test.ts.',
  },
  {
    fault: 'VMess links had one form, and two addresses could not share a port.',
    before: 'Core had no other form, and refused the second protocol on a port.',
    now: 'the cells named `uri`, and test/settings/protocols.test.ts.',
  },
  {
    fault: 'What an agent has to do for telemt was not said.',
    before: 'telemt 3.4.25, built and run with the golden inbound, kept sessions over a reload.',
    now: 'docs/agents.md says how. This command has no telemt, so nothing would fail here.',
  },
];

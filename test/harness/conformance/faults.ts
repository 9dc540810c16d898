/** A fault of Core that documentation did not show and a real program did. */
interface Fault {
  fault: string;
  /** The run that showed it, and what it said. */
  before: string;
  /** The run or test that would fail if it came back. */
  now: string;
}

/** docs/conformance.md lists them in this order, which is that of issue 28. */
export const faults: readonly Fault[] = [
  {
    fault: 'Bytes of flow vision counted only when the connection ended.',
    before:
      'step c of the vision cells: Xray counted 73,584 of 3,069,442 bytes of an open download.',
    now: 'the same cells, and the run `vision` with and without `splice`.',
  },
];

import { RE2JS } from 're2js';

/**
 * What is wrong with a regular expression in the syntax of Go, which Xray uses; undefined if nothing is.
 * JavaScript's own parser would take look-arounds and back references, and Xray does not start with them.
 * https://pkg.go.dev/regexp/syntax
 */
export function goRegexpFault(pattern: string): string | undefined {
  try {
    RE2JS.compile(pattern);
    return undefined;
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    return `Must be a regular expression in Go's syntax: ${reason.replace('error parsing regexp: ', '')}`;
  }
}

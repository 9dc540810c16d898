/** Stands in an exported file for a secret that was left out: apply keeps the stored value there. */
export const keptMarker = '<kept>';
/** Stands in a printed plan for a secret. */
const maskText = '(secret)';

const secretEnds = [
  'privatekey',
  'secretkey',
  'serverkey',
  'presharedkey',
  'password',
  'secret',
  'psk',
];
const secretNames = new Set(['key', 'pass', 'auth', 'id', 'uuid']);

/** Whether a field of protocol or outbound settings holds a credential, by its name. */
function isSecretName(name: string): boolean {
  const lower = name.toLowerCase();
  return secretNames.has(lower) || secretEnds.some((end) => lower.endsWith(end));
}

/** A copy of settings in which every secret text is the marker. */
export function withoutSecrets(value: unknown): unknown {
  return replaceSecrets(value, keptMarker);
}

/** A copy of settings to be printed. */
export function maskSecrets(value: unknown): unknown {
  return replaceSecrets(value, maskText);
}

/** Whether what stands at this place is to be masked where it is printed. */
export function isSecretPath(path: readonly string[]): boolean {
  return path.some(isSecretName);
}

function replaceSecrets(value: unknown, by: string, isSecret = false): unknown {
  if (Array.isArray(value)) return value.map((inner) => replaceSecrets(inner, by, isSecret));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [
        name,
        replaceSecrets(inner, by, isSecret || isSecretName(name)),
      ]),
    );
  }
  return isSecret && typeof value === 'string' && value !== '' ? by : value;
}

/**
 * A copy of settings from a file with the stored value at every marker. `missing` is called with the
 * place of a marker for which nothing is stored.
 */
export function withKeptSecrets(
  given: unknown,
  stored: unknown,
  missing: (path: (string | number)[]) => void,
  path: (string | number)[] = [],
): unknown {
  if (given === keptMarker) {
    if (typeof stored === 'string') return stored;
    missing(path);
    return given;
  }
  if (Array.isArray(given)) {
    const from: unknown[] = Array.isArray(stored) ? stored : [];
    return given.map((inner, index) =>
      withKeptSecrets(inner, from[index], missing, [...path, index]),
    );
  }
  if (typeof given !== 'object' || given === null) return given;
  const from = typeof stored === 'object' && stored !== null ? stored : {};
  return Object.fromEntries(
    Object.entries(given).map(([name, inner]) => [
      name,
      withKeptSecrets(inner, (from as Record<string, unknown>)[name], missing, [...path, name]),
    ]),
  );
}

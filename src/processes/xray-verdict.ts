import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { CoreError } from '../errors.ts';
import { withoutSecrets } from './without-secrets.ts';

// What a real Xray says of a configuration: `xray run -test` reads it, builds every part and starts nothing.
// It opens no port, so it does not see that two inbounds have the same one.

/** The configuration goes to Xray by stdin, so that no key in it comes to a disk. */
const endMsMax = 60_000;
const outputCharsMax = 65_536;

export type XrayVerdict =
  | { outcome: 'taken'; version: string }
  | { outcome: 'refused'; version: string; reason: string }
  /** A geo file that the configuration names is not where this Xray looks for it. */
  | { outcome: 'needs geo files'; version: string; reason: string };

/**
 * Tests a configuration. The files of certificates are on the node, so Xray gets a certificate of its own making
 * in the place of each.
 * @param program A path, or a name on the PATH.
 * @throws CoreError XRAY_UNUSABLE if there is no such program, it is no Xray, or it does not end.
 */
export async function xrayVerdict(program: string, config: object): Promise<XrayVerdict> {
  const version = await versionOf(program);
  const certificate = await makeCertificate(program);
  const { code, said } = await run(
    program,
    ['run', '-test', '-config', 'stdin:'],
    JSON.stringify(withCertificate(config, certificate)),
  );
  if (code === 0) return { outcome: 'taken', version };
  const reason = reasonIn(said);
  const isGeo = /failed to (open|load|read)[^>]*\.dat\b.*no such file/i.test(reason);
  return { outcome: isGeo ? 'needs geo files' : 'refused', version, reason };
}

async function versionOf(program: string): Promise<string> {
  const { said } = await run(program, ['version']);
  const version = /^Xray (\d+\.\d+\.\d+)/m.exec(said)?.[1];
  if (version !== undefined) return version;
  throw unusable(program, `does not say that it is Xray: ${firstLine(said) || 'it says nothing'}`);
}

interface Certificate {
  certificate: string[];
  key: string[];
}

async function makeCertificate(program: string): Promise<Certificate> {
  const { said } = await run(program, ['tls', 'cert', '-domain=core.invalid', '-json']);
  try {
    return JSON.parse(said) as Certificate;
  } catch (cause) {
    throw unusable(program, 'makes no certificate for the test', { cause });
  }
}

/** The configuration with a certificate in the place of the files of each. */
function withCertificate(value: unknown, made: Certificate): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((one) => withCertificate(one, made));
  const fields = Object.entries(value);
  const names = fields.map(([name]) => name.toLowerCase());
  if (!names.includes('certificatefile')) {
    return Object.fromEntries(fields.map(([name, inner]) => [name, withCertificate(inner, made)]));
  }
  const others = fields.filter(([name]) => !/^(certificate|key)file$/i.test(name));
  const key = names.includes('keyfile') ? { key: made.key } : {};
  return { ...Object.fromEntries(others), certificate: made.certificate, ...key };
}

async function run(
  program: string,
  args: readonly string[],
  input = '',
): Promise<{ code: number; said: string }> {
  const [command = '', ...before] = withoutSecrets;
  const child = spawn(command, [...before, program, ...args], {
    stdio: 'pipe',
    timeout: endMsMax,
    killSignal: 'SIGKILL',
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      if (said.length < outputCharsMax) said += String(chunk);
    });
  }
  // A program that ends before it has read everything is judged by how it ends.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let code: number | null;
  try {
    [code] = (await once(child, 'close')) as [number | null];
  } catch (cause) {
    throw unusable(program, 'cannot be run', { cause });
  }
  // As `env` says that it found no program, or could not execute it.
  if (code === 126 || code === 127) throw unusable(program, `cannot be run: ${firstLine(said)}`);
  if (code === null) throw unusable(program, `did not end within ${endMsMax / 1_000} s`);
  return { code, said };
}

function unusable(program: string, fault: string, options?: ErrorOptions): CoreError {
  const message = `${program} ${fault}. Name an Xray with --xray or CORE_XRAY, or put xray on the PATH`;
  return new CoreError('XRAY_UNUSABLE', message, options);
}

/** The line of Xray that says why, without the parts that name its own source. */
function reasonIn(said: string): string {
  const line = said.split('\n').find((one) => /Failed to start|panic:|fatal error:/i.test(one));
  return (line ?? said)
    .replace(/^.*Failed to start: /, '')
    .replace(/^main: failed to (load config files: \[[^\]]*\]|create server) > /, '')
    .trim();
}

function firstLine(text: string): string {
  return text.trim().split('\n')[0] ?? '';
}

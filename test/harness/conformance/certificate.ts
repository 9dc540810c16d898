import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';

/** A certificate for one host name, and the authority that signed it. All three are PEM files. */
export interface Certificate {
  authorityFile: string;
  certificateFile: string;
  keyFile: string;
}

/** The name in the certificate, and in the share links. */
export const serverName = 'vpn.example.com';

const openssl = (args: readonly string[]) => promisify(execFile)('openssl', [...args]);
const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/**
 * Makes an authority and a certificate that it signed. A client's process gets the authority as the only one
 * that it trusts (`SSL_CERT_FILE`), so a link need not say anything of the certificate.
 */
export async function makeCertificate(folder: string): Promise<Certificate> {
  const at = (name: string): string => path.join(folder, name);
  const [authorityFile, authorityKey] = [at('authority.pem'), at('authority-key.pem')];
  const [certificateFile, keyFile, request] = [at('cert.pem'), at('key.pem'), at('request.pem')];
  await openssl([
    ...['req', '-x509', ...newKey, '-keyout', authorityKey, '-out', authorityFile],
    ...['-days', '30', '-subj', '/CN=Conformance authority'],
  ]);
  await openssl([
    ...['req', '-new', ...newKey, '-keyout', keyFile, '-out', request],
    ...['-subj', `/CN=${serverName}`],
  ]);
  const extensions = at('extensions.cnf');
  writeFileSync(extensions, `subjectAltName=DNS:${serverName}\nbasicConstraints=CA:FALSE\n`);
  await openssl([
    ...['x509', '-req', '-in', request, '-CA', authorityFile, '-CAkey', authorityKey],
    ...['-CAcreateserial', '-days', '30', '-extfile', extensions, '-out', certificateFile],
  ]);
  return { authorityFile, certificateFile, keyFile };
}

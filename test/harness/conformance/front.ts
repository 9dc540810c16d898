import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Lifecycle } from '../../../src/lifecycle.ts';
import type { Certificate } from './certificate.ts';
import { runToEnd, startChild } from './child.ts';

/** A port where nginx ends TLS and passes on to an inbound that has none. */
export interface Front {
  kind: 'ws' | 'grpc';
  /** Of the inbound. */
  port: number;
  frontPort: number;
}

/** Debian has nginx in a folder that is on the PATH of root only. */
const nginx = existsSync('/usr/sbin/nginx') ? '/usr/sbin/nginx' : 'nginx';

/** Starts one nginx for all of them. */
export async function startFront(
  { folder, certificate }: { folder: string; certificate: Certificate },
  fronts: readonly Front[],
  lifecycle: Lifecycle,
): Promise<void> {
  if (fronts.length === 0) return;
  const file = path.join(folder, 'nginx.conf');
  writeFileSync(file, configText(folder, certificate, fronts));
  const tested = await runToEnd(nginx, ['-t', '-p', folder, '-c', file]);
  if (!tested.ok) throw new Error(`nginx does not take its configuration: ${tested.output}`);
  const child = await startChild({
    file: nginx,
    args: ['-p', folder, '-c', file],
    ready: /start worker process /,
    // Its workers would outlive a kill.
    stopSignal: 'SIGTERM',
    logFile: path.join(folder, 'nginx.log'),
  });
  lifecycle.use('nginx', () => child.stop());
}

function configText(folder: string, certificate: Certificate, fronts: readonly Front[]): string {
  const at = (name: string): string => path.join(folder, name);
  const servers = fronts.map(
    ({ kind, port, frontPort }) => `  server {
    listen 127.0.0.1:${frontPort} ssl http2;
    ssl_certificate ${certificate.certificateFile};
    ssl_certificate_key ${certificate.keyFile};
    location / { ${kind === 'grpc' ? grpcText(port) : wsText(port)} }
  }`,
  );
  return `daemon off;
worker_processes 1;
pid ${at('nginx.pid')};
error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path ${at('nginx-body')};
  proxy_temp_path ${at('nginx-proxy')};
  fastcgi_temp_path ${at('nginx-fastcgi')};
  uwsgi_temp_path ${at('nginx-uwsgi')};
  scgi_temp_path ${at('nginx-scgi')};
${servers.join('\n')}
}
`;
}

function grpcText(port: number): string {
  return `grpc_pass grpc://127.0.0.1:${port}; client_max_body_size 0;`;
}

function wsText(port: number): string {
  return `proxy_pass http://127.0.0.1:${port}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;`;
}

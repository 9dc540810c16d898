import type { IncomingMessage } from 'node:http';
import { deniedFault } from './fault.ts';

const loopbackNames = ['127.0.0.1', 'localhost', '[::1]'];

/** Names under which a server may be asked: those of this machine, and what the operator adds. */
export function allowedHosts(added: readonly string[]): ReadonlySet<string> {
  return new Set([...loopbackNames, ...added.map((name) => name.toLowerCase())]);
}

/**
 * Refuses what a web page makes a browser send. A page cannot read answers of another origin, but
 * it can send requests to each port of the machine that shows it. And it can make its own name point
 * to that machine (DNS rebinding): then it is of the same origin, and only the name in `Host` tells.
 *
 * @throws 403 ACCESS_DENIED.
 */
export function refuseWebPages(request: IncomingMessage, hosts: ReadonlySet<string>): void {
  const { host = '', origin } = request.headers;
  const name = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::\d{1,5})?$/i.exec(host)?.[1]?.toLowerCase();
  if (name === undefined || !hosts.has(name)) {
    throw deniedFault(
      'The Host of the request is none of the names of this server; CORE_CLICKHOUSE_HOSTS adds one.',
    );
  }
  const site = request.headers['sec-fetch-site'] ?? 'none';
  if (origin !== undefined || (site !== 'none' && site !== 'same-origin')) {
    throw deniedFault('Requests of web pages are refused.');
  }
}

import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Account } from './access.ts';
import { clickhouseFault, deniedFault } from './fault.ts';

const loopbackNames = ['127.0.0.1', 'localhost', '[::1]'];

/** Names that a request's Host may have: those of this machine, and those that the operator adds. */
export function allowedHosts(added: readonly string[]): ReadonlySet<string> {
  return new Set([...loopbackNames, ...added.map((name) => name.toLowerCase())]);
}

/**
 * Refuses requests that a web page makes a browser send. A page cannot read answers of another origin, but
 * it can send requests to each port of the machine that shows it. It can also make its own name point to
 * that machine (DNS rebinding). Then the origin is the same, and only the name in `Host` gives it away.
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

/** The account of a name and password; undefined if there is none. */
export type Login = (name: string, password: string) => Account | undefined;

/** Compares passwords by their hashes, so that the time it takes does not tell how much was right. */
export function createLogin(passwords: Readonly<Record<Account, string>>): Login {
  const hashes: readonly [Account, Buffer][] = [
    ['core', hashOf(passwords.core)],
    ['analyst', hashOf(passwords.analyst)],
  ];
  return (name, password) => {
    const given = hashOf(password);
    const found = hashes.find(([account]) => account === name);
    return found !== undefined && timingSafeEqual(found[1], given) ? found[0] : undefined;
  };
}

function hashOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/**
 * The account that a request names, in one of the ways of ClickHouse's HTTP interface: Basic, the
 * headers `X-ClickHouse-User` and `X-ClickHouse-Key`, or the parameters `user` and `password` of
 * the URL. A request without a name means the user `default`, as with ClickHouse; that user is not here.
 *
 * @throws 401 AUTHENTICATION_FAILED for a wrong name or password, and if two ways are used at once.
 */
export function logIn(
  request: IncomingMessage,
  parameters: URLSearchParams,
  login: Login,
): Account {
  const user = request.headers['x-clickhouse-user']?.toString();
  const key = request.headers['x-clickhouse-key']?.toString();
  const { authorization } = request.headers;
  const inHeaders = user !== undefined || key !== undefined;
  const inUrl = parameters.has('user') || parameters.has('password');
  if (Number(inHeaders) + Number(authorization !== undefined) + Number(inUrl) > 1) {
    throw loginFault(
      'Invalid authentication: it is not allowed to use X-ClickHouse HTTP headers, Authorization ' +
        'HTTP header and authentication via parameters simultaneously',
    );
  }
  let given = { name: user ?? 'default', password: key ?? '' };
  if (authorization !== undefined) given = readBasic(authorization);
  if (inUrl) {
    // Nobody would check the second value of a parameter.
    if (parameters.getAll('user').length > 1 || parameters.getAll('password').length > 1) {
      throw loginFault('Invalid authentication: a parameter is given twice');
    }
    given = {
      name: parameters.get('user') ?? 'default',
      password: parameters.get('password') ?? '',
    };
  }
  const account = login(given.name, given.password);
  if (account !== undefined) return account;
  // The client chose the name: it may hold anything and have any length.
  const shown = /^[\w.-]{1,64}$/.test(given.name) ? given.name : 'this user';
  throw loginFault(
    `${shown}: Authentication failed: password is incorrect, or there is no user with such name. ` +
      'Tools have the user analyst, and core stores --reveal prints its password.',
  );
}

function readBasic(authorization: string): { name: string; password: string } {
  const encoded = /^Basic +([A-Za-z0-9+/=_-]+) *$/i.exec(authorization)?.[1];
  if (encoded === undefined) {
    throw loginFault('Invalid authentication: only the Basic HTTP authentication is supported');
  }
  const decoded = Buffer.from(encoded, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 0) return { name: decoded, password: '' };
  return { name: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

function loginFault(message: string): Error {
  return clickhouseFault(516, 'AUTHENTICATION_FAILED', message, {
    status: 401,
    headers: { 'WWW-Authenticate': 'Basic realm="ClickHouse server HTTP API"' },
  });
}

/** Where events are posted to: the operator's URL, taken apart. */
export interface WebhookAddress {
  /** Without user and password, which fetch refuses in a URL. */
  url: string;
  /** Value of the header for the user and password of the URL, if it has any. */
  authorization?: string;
}

/**
 * A user and a password in the URL become Basic authentication, percent-decoded.
 *
 * Source: RFC 7617, section 2, with UTF-8.
 */
export function webhookAddress(given: string): WebhookAddress {
  const url = new URL(given);
  if (url.username === '' && url.password === '') return { url: url.href };
  const pair = [url.username, url.password].map(decodeURIComponent).join(':');
  url.username = '';
  url.password = '';
  return { url: url.href, authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

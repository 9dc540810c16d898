import { CoreError } from '../errors.ts';

/** In which formats a page may be asked for. */
export const pageFormats = ['base64', 'plain', 'mihomo', 'sing-box', 'html'] as const;
export type PageFormat = (typeof pageFormats)[number];

/** Hiddify and Karing also name Clash in their User-Agent, so the start of it counts. */
const singBoxApps = /^(sfa|sfi|sfm|sft|sing-box|karing|hiddify)/i;
const mihomoApps = /^(clash|mihomo|stash|flclash|koala-clash)|prefer clashmeta/i;

/**
 * The format for who asks: what `?format=` says, otherwise what the app is known to take, otherwise a page
 * to read for a browser, and Base64 for every other app.
 * @throws CoreError INVALID_QUERY if `format` is none of the formats.
 */
export function formatFor(asked: {
  format: string;
  userAgent: string;
  accept: string;
}): PageFormat {
  const { format, userAgent, accept } = asked;
  if (format !== '') return givenFormat(format);
  if (singBoxApps.test(userAgent)) return 'sing-box';
  if (mihomoApps.test(userAgent)) return 'mihomo';
  return /\btext\/html\b/i.test(accept) ? 'html' : 'base64';
}

function givenFormat(given: string): PageFormat {
  // Other panels call it by the name of the program that mihomo grew out of.
  const name = given === 'clash' ? 'mihomo' : given;
  const found = pageFormats.find((format) => format === name);
  if (found !== undefined) return found;
  throw new CoreError('INVALID_QUERY', `format must be one of ${pageFormats.join(', ')}`);
}

/**
 * Whether If-None-Match names a tag: it is `*` or a list of tags, which may be weak (RFC 9110, 13.1.2).
 * @param etag in quotes.
 */
export function matchesEtag(header: string, etag: string): boolean {
  if (header === '') return false;
  const tags = header.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
  return tags.includes(etag) || tags.includes('*');
}

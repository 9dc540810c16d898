import { credentialUuid } from '../../src/protocols/credential.ts';
import type { CredentialText, LinkRecords } from '../../src/render/link-records.ts';
import { linkUuid } from '../../src/render/link-uuid.ts';

export interface LinkRow {
  nodeProtocolId: number;
  userId: number;
  subscriptionId: number;
  /** Any text, as given to a client app. */
  credential: string;
  /** A UUID from before groups. */
  storedUuid?: string;
  /** ISO 8601 in UTC. */
  expiresAt?: string | null;
}

/** The UUID that traffic of a link is counted by. */
export function uuidOf(row: LinkRow): string {
  return row.storedUuid ?? linkUuid(row.subscriptionId, row.nodeProtocolId);
}

/** Encodes links as `linkRecordSql` does in Postgres. */
export function encodeLinkRecords(rows: readonly LinkRow[]): LinkRecords[] {
  return rows.map((row) => {
    const ids = Buffer.alloc(32);
    ids.writeBigInt64BE(BigInt(row.nodeProtocolId), 0);
    ids.writeBigInt64BE(BigInt(row.userId), 8);
    ids.writeBigInt64BE(BigInt(row.subscriptionId), 16);
    ids.writeBigInt64BE(BigInt(row.expiresAt ? Date.parse(row.expiresAt) : 0), 24);
    return Buffer.concat([bytesOf(uuidOf(row)), bytesOf(credentialUuid(row.credential)), ids]);
  });
}

/** The texts that the records cannot hold. */
export function credentialTexts(rows: readonly LinkRow[]): CredentialText[] {
  return rows
    .filter((row) => credentialUuid(row.credential) !== row.credential)
    .map(({ nodeProtocolId, subscriptionId, credential }) => ({
      nodeProtocolId,
      subscriptionId,
      text: credential,
    }));
}

function bytesOf(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

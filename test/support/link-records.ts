import type { LinkRecords } from '../../src/render/link-records.ts';

export interface LinkRow {
  uuid: string;
  nodeProtocolId: number;
  userId: number;
  subscriptionId: number;
  /** ISO 8601 in UTC. */
  expiresAt?: string | null;
}

/** Encodes links as `linkRecordSql` does in Postgres. */
export function encodeLinkRecords(rows: readonly LinkRow[]): LinkRecords[] {
  return rows.map((row) => {
    const ids = Buffer.alloc(32);
    ids.writeBigInt64BE(BigInt(row.nodeProtocolId), 0);
    ids.writeBigInt64BE(BigInt(row.userId), 8);
    ids.writeBigInt64BE(BigInt(row.subscriptionId), 16);
    ids.writeBigInt64BE(BigInt(row.expiresAt ? Date.parse(row.expiresAt) : 0), 24);
    return Buffer.concat([Buffer.from(row.uuid.replaceAll('-', ''), 'hex'), ids]);
  });
}

import { parentPort, workerData } from 'node:worker_threads';
import { limits } from '../contract/limits.ts';
import { ingestSchemas } from '../contract/node.ts';
import { toCoreError } from '../errors.ts';
import { requireFewValues } from './decode.ts';
import type { LargeBodyAnswer, LargeBodyJob } from './large-bodies.ts';
import { packBody } from './pack-body.ts';

// The thread that large-bodies.ts starts. It takes one body after the other and answers each once.

const { entriesMax } = workerData as { entriesMax: number };
const valuesMax = entriesMax * limits.valuesPerEntryMax;
let nowMs = 0;
const schemas = ingestSchemas({ entriesMax, nowMs: () => nowMs });

parentPort?.on('message', (job: LargeBodyJob) => {
  nowMs = job.nowMs;
  const answer = answerOf(job);
  parentPort?.postMessage(answer, 'bytes' in answer ? [answer.bytes.buffer] : []);
});

function answerOf(job: LargeBodyJob): LargeBodyAnswer {
  try {
    requireFewValues(job.body, valuesMax);
    const { rows, bytes } = packBody(schemas, job);
    return { rows, bytes: new Uint8Array(bytes) };
  } catch (thrown) {
    const { code, message, issues, cause } = toCoreError(thrown);
    return { code, message, issues, cause: String(cause ?? '') };
  }
}

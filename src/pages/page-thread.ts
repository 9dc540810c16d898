import { parentPort, workerData } from 'node:worker_threads';
import { classifyFailure } from '../stores/failures.ts';
import { createPool } from '../stores/postgres.ts';
import { readPage } from './read-page.ts';
import { renderPage } from './render-page.ts';
import type { PageAnswer, PageJob, PageThreadData } from './rendering.ts';

// The thread that rendering.ts starts. It answers each job once.

const { databaseUrl, title } = workerData as PageThreadData;
const pool = createPool(databaseUrl, { max: 2 });

parentPort?.on('message', (job: PageJob) => {
  void answerOf(job).then((answer) => parentPort?.postMessage(answer));
});

async function answerOf({ number, hash, format }: PageJob): Promise<PageAnswer> {
  try {
    const content = await readPage(pool, Buffer.from(hash));
    return { number, page: content && renderPage(content, format, title) };
  } catch (thrown) {
    const { code, message, cause } = classifyFailure(thrown);
    return { number, code, message, cause: String(cause ?? '') };
  }
}

// `node scripts/core.mjs <command>` is `core <command>` from a checkout in any state. It goes on in
// this same process, so that a signal reaches Core and not a shell around it.
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap, root } from './bootstrap.mjs';

await bootstrap();
const program = path.join(root, 'dist', 'src', 'bin', 'core.js');
process.argv[1] = program;
await import(pathToFileURL(program).href);

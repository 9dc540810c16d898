// `npm run fuzz -- …` from a checkout in any state.
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap, root } from './bootstrap.mjs';

await bootstrap();
const program = path.join(root, 'dist', 'test', 'harness', 'fuzz.js');
process.argv[1] = program;
await import(pathToFileURL(program).href);

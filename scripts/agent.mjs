// `npm run agent -- …` from a checkout in any state.
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { bootstrap, root } from './bootstrap.mjs';

await bootstrap();
const program = path.join(root, 'dist', 'examples', 'agent', 'main.js');
process.argv[1] = program;
await import(pathToFileURL(program).href);

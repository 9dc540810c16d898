// `npm run bench -- …` from a checkout in any state.
import { runBuilt } from './bootstrap.mjs';

await runBuilt('bench', 'bench.js');

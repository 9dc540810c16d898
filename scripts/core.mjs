// `node scripts/core.mjs <command>` is `core <command>` from a checkout in any state.
import { runBuilt } from './bootstrap.mjs';

await runBuilt('src', 'bin', 'core.js');

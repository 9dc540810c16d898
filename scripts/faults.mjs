// `npm run faults -- …` from a checkout in any state.
import { runBuilt } from './bootstrap.mjs';

await runBuilt('test', 'harness', 'faults.js');

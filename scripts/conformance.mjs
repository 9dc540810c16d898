// `npm run conformance -- …` from a checkout in any state.
import { runBuilt } from './bootstrap.mjs';

await runBuilt('test', 'harness', 'conformance.js');

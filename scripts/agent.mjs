// `npm run agent -- …` from a checkout in any state.
import { runBuilt } from './bootstrap.mjs';

await runBuilt('examples', 'agent', 'main.js');

// `npm run build`: installs and builds what is needed.
import { bootstrap } from './bootstrap.mjs';

await bootstrap();

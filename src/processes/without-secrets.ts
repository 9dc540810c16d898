import { settingsWithSecrets } from '../environment.ts';

/** Goes before a program's command. The program needs no setting of Core, and some settings hold a password. */
export const withoutSecrets: readonly string[] = [
  'env',
  ...settingsWithSecrets.flatMap((name) => ['-u', name]),
];

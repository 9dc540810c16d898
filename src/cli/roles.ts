import type { Command } from 'commander';
import { requireHttpBinary } from '../http/native-binary.ts';
import type { CliContext, Run } from './context.ts';

// Only a command of a role loads the modules of the roles. They load the HTTP server and the workers, and
// no other command should wait for those.

/** `core up`, `core serve`, `core work`, `core migrate` */
export function addRoleCommands(program: Command, run: Run): void {
  program
    .command('up')
    .description('Start everything: the stores without a URL, the HTTP server and the workers')
    .addHelpText('after', '\nExample:\n  CORE_PORT=9000 core up')
    .action(
      run(async (context) => {
        requireHttpBinary();
        const { up } = await import('../app/up.ts');
        const exitCode = await up(context.config, context.log, context.print);
        return { exitCode };
      }),
    );

  program
    .command('serve')
    .description('Serve HTTP only; the stores run elsewhere')
    .addHelpText('after', '\nExample:\n  CORE_API_PROCESSES=4 core serve')
    .action(
      run(async (context) => {
        requireHttpBinary();
        const { runServe, serveProcesses } = await import('../app/roles.ts');
        const serve = context.config.http.processes > 1 ? serveProcesses : runServe;
        return ended(context, await serve(context.config, context.log));
      }),
    );

  program
    .command('work')
    .description('Run the workers only; the stores run elsewhere')
    .addHelpText('after', '\nExample:\n  core work')
    .action(
      run(async (context) => {
        const { runWork } = await import('../app/roles.ts');
        return ended(context, await runWork(context.config, context.log));
      }),
    );

  program
    .command('migrate')
    .description('Bring Postgres and ClickHouse to the newest schema')
    .addHelpText('after', '\nExample:\n  core migrate')
    .action(
      run(async (context) => {
        const { migrate } = await import('../app/migrate.ts');
        // Opened only to name a store that is away in one clear line.
        await context.postgres();
        await context.clickhouse();
        await migrate(context.config, context.log);
        context.print({ migrated: true }, 'Postgres and ClickHouse have the newest schema.\n');
      }),
    );
}

/** A role's only result is its exit code. */
function ended(context: CliContext, exitCode: number): { exitCode: number } {
  if (context.json) context.print({ exitCode });
  return { exitCode };
}

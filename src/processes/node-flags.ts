/**
 * Flags of Node for all of Core's processes. They are on the command line, because V8 aborts at its next
 * collection if this flag is set later (`v8.setFlagsFromString`).
 *
 * V8 collects garbage with four threads in addition to the main one, and the main one waits for those that
 * have begun. If Core shares its cores with its stores, each of these threads waits milliseconds for a
 * processor, and an api process answers nobody meanwhile. The main thread alone is faster, and uses less of
 * the processor in all.
 */
export const nodeFlags = ['--single-threaded-gc'] as const;

/**
 * Flags by command of the CLI. A worker's garbage is Redis' replies: 64 KiB each outside of V8's heap, with a
 * small object in the heap. These small objects hardly fill the young generation of 16 MiB, the default. So
 * V8 marked the whole heap every two seconds to free the memory outside. A young generation of 1 MiB is
 * collected often, at little cost, and that frees the replies.
 */
export const roleFlags = {
  serve: nodeFlags,
  work: [...nodeFlags, '--max-semi-space-size=1'],
} as const;

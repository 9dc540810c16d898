/**
 * What Core's processes ask of Node, each on its command line: set any later (`v8.setFlagsFromString`),
 * this flag makes V8 abort at its next collection.
 *
 * V8 collects with four threads beside the main one, and the main one waits for those that have begun.
 * Where Core shares its cores with its stores, these wait for a processor in turn, for milliseconds
 * each, and an api process answers nobody meanwhile. Alone it is done sooner, and needs less of the
 * processor in all.
 */
export const nodeFlags = ['--single-threaded-gc'] as const;

/**
 * The same by command of the CLI. A worker's garbage is Redis' replies, 64 KiB each outside of V8's
 * heap behind a small object within it. The young generation, 16 MiB unless told, hardly fills with
 * such objects, so that V8 marks the whole heap every two seconds for what lies outside. With 1 MiB it
 * is collected often, at little cost, and the replies go with it.
 */
export const roleFlags = {
  serve: nodeFlags,
  work: [...nodeFlags, '--max-semi-space-size=1'],
} as const;

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

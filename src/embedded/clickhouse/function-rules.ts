/**
 * Table functions that anybody may use. They generate rows, or read tables that the account may read in any
 * case. All others are refused, and so is everything that a later version of the engine adds.
 */
const tableFunctionsAllowed = new Set([
  'generate_series',
  'generateseries',
  'merge',
  'numbers',
  'numbers_mt',
  'values',
  'view',
]);

/**
 * Kinds of functions, as `system.functions` names them, that work on their arguments alone. The kinds that
 * are missing here call a service, read a model or a dictionary, or look into the process.
 */
const functionKindsAllowed = new Set([
  'Aggregate Functions',
  'Arithmetic',
  'Arrays',
  'Bit',
  'Bitmap',
  'Comparison',
  'Conditional',
  'Dates and Times',
  'Distance',
  'Encoding',
  'Encryption',
  'Financial',
  'Geo',
  'Geo Polygon',
  'Hash',
  'IP Address',
  'Internal',
  'JSON',
  'Logical',
  'Map',
  'Mathematical',
  'Null',
  'NumericIndexedVector',
  'Other',
  'QBit',
  'Random Number',
  'Rounding',
  'String',
  'String Replacement',
  'String Search',
  'String Splitting',
  'Time Series',
  'Time Window',
  'Tuple',
  'Type Conversion',
  'URL',
  'UUID',
]);

/**
 * Functions of an allowed kind that are refused all the same: they start a program, read a file, or show
 * headers of requests and certificates.
 */
const exceptions = ['catboostEvaluate', 'file', 'getClientHTTPHeader', 'showCertificate'];

/** What the engine has, as it says when it opens. */
interface EngineNames {
  tableFunctions: readonly string[];
  functions: readonly { name: string; kind: string; aliasOf: string }[];
}

/** The names that are refused to everybody, in lower case. */
export interface FunctionRules {
  functionsRefused: ReadonlySet<string>;
  tableFunctionsRefused: ReadonlySet<string>;
}

export function createFunctionRules(names: EngineNames): FunctionRules {
  const tableFunctions = names.tableFunctions.map((name) => name.toLowerCase());
  return {
    functionsRefused: refusedOf(names.functions),
    tableFunctionsRefused: new Set(
      tableFunctions.filter((name) => !tableFunctionsAllowed.has(name)),
    ),
  };
}

function refusedOf(all: EngineNames['functions']): ReadonlySet<string> {
  const refused = new Set(exceptions.map((name) => name.toLowerCase()));
  for (const { name, kind, aliasOf } of all) {
    const isInternal = kind === 'Internal' && name.startsWith('__');
    if (aliasOf === '' && (!functionKindsAllowed.has(kind) || isInternal)) {
      refused.add(name.toLowerCase());
    }
  }
  // An alias has no kind of its own: it is refused with its function.
  for (const { name, aliasOf } of all) {
    if (refused.has(aliasOf.toLowerCase())) refused.add(name.toLowerCase());
  }
  return refused;
}

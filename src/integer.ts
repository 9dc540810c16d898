import { InvalidArgumentError } from 'commander';

/**
 * A parser of a whole number within bounds, for an option or argument of commander. It takes digits
 * only: no sign, no fraction, no exponent.
 */
export const integer =
  (min: number, max: number) =>
  (given: string): number => {
    const value = /^\d{1,16}$/.test(given) ? Number(given) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(
      max === Number.MAX_SAFE_INTEGER
        ? `It must be a whole number from ${min}.`
        : `It must be a whole number from ${min} to ${max}.`,
    );
  };

import { ClickHouseError } from '@clickhouse/client';

/**
 * The codes by which ClickHouse says that it cannot take the data. Any other code, and any failure that
 * is not an answer of ClickHouse, may go away by itself: ClickHouse is away, busy, short of memory,
 * lacks a table, has too many parts or ran into a time-out. If a code is missing here, a segment waits
 * for an operator. If there is one too many, no row is lost: each row is also tried alone (bisect.ts).
 *
 * Source: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
 */
const dataCodes = new Set([
  '6', // CANNOT_PARSE_TEXT
  '27', // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  '33', // CANNOT_READ_ALL_DATA
  '38', // CANNOT_PARSE_DATE
  '41', // CANNOT_PARSE_DATETIME
  '53', // TYPE_MISMATCH
  '69', // ARGUMENT_OUT_OF_BOUND
  '70', // CANNOT_CONVERT_TYPE
  '72', // CANNOT_PARSE_NUMBER
  '117', // INCORRECT_DATA
  '131', // TOO_LARGE_STRING_SIZE
  '153', // ILLEGAL_DIVISION
  '321', // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
  '349', // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  '395', // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
  '407', // DECIMAL_OVERFLOW
  '469', // VIOLATED_CONSTRAINT
  '675', // CANNOT_PARSE_IPV4
  '676', // CANNOT_PARSE_IPV6
  '691', // UNKNOWN_ELEMENT_OF_ENUM
]);

/** Why ClickHouse refuses the data of an INSERT; undefined for any other failure. */
export function dataRefusal(thrown: unknown): string | undefined {
  if (!(thrown instanceof ClickHouseError) || !dataCodes.has(thrown.code)) return undefined;
  // The message may quote a value of the row, and Postgres' type text cannot hold U+0000.
  const message = thrown.message.replaceAll('\u0000', '\\0').slice(0, 1_000);
  return `${thrown.type ?? 'REFUSED'} (${thrown.code}): ${message}`;
}

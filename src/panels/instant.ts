/** A number below this is too small for seconds since 1970 that mean a date: it is before 2001-09-09. */
const secondsMin = 1_000_000_000;
/** From here on a number means milliseconds: as seconds it would be past the year 5138. */
const millisecondsMin = 100_000_000_000;
/** The end of the year 9999. */
const millisecondsMax = 253_402_300_799_999;

export type Instant = { at: Date | null } | { fault: string };

/**
 * Reads a point in time as panels and spreadsheets write it: ISO 8601 with a zone; without one if `zone` is
 * given; seconds or milliseconds since 1970. Null means never: 0, `never` and nothing.
 * @param zone of a time that names none: an IANA name like Asia/Tehran. A date alone is its first moment.
 */
export function readInstant(given: string, zone: string | undefined): Instant {
  const text = given.trim();
  if (/^(0+(\.0*)?|never|null)?$/i.test(text)) return { at: null };
  if (/^-?\d+(\.\d+)?$/.test(text)) return fromNumber(Number(text));
  const parts =
    /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d(?::?\d\d)?)?$/i.exec(
      text,
    );
  if (parts === null) return { fault: unreadable };
  const [year, month, day, hour = 0, minute = 0, second = 0] = parts.slice(1, 7).map(orZero);
  const fraction = Number(`0.${parts[7] ?? '0'}`);
  const wall = Date.UTC(year ?? 0, (month ?? 0) - 1, day, hour, minute, second);
  const shown = new Date(wall).toISOString().slice(0, 19).split(/[-T:]/).map(Number);
  // Date.UTC turns the 31st of February into the 3rd of March.
  if (shown.join() !== [year, month, day, hour, minute, second].join()) {
    return { fault: 'there is no such date or time' };
  }
  const wallMs = wall + Math.floor(fraction * 1_000);
  const offset = parts[8];
  if (offset !== undefined) return { at: new Date(wallMs - offsetMs(offset)) };
  if (zone !== undefined) return { at: inZone(wallMs, zone) };
  const example = `${text.slice(0, 10)}T${parts[4] === undefined ? '00:00:00' : text.slice(11, 19)}Z`;
  return { fault: `it names no time zone: write it like ${example}, or give --timezone` };
}

const unreadable =
  'It must be a date and time with zone, like 2030-01-31T00:00:00Z, or seconds or milliseconds since 1970.';

function orZero(part: string | undefined): number {
  return part === undefined ? 0 : Number(part);
}

function fromNumber(value: number): Instant {
  if (value < 0) return { fault: 'it is negative: a time from the first traffic is a duration' };
  if (value < secondsMin) {
    return { fault: 'it is too small for seconds since 1970: it would be before 2001' };
  }
  const ms = value < millisecondsMin ? value * 1_000 : value;
  if (ms > millisecondsMax) return { fault: 'it is past the year 9999' };
  return { at: new Date(Math.floor(ms)) };
}

function offsetMs(offset: string): number {
  if (offset.toUpperCase() === 'Z') return 0;
  const [, sign, hours, minutes] = /^([+-])(\d\d):?(\d\d)?$/.exec(offset) ?? [];
  const ms = (Number(hours) * 60 + Number(minutes ?? 0)) * 60_000;
  return sign === '-' ? -ms : ms;
}

/** Whether the system knows a time zone by this name. */
export function isTimeZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: zone }).format(0) !== '';
  } catch {
    return false;
  }
}

/**
 * The moment at which clocks of the zone show a time. In the hour that clocks skip it is as much later, and
 * of the hour that comes twice it is the first.
 */
function inZone(wallMs: number, zone: string): Date {
  const dayMs = 86_400_000;
  const before = zoneOffsetMs(wallMs - dayMs, zone);
  const after = zoneOffsetMs(wallMs + dayMs, zone);
  const candidates = [wallMs - before, wallMs - after];
  const fitting = candidates.find((at) => at + zoneOffsetMs(at, zone) === wallMs);
  return new Date(fitting ?? wallMs - before);
}

function zoneOffsetMs(atMs: number, zone: string): number {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  const part = Object.fromEntries(
    format.formatToParts(atMs).map(({ type, value }) => [type, Number(value)]),
  );
  const { year = 0, month = 1, day, hour, minute, second } = part;
  const shown = Date.UTC(year, month - 1, day, hour, minute, second);
  return shown - Math.floor(atMs / 1_000) * 1_000;
}

// Numbers, times and sizes as text. Times are UTC, as in every other output of the service.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Return a number with thousands separators. */
export const number = (value) => NUMBER.format(value);

/** Return a count with its noun. */
export const counted = (count, noun, nouns = `${noun}s`) => `${number(count)} ${count === 1 ? noun : nouns}`;

/** Return bytes in binary units. */
export function bytes(value) {
  const power = value < 1024 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(value) / 10));
  return `${NUMBER.format(value / 1024 ** power)} ${UNITS[power]}`;
}

/** Return date and time to the second. */
export const time = (text) => text.slice(0, 19).replace("T", " ");

/** Return the time of day to the second. */
export const clock = (text) => text.slice(11, 19);

/** Return a name with spaces in place of underscores. */
export const words = (name) => name.replaceAll("_", " ");

/** Return seconds as the largest whole unit. */
export function duration(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${NUMBER.format(seconds / length)} ${unit}`;
  }
  return `${NUMBER.format(seconds)} s`;
}

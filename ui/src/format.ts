// Numbers and times for people: with units, short, and as wide as each other where they stand below each other.

/** A number with at most three digits that count: 0.84, 12.5, 340, 1.2 k. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.01) return '< 0.01';
  if (size < 1) return value.toFixed(2);
  if (size < 10) return trim(value.toFixed(1));
  if (size < 1_000) return value.toFixed(0);
  if (size < 10_000) return `${trim((value / 1_000).toFixed(1))} k`;
  if (size < 1_000_000) return `${(value / 1_000).toFixed(0)} k`;
  if (size < 10_000_000) return `${trim((value / 1e6).toFixed(1))} M`;
  if (size < 1e9) return `${(value / 1e6).toFixed(0)} M`;
  return `${trim((value / 1e9).toFixed(1))} G`;
}

const trim = (text: string) => text.replace(/\.0$/, '');

/** What stands where there is no number. */
export const NONE = '–';

type Maybe = number | null | undefined;

export function count(value: Maybe): string {
  return value === null || value === undefined ? NONE : value.toLocaleString('en-US');
}

export function rate(value: Maybe): string {
  return value === null || value === undefined ? NONE : `${short(value)}/s`;
}

export function ms(value: Maybe): string {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return '0 ms';
  if (value < 0.01) return '< 0.01 ms';
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1_000) return `${value.toFixed(0)} ms`;
  return `${(value / 1_000).toFixed(value < 10_000 ? 2 : 1)} s`;
}

export function percent(ratio: Maybe): string {
  if (ratio === null || ratio === undefined) return NONE;
  if (ratio === 0) return '0 %';
  const value = ratio * 100;
  if (value < 0.01) return '< 0.01 %';
  if (value < 1) return `${value.toFixed(2)} %`;
  if (value < 9.95) return `${trim(value.toFixed(1))} %`;
  return `${value.toFixed(0)} %`;
}

export function bytes(value: Maybe): string {
  if (value === null || value === undefined) return NONE;
  let size = value;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (size < 1024) return `${size < 10 && unit !== 'B' ? size.toFixed(1) : size.toFixed(0)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} TiB`;
}

/** A span in the largest unit that says enough: 42 s, 12 min, 3 h, 5 d. */
export function span(seconds: Maybe): string {
  if (seconds === null || seconds === undefined) return NONE;
  const size = Math.max(0, seconds);
  if (size < 1) return '< 1 s';
  if (size < 100) return `${size.toFixed(0)} s`;
  if (size < 100 * 60) return `${(size / 60).toFixed(0)} min`;
  if (size < 48 * 3600) return `${(size / 3600).toFixed(0)} h`;
  return `${(size / 86400).toFixed(0)} d`;
}

export function ago(at: number, now: number = Date.now() / 1000): string {
  const seconds = now - at;
  return seconds < 2 ? 'now' : `${span(seconds)} ago`;
}

const two = (value: number) => String(value).padStart(2, '0');

/** 14:03:27, with the date when it is another day. */
export function clock(at: number, now: number = Date.now() / 1000): string {
  const [time, today] = [new Date(at * 1000), new Date(now * 1000)];
  const hours = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return time.toDateString() === today.toDateString() ? hours : `${day(at)} ${hours.slice(0, 5)}`;
}

/** 14:03. */
export function hours(at: number): string {
  const time = new Date(at * 1000);
  return `${two(time.getHours())}:${two(time.getMinutes())}`;
}

export function day(at: number): string {
  const time = new Date(at * 1000);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
}

export function plural(number: number, one: string, many: string = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** `rateLimit` → `rate limit`, `configuration_applied` → `configuration applied`. */
export function words(name: string): string {
  return name
    .replace(/_/g, ' ')
    .replace(/([a-z0-9])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`);
}

/** As a sentence begins. */
export const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

// Golden signals over time, as `/series` has them.

import { ask } from './api';
import { process } from './live';
import { useResource } from './resource';

export interface Series {
  times: number[];
  requests: (number | null)[];
  errors: (number | null)[];
  p50: (number | null)[];
  p95: (number | null)[];
  p99: (number | null)[];
}

/** One of something, or all requests. */
export interface Selector {
  by?: string;
  name?: string;
}

interface Answer {
  at: number[];
  requestsPerSecond: number[];
  errorsPerSecond: number[];
  p50Ms: (number | null)[];
  p95Ms: (number | null)[];
  p99Ms: (number | null)[];
}

export async function series(selector: Selector, seconds: number, to = Math.floor(Date.now() / 1000)): Promise<Series> {
  const answer = await ask<Answer>('/series', {
    query: { by: selector.by ?? 'route', name: selector.name, from: to - seconds, to },
  });
  return {
    times: answer.at,
    requests: answer.requestsPerSecond,
    errors: answer.errorsPerSecond,
    p50: answer.p50Ms,
    p95: answer.p95Ms,
    p99: answer.p99Ms,
  };
}

/** The last `seconds` of what `selector` names, kept fresh; null where the process does not have it, or not yet. */
export function useSeries(selector: Selector, seconds: number): Series | null {
  const key = `/series?${selector.by ?? ''}&${selector.name ?? ''}&${seconds}`;
  const found = useResource<Series>(key, () => series(selector, seconds), { every: 10 });
  return found.data !== null && found.data.times.length > 1 ? found.data : null;
}

/** What charts show: an hour, and less of a process that has just begun. */
export function usePeriod(): { seconds: number; text: string } {
  const isYoung = (process.use()?.uptimeSeconds ?? 3600) < 1200;
  return isYoung ? { seconds: 900, text: 'last 15 minutes' } : { seconds: 3600, text: 'last hour' };
}

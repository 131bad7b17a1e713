// What the process tells by itself: one stream of events for the whole page, and asking every few seconds where that is not
// to be had.

import { ask, Problem, url } from './api';
import { series, type Series } from './series';
import { Store } from './store';
import type { Event as Happening, Health, Overview, Process, Signals } from './types';

export type Topic = 'process' | 'health' | 'documents' | 'proxies' | 'signals' | 'events';

const TOPICS: Topic[] = ['process', 'health', 'documents', 'proxies', 'signals', 'events'];

/** What every process can tell. Asked for when more is refused: a stream cannot say why it was. */
const LEAST: Topic[] = ['process', 'health', 'documents'];

/** How often is asked without a stream. Unit: ms. */
const POLL = 5_000;

/** When a stream is tried again. Unit: ms. */
const AGAIN = 15_000;

/** How far back the small charts show. */
export const SHOWN_SECONDS = 300;

export const process = new Store<Process | null>(null);
export const health = new Store<Health | null>(null);
export const signals = new Store<Signals[]>([]);
export const link = new Store<'opening' | 'live' | 'asking' | 'lost'>('opening');

const watchers = new Map<Topic, Set<(data: unknown) => void>>();

/** Calls `then` when a topic has news. */
export function topics(topic: Topic, then: (data: unknown) => void): () => void {
  const those = watchers.get(topic) ?? new Set();
  watchers.set(topic, those);
  those.add(then);
  return () => those.delete(then);
}

let source: EventSource | null = null;
let poll: ReturnType<typeof setInterval> | undefined;
let again: ReturnType<typeof setTimeout> | undefined;
let isOn = false;

export function begin(): void {
  if (isOn) return;
  isOn = true;
  void look();
  void fill(SHOWN_SECONDS);
  open();
}

export function end(): void {
  isOn = false;
  source?.close();
  source = null;
  clearInterval(poll);
  clearTimeout(again);
  poll = undefined;
  process.set(null);
  health.set(null);
  signals.set([]);
  link.set('opening');
}

function open(wanted: Topic[] = TOPICS): void {
  source?.close();
  const stream = new EventSource(url('/watch', { topics: wanted.join(',') }));
  source = stream;
  stream.onopen = () => {
    if (wanted === TOPICS) {
      clearInterval(poll);
      poll = undefined;
    }
    link.set('live');
  };
  stream.onerror = () => {
    if (stream !== source || !isOn) return;
    // The browser tries by itself while it may; it gives up when the answer was none of a stream.
    if (poll === undefined) {
      poll = setInterval(() => void look(), POLL);
      void look();
    }
    if (stream.readyState !== EventSource.CLOSED) return;
    clearTimeout(again);
    if (wanted === TOPICS) open(LEAST);
    else {
      again = setTimeout(() => {
        if (isOn) open();
      }, AGAIN);
    }
  };
  for (const topic of wanted) {
    stream.addEventListener(topic, (event) => {
      const data: unknown = JSON.parse((event as MessageEvent<string>).data);
      take(topic, data);
    });
  }
}

/** A topic's first event tells how things are; pages have asked for that themselves. */
const told = new Set<Topic>();

function take(topic: Topic, data: unknown): void {
  if (topic === 'process') process.set(data as Process);
  if (topic === 'health') health.set(data as Health);
  if (topic === 'signals') reading(data as Signals);
  if (!told.has(topic)) {
    told.add(topic);
    if (topic !== 'events') return;
  }
  for (const then of watchers.get(topic) ?? []) then(data);
}

function reading(data: Signals): void {
  const at = data.at ?? Date.now() / 1000;
  const last = signals.now().at(-1);
  if (last?.at !== undefined && at <= last.at) return;
  signals.set([...signals.now(), { ...data, at }].filter((one) => (one.at ?? 0) > at - SHOWN_SECONDS - 10));
}

/** What the history knows of the last minutes: where nobody tells of signals, and so that the small charts do not begin with nothing. */
async function fill(seconds: number): Promise<void> {
  const { times, requests, errors, p50, p95, p99 } = await series({}, seconds).catch(() => NOTHING);
  if (!isOn || times.length === 0) return;
  const kept = times.map((at, index) => {
    const [all, bad] = [requests[index] ?? null, errors[index] ?? null];
    return {
      at,
      requestsPerSecond: all,
      errorRatio: all === null || bad === null ? null : all === 0 ? 0 : bad / all,
      p50Ms: p50[index] ?? null,
      p95Ms: p95[index] ?? null,
      p99Ms: p99[index] ?? null,
    };
  });
  const known = signals.now();
  const [first, last] = [known[0]?.at ?? Number.POSITIVE_INFINITY, known.at(-1)?.at ?? Number.NEGATIVE_INFINITY];
  const all = [...kept.filter((one) => one.at < first), ...known, ...kept.filter((one) => one.at > last && one.at >= first)];
  const end = all.at(-1)?.at ?? 0;
  signals.set(all.filter((one) => (one.at ?? 0) > end - SHOWN_SECONDS - 10));
}

const NOTHING: Series = { times: [], requests: [], errors: [], p50: [], p95: [], p99: [] };

async function look(): Promise<void> {
  if (document.hidden && process.now() !== null) return;
  try {
    const overview = await ask<Overview>('/overview');
    if (!isOn) return;
    process.set(overview.process);
    health.set({ level: overview.level, checks: overview.checks });
    if (overview.signals) reading({ ...overview.signals, at: Date.now() / 1000 });
    else await fill(60);
    if (link.now() !== 'live' || source?.readyState !== EventSource.OPEN) {
      link.set(source?.readyState === EventSource.OPEN ? 'live' : 'asking');
    }
  } catch (error) {
    if (error instanceof Problem && error.status === 0) link.set('lost');
  }
}

/** News of the process in words, newest first; what came since the page was opened. */
export const news = new Store<Happening[]>([]);

topics('events', (data) => {
  const event = data as Happening;
  news.set([event, ...news.now()].slice(0, 200));
});

// Requests to `/api/v1`. Who asks is told by a cookie that scripts cannot read.

import type { Page } from './types';

/** Where the API is, from the page: `/ui/` → `/api/v1`. */
const BASE = new URL('../api/v1', location.href.replace(/[?#].*$/, '')).pathname;

/** Items that one answer may have at most. */
const PAGE = 1000;

/** Pages of a list that are fetched at most. */
const PAGES = 10;

/** An answer that is not what was asked for (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly mistakes: string[] = [],
  ) {
    super(detail);
  }

  /** The process does not have this; another one may. */
  get isElsewhere(): boolean {
    return this.code === 'not_in_this_process' || this.code === 'no_such_page';
  }
}

/** Called when credentials are missing or have ended. */
let onUnknown: () => void = () => {};

export function whenUnknown(then: () => void): void {
  onUnknown = then;
}

export type Query = Record<string, string | number | boolean | null | undefined>;

export function url(path: string, query: Query = {}): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') words.set(name, String(value));
  }
  const text = words.toString();
  return `${BASE}${path}${text === '' ? '' : `?${text}`}`;
}

export interface Ask {
  method?: string;
  query?: Query;
  body?: unknown;
  ifMatch?: number | null;
  signal?: AbortSignal;
}

/** Asks, and reads the JSON of the answer; null where there is none. Throws a Problem. */
export async function ask<T>(path: string, how: Ask = {}): Promise<T> {
  const headers: Record<string, string> = { Accept: 'application/json', 'X-Rhumb-Request': '1' };
  if (how.body !== undefined) headers['Content-Type'] = 'application/json';
  if (how.ifMatch !== undefined && how.ifMatch !== null) headers['If-Match'] = `"${how.ifMatch}"`;
  let answer: Response;
  try {
    answer = await fetch(url(path, how.query), {
      method: how.method ?? 'GET',
      headers,
      body: how.body === undefined ? null : JSON.stringify(how.body),
      cache: 'no-store',
      credentials: 'same-origin',
      signal: how.signal ?? null,
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Problem(0, 'unreachable', 'The process does not answer. It may have ended, or the network is away.');
  }
  if (!answer.ok) {
    const problem = await refusal(answer);
    if (answer.status === 401 && path !== '/login') onUnknown();
    throw problem;
  }
  if (answer.status === 204) return null as T;
  const text = await answer.text();
  return (text === '' ? null : JSON.parse(text)) as T;
}

async function refusal(answer: Response): Promise<Problem> {
  try {
    const told = (await answer.json()) as { code?: string; detail?: string; title?: string; mistakes?: string[] };
    return new Problem(
      answer.status,
      told.code ?? (answer.status === 404 ? 'no_such_page' : ''),
      told.detail ?? told.title ?? `status ${answer.status}`,
      told.mistakes ?? [],
    );
  } catch {
    return new Problem(answer.status, answer.status === 404 ? 'no_such_page' : '', `status ${answer.status}`);
  }
}

/** All items of a list, page by page. */
export async function list<T>(path: string, query: Query = {}): Promise<Page<T>> {
  const items: T[] = [];
  let cursor: string | null = null;
  let total = 0;
  for (let page = 0; page < PAGES; page += 1) {
    const answer: Page<T> = await ask<Page<T>>(path, { query: { ...query, limit: PAGE, cursor } });
    items.push(...answer.items);
    total = answer.total;
    cursor = answer.next;
    if (cursor === null || cursor === undefined) break;
  }
  return { items, next: cursor, total };
}

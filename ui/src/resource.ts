// Answers that a page shows and keeps fresh.

import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { Problem } from './api';
import { topics, type Topic } from './live';

/** Answers that were seen last, so that a page one comes back to is there at once. */
const seen = new Map<string, unknown>();

/** Answers that are kept. */
const KEPT = 60;

export interface Resource<T> {
  data: T | null;
  problem: Problem | null;
  /** True until there is an answer of either kind. */
  isLoading: boolean;
  reload: () => Promise<void>;
}

export interface Fresh {
  /** Asked again so often. Unit: seconds; 0 never. */
  every?: number;
  /** Asked again when one of these has changed. */
  on?: Topic[];
}

/** Asks with `fetcher` when `key` changes and as `fresh` says; not while nobody looks. A null key asks nothing. */
export function useResource<T>(key: string | null, fetcher: () => Promise<T>, fresh: Fresh = {}): Resource<T> {
  const [state, set] = useState<{ key: string | null; data: T | null; problem: Problem | null; done: boolean }>(() =>
    begin(key),
  );
  const run = useRef(fetcher);
  run.current = fetcher;
  const turn = useRef(0);

  const reload = useCallback(async () => {
    if (key === null) return;
    const mine = ++turn.current;
    try {
      const data = await run.current();
      seen.delete(key);
      seen.set(key, data);
      for (const old of seen.keys()) {
        if (seen.size <= KEPT) break;
        seen.delete(old);
      }
      if (mine === turn.current) set({ key, data, problem: null, done: true });
    } catch (error) {
      const problem =
        error instanceof Problem ? error : new Problem(0, '', error instanceof Error ? error.message : String(error));
      if (mine === turn.current) set((was) => ({ key, data: was.key === key ? was.data : null, problem, done: true }));
    }
  }, [key]);

  useEffect(() => {
    set(begin(key));
    void reload();
    return () => {
      turn.current += 1;
    };
  }, [key, reload]);

  const every = fresh.every ?? 0;
  useEffect(() => {
    if (every === 0 || key === null) return;
    const timer = setInterval(() => {
      if (!document.hidden) void reload();
    }, every * 1000);
    const back = () => {
      if (!document.hidden) void reload();
    };
    document.addEventListener('visibilitychange', back);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', back);
    };
  }, [every, key, reload]);

  const on = (fresh.on ?? []).join();
  useEffect(() => {
    if (on === '') return;
    const ends = on.split(',').map((topic) => topics(topic as Topic, () => void reload()));
    return () => ends.forEach((end) => end());
  }, [on, reload]);

  const fits = state.key === key;
  return {
    data: fits ? state.data : ((key === null ? null : (seen.get(key) as T)) ?? null),
    problem: fits ? state.problem : null,
    isLoading: key !== null && (fits ? !state.done && state.data === null : !seen.has(key)),
    reload,
  };
}

function begin<T>(key: string | null): { key: string | null; data: T | null; problem: Problem | null; done: boolean } {
  const data = key === null ? null : ((seen.get(key) as T | undefined) ?? null);
  return { key, data, problem: null, done: false };
}

/** Forgets everything: somebody else may look next. */
export function forget(): void {
  seen.clear();
}

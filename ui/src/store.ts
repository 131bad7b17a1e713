// Values that several parts of the page look at.

import { useEffect, useState } from 'preact/hooks';

export class Store<T> {
  private readonly watchers = new Set<(value: T) => void>();

  constructor(private value: T) {}

  now(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const watcher of [...this.watchers]) watcher(value);
  }

  watch(watcher: (value: T) => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /** For components: the value, and again when it changes. */
  use(): T {
    const [value, set] = useState<T>(() => this.value);
    useEffect(() => {
      set(() => this.value);
      return this.watch((next) => set(() => next));
    }, []);
    return value;
  }
}

/** Where the browser remembers nothing, what is remembered for as long as the page is there. */
const fallback = new Map<string, string>();

export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`rhumb.${name}`);
  } catch {
    return fallback.get(name) ?? null;
  }
}

export function remember(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`rhumb.${name}`);
    else localStorage.setItem(`rhumb.${name}`, value);
  } catch {
    if (value === null) fallback.delete(name);
    else fallback.set(name, value);
  }
}

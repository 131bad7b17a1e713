// Goes anywhere by a few letters: pages, routes, services, consumers, certificates, documents.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, list } from '../api';
import { href } from '../router';
import { Store } from '../store';
import { choose } from '../theme';
import type { Backend, Consumer, Documents, Page, Route } from '../types';
import { PAGES } from '../pages';

export const palette = new Store(false);

interface Entry {
  text: string;
  what: string;
  run: () => void;
}

const jump = (to: string) => () => {
  location.hash = to;
};

/** Entries that are shown. */
const SHOWN = 40;

export function Palette({ onSignOut }: { onSignOut: () => void }) {
  const isOpen = palette.use();
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const [things, setThings] = useState<Entry[]>([]);

  useEffect(() => {
    if (!isOpen) {
      if (dialog.current?.open) dialog.current.close();
      return;
    }
    setText('');
    setAt(0);
    dialog.current?.showModal();
    void found().then(setThings);
  }, [isOpen]);

  const entries = useMemo(() => {
    const pages = PAGES.map((page) => ({ text: page.title, what: 'page', run: jump(href(page.path)) }));
    const acts: Entry[] = [
      { text: 'Use the light theme', what: 'action', run: () => choose('light') },
      { text: 'Use the dark theme', what: 'action', run: () => choose('dark') },
      { text: 'Follow the theme of the system', what: 'action', run: () => choose('system') },
      { text: 'Sign out', what: 'action', run: onSignOut },
    ];
    const wanted = text.trim().toLowerCase();
    const all = [...pages, ...things, ...acts];
    if (wanted === '') return all.slice(0, SHOWN);
    return all
      .map((entry) => ({ entry, score: fit(entry.text.toLowerCase(), wanted) }))
      .filter(({ score }) => score > 0)
      .sort((a, b) => b.score - a.score)
      .slice(0, SHOWN)
      .map(({ entry }) => entry);
  }, [text, things]);

  useEffect(() => {
    dialog.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }, [at, entries]);

  const run = (entry: Entry | undefined) => {
    if (entry === undefined) return;
    palette.set(false);
    entry.run();
  };
  return (
    <dialog
      ref={dialog}
      class="palette"
      aria-label="Go to"
      onClose={() => palette.set(false)}
      onClick={(event) => {
        if (event.target === dialog.current) palette.set(false);
      }}
    >
      {isOpen && (
        <>
          <input
            type="text"
            role="combobox"
            aria-label="Search pages, routes, services, documents"
            aria-expanded="true"
            aria-controls="palette-entries"
            aria-activedescendant={entries.length > 0 ? `palette-${at}` : undefined}
            placeholder="Search pages, routes, services, documents…"
            autocomplete="off"
            value={text}
            onInput={(event) => {
              setText(event.currentTarget.value);
              setAt(0);
            }}
            onKeyDown={(event) => {
              const last = Math.max(entries.length - 1, 0);
              if (event.key === 'ArrowDown') setAt(Math.min(at + 1, last));
              else if (event.key === 'ArrowUp') setAt(Math.max(at - 1, 0));
              else if (event.key === 'Enter') run(entries[at]);
              else return;
              event.preventDefault();
            }}
          />
          <ul id="palette-entries" role="listbox" aria-label="What was found">
            {entries.map((entry, index) => (
              <li
                id={`palette-${index}`}
                role="option"
                aria-selected={index === at}
                onClick={() => run(entry)}
                onPointerMove={() => setAt(index)}
                key={`${entry.what}${entry.text}`}
              >
                <span class="cut">{entry.text}</span>
                <span>{entry.what}</span>
              </li>
            ))}
          </ul>
          {entries.length === 0 && <p class="body muted">Nothing is named like this.</p>}
        </>
      )}
    </dialog>
  );
}

/** How well `text` fits; 0 not at all. Letters may be left out, not swapped. */
function fit(text: string, wanted: string): number {
  const at = text.indexOf(wanted);
  if (at >= 0) return 1000 - at * 2 - text.length * 0.1;
  let from = 0;
  for (const letter of wanted) {
    from = text.indexOf(letter, from) + 1;
    if (from === 0) return 0;
  }
  return 200 - text.length * 0.1;
}

async function found(): Promise<Entry[]> {
  const or = async <T,>(asked: Promise<T>, otherwise: T) => asked.catch(() => otherwise);
  const none = { items: [], next: null, total: 0 };
  const [routes, backends, consumers, documents] = await Promise.all([
    or<Page<Route>>(list('/routes'), none),
    or<Page<Backend>>(list('/backends'), none),
    or<Page<Consumer>>(list('/consumers'), none),
    or<Documents | null>(ask('/documents'), null),
  ]);
  const entry = (text: string, what: string, to: string): Entry => ({ text, what, run: jump(to) });
  return [
    ...backends.items.map((one) => entry(one.backend, 'service', href(['services', one.backend]))),
    ...routes.items.map((one) => entry(`${one.route} ${one.template ?? ''}`, 'route', href(['routes', one.id]))),
    ...consumers.items.map((one) => entry(one.name, 'consumer', href(['consumers'], { q: one.name }))),
    ...(documents?.documents ?? []).map(({ document }) => {
      const [kind, namespace, name] = [document.kind ?? '', document.metadata?.namespace ?? '-', document.metadata?.name ?? ''];
      return entry(`${kind} ${name}`, 'document', href(['configuration', 'documents', kind, namespace, name]));
    }),
  ];
}

// Where the page is: behind `#`, so that each place has an address that can be sent to somebody.

import { Store } from './store';

export interface Place {
  /** `#/services/shop%2Fcart` → ['services', 'shop/cart']. */
  path: string[];
  query: URLSearchParams;
}

function read(): Place {
  const text = location.hash.replace(/^#\/?/, '');
  const [path = '', query = ''] = text.split('?', 2);
  const parts = path.split('/').filter((part) => part !== '');
  return { path: parts.map(decoded), query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const place = new Store<Place>(read());

addEventListener('hashchange', () => place.set(read()));

export function href(path: string[], query: Record<string, string | null | undefined> = {}): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) words.set(name, value);
  const text = words.toString();
  return `#/${path.map(encodeURIComponent).join('/')}${text === '' ? '' : `?${text}`}`;
}

export function go(to: string): void {
  location.hash = to;
}

/** Changes the query of this place without a step in the history. */
export function tune(change: Record<string, string | null>): void {
  const { path, query } = place.now();
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(change)) {
    if (value === null || value === '') next.delete(name);
    else next.set(name, value);
  }
  const to = href(path, Object.fromEntries(next));
  if (to === location.hash) return;
  history.replaceState(null, '', to);
  place.set(read());
}

/** Where the thing of a finding is shown. */
export function about(kind: string, name: string): string {
  switch (kind) {
    case 'backend':
      return href(['services', name]);
    case 'route':
      return href(['routes'], { q: name });
    case 'certificate':
      return href(['certificates'], { q: name });
    case 'proxy':
      return href(['proxies'], { q: name });
    case 'configuration':
      return href(['configuration']);
    default:
      return href([]);
  }
}

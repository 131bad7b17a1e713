// Short messages about what was done; read out by screen readers.

import { Store } from './store';

const shown = new Store<{ id: number; text: string }[]>([]);
let last = 0;

/** How long a message stays. Unit: ms. */
const STAYS = 5_000;

export function say(text: string): void {
  last += 1;
  const id = last;
  shown.set([...shown.now(), { id, text }].slice(-4));
  setTimeout(() => shown.set(shown.now().filter((one) => one.id !== id)), STAYS);
}

export function Toasts() {
  const all = shown.use();
  return (
    <div class="toast" role="status" aria-live="polite">
      {all.map((one) => (
        <div key={one.id}>{one.text}</div>
      ))}
    </div>
  );
}

// Light or dark: what the system says, or what somebody chose here.

import { remember, remembered, Store } from './store';

export type Choice = 'system' | 'light' | 'dark';

const system = matchMedia('(prefers-color-scheme: dark)');

const was = remembered('theme');
export const choice = new Store<Choice>(was === 'light' || was === 'dark' ? was : 'system');
export const theme = new Store<'light' | 'dark'>('light');

function apply(): void {
  const chosen = choice.now();
  const next = chosen === 'system' ? (system.matches ? 'dark' : 'light') : chosen;
  document.documentElement.dataset['theme'] = next;
  theme.set(next);
}

export function choose(next: Choice): void {
  remember('theme', next === 'system' ? null : next);
  choice.set(next);
  apply();
}

system.addEventListener('change', apply);
apply();

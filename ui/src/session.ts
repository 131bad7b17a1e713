// Who looks at the page.

import { ask, Problem } from './api';
import * as live from './live';
import { forget } from './resource';
import { remember, remembered, Store } from './store';
import type { Session } from './types';

export type Who =
  | { is: 'unknown' }
  | { is: 'stranger' }
  | { is: 'away'; problem: Problem }
  | { is: 'known'; session: Session };

export const who = new Store<Who>({ is: 'unknown' });

const RANK = { viewer: 0, editor: 1, admin: 2 } as const;

/** Whether the role of who looks suffices. The process decides; this only spares people the refusal. */
export function may(role: keyof typeof RANK): boolean {
  const now = who.now();
  return now.is === 'known' && RANK[now.session.role] >= RANK[role];
}

/** Whether there may be a session. Strangers are not asked for: each refusal is a line of the audit log. */
const HINT = 'session';

/** Notes that a session may begin with the next answer. */
export function expectSession(): void {
  remember(HINT, '1');
}

export async function look(): Promise<void> {
  if (remembered(HINT) === null) {
    who.set({ is: 'stranger' });
    return;
  }
  try {
    const session = await ask<Session>('/session');
    who.set({ is: 'known', session });
    live.begin();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) leave();
    else who.set({ is: 'away', problem: error });
  }
}

export function leave(): void {
  remember(HINT, null);
  live.end();
  forget();
  who.set({ is: 'stranger' });
}

export async function signOut(): Promise<void> {
  await ask('/logout', { method: 'POST' }).catch(() => null);
  leave();
}

// What became of one request, step by step.

import { ms } from '../format';
import type { Json } from '../types';
import { Pill } from './basic';

export interface Step {
  step: string;
  atUs?: number;
  policy?: string;
  origin?: string;
  decision?: string;
  changes?: { what: string; before: Json; after: Json }[];
  [more: string]: unknown;
}

export const text = (value: Json) => (value === null ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));

const DECISION: Record<string, string> = { respond: 'warning', reset: 'critical', wait: 'info', delay: 'info', continue: 'ok' };

/** Fields of a message, as they stand in it. */
function Lines({ of }: { of: unknown }) {
  if (!Array.isArray(of) || of.length === 0) return null;
  return (
    <details class="small">
      <summary class="muted">{of.length} fields</summary>
      <pre class="text" tabIndex={0} aria-label="Fields">
        {of.map((line: unknown) => (Array.isArray(line) ? line.map(String).join(': ') : String(line))).join('\n')}
      </pre>
    </details>
  );
}

export function Steps({ of }: { of: Step[] }) {
  const end = Math.max(1, ...of.map((one) => one.atUs ?? 0));
  return (
    <ol class="steps">
      {of.map((one, at) => {
        const rest = Object.entries(one).filter(
          ([name, value]) => !['step', 'atUs', 'policy', 'origin', 'decision', 'changes', 'message'].includes(name) && value !== null && value !== undefined,
        );
        // A step tells when it ended.
        const began = of[at - 1]?.atUs ?? 0;
        const left = (began / end) * 100;
        return (
          <li key={at}>
            <span class="tn muted small">{one.atUs === undefined ? '' : ms(one.atUs / 1000)}</span>
            <span style={{ fontWeight: 560 }}>{one.step}</span>
            <div class="stack tight">
              <div class="row wrap">
                {one.policy && <span class="chip">{one.policy}</span>}
                {one.decision && <Pill level={DECISION[one.decision] ?? ''}>{one.decision}</Pill>}
                {one.origin && <span class="muted small">{one.origin}</span>}
                {rest.map(([name, value]) => (
                  <span class="small" key={name}>
                    <span class="muted">{name}</span> <span class="mono">{text(value as Json)}</span>
                  </span>
                ))}
              </div>
              {one.changes?.map((change, index) => (
                <div class="small mono" key={index}>
                  {change.what}: <span class="bad">{text(change.before)}</span> → <span class="good">{text(change.after)}</span>
                </div>
              ))}
              <Lines of={one['message']} />
              <div class="fall" aria-hidden="true">
                <i style={{ left: `${Math.min(left, 99)}%`, width: `${Math.max(0.4, (((one.atUs ?? began) - began) / end) * 100)}%` }} />
              </div>
            </div>
          </li>
        );
      })}
    </ol>
  );
}

// The small parts that pages are made of.

import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Problem } from '../api';
import { ago, clock, sentence } from '../format';
import { tune } from '../router';
import type { Resource } from '../resource';
import type { Level, Policy } from '../types';
import { Icon, type IconName } from './icons';

export function Head({
  title,
  crumb,
  children,
  end,
}: {
  title: string;
  crumb?: { text: string; href: string };
  children?: ComponentChildren;
  end?: ComponentChildren;
}) {
  useEffect(() => {
    document.title = `${title} · Rhumb`;
  }, [title]);
  return (
    <div class="head">
      <div class="grow">
        {crumb && (
          <a class="crumb link" href={crumb.href}>
            {crumb.text}
          </a>
        )}
        <h1>{title}</h1>
        {children && <p>{children}</p>}
      </div>
      {end && <div class="row wrap">{end}</div>}
    </div>
  );
}

export function Card({
  title,
  end,
  children,
  flush = false,
  id,
}: {
  title?: ComponentChildren;
  end?: ComponentChildren;
  children: ComponentChildren;
  flush?: boolean;
  id?: string;
}) {
  return (
    <section class="card" id={id} aria-label={typeof title === 'string' ? title : undefined}>
      {title !== undefined && (
        <header>
          <h2>{title}</h2>
          {end && <div class="end">{end}</div>}
        </header>
      )}
      {flush ? children : <div class="body">{children}</div>}
    </section>
  );
}

export function Empty({
  title,
  children,
  icon = 'empty',
  action,
}: {
  title: string;
  children?: ComponentChildren;
  icon?: IconName;
  action?: ComponentChildren;
}) {
  return (
    <div class="empty">
      <Icon name={icon} class="big" />
      <strong>{title}</strong>
      {children && <p>{children}</p>}
      {action}
    </div>
  );
}

/** What stands in the place of an answer that did not come: why, and what to do. */
export function Failed({ problem, again }: { problem: Problem; again?: () => void }) {
  if (problem.isElsewhere) {
    return (
      <Empty title="Not available in this process" icon="info">
        {problem.code === 'not_in_this_process' ? <Rich text={sentence(problem.message)} /> : 'This process does not answer this question.'}
      </Empty>
    );
  }
  if (problem.status === 403) {
    return (
      <Empty title="Your role does not allow this" icon="lock">
        {problem.message}
      </Empty>
    );
  }
  return (
    <div role="alert">
      <Empty
        title={problem.status === 0 ? 'No answer' : 'This could not be read'}
        icon="alert"
        action={
          again && (
            <button type="button" class="button" onClick={again}>
              Try again
            </button>
          )
        }
      >
        {problem.message}
      </Empty>
    </div>
  );
}

/** Shows what came, why nothing came, or that it is on its way. What was there stays while it is asked for again. */
export function Loaded<T>({
  of,
  children,
  lines = 6,
}: {
  of: Resource<T>;
  children: (data: T) => ComponentChildren;
  lines?: number;
}) {
  if (of.data !== null) {
    return (
      <>
        {of.problem && of.problem.status !== 401 && (
          <Note level="warning">Not fresh: {of.problem.message}</Note>
        )}
        {children(of.data)}
      </>
    );
  }
  if (of.problem) return <Failed problem={of.problem} again={() => void of.reload()} />;
  return <Waiting lines={lines} />;
}

export function Waiting({ lines = 6 }: { lines?: number }) {
  return (
    <div class="stack tight body" aria-busy="true" aria-label="Loading" role="status" style={{ padding: '16px' }}>
      {Array.from({ length: lines }, (_, at) => (
        <div class="wait" style={{ width: `${90 - ((at * 17) % 45)}%` }} key={at} />
      ))}
    </div>
  );
}

export function Note({ level = 'info', children }: { level?: 'info' | 'warning' | 'critical'; children: ComponentChildren }) {
  return (
    <div class={`note ${level}`} role={level === 'critical' ? 'alert' : 'note'}>
      <Icon name={level === 'info' ? 'info' : 'alert'} />
      <div class="grow">{children}</div>
    </div>
  );
}

const LEVEL_WORDS: Record<string, string> = {
  ok: 'healthy',
  warning: 'warning',
  critical: 'critical',
  error: 'error',
  info: 'information',
};

/** A mark by shape and colour, with its word for those who see neither. */
export function Mark({ level }: { level: Level | 'info' | 'error' | 'idle' }) {
  return (
    <span class={`mark ${level}`}>
      <span class="hidden-text">{LEVEL_WORDS[level] ?? level}</span>
    </span>
  );
}

export function Pill({ level = '', children, title }: { level?: string; children: ComponentChildren; title?: string }) {
  return (
    <span class={`pill ${level}`} title={title}>
      {children}
    </span>
  );
}

/** How long ago, kept up to date; the time itself on hover. */
export function Ago({ at }: { at: number }) {
  const now = useNow();
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={clock(at, now)}>
      {ago(at, now)}
    </time>
  );
}

let clockWatchers = 0;
let clockTimer: ReturnType<typeof setInterval> | undefined;
const ticks = new Set<(now: number) => void>();

/** The time of day, each five seconds. Unit: s. */
export function useNow(): number {
  const [now, set] = useState(Date.now() / 1000);
  useEffect(() => {
    ticks.add(set);
    clockWatchers += 1;
    clockTimer ??= setInterval(() => {
      const time = Date.now() / 1000;
      for (const tick of ticks) tick(time);
    }, 5_000);
    return () => {
      ticks.delete(set);
      clockWatchers -= 1;
      if (clockWatchers === 0) {
        clearInterval(clockTimer);
        clockTimer = undefined;
      }
    };
  }, []);
  return now;
}

/** Policies with where each comes from. */
export function Policies({ of, long = false }: { of: Policy[]; long?: boolean }) {
  if (of.length === 0) return <span class="muted">none</span>;
  if (long) {
    return (
      <ul class="stack tight">
        {of.map((policy, at) => (
          <li class="row wrap" key={at}>
            <span class={`chip ${policy.shadow === true ? 'shadow' : ''}`}>{policy.kind}</span>
            {policy.shadow === true && <Pill level="info">shadow</Pill>}
            <span class="muted small wrap-any">{policy.from ?? 'built in'}</span>
          </li>
        ))}
      </ul>
    );
  }
  return (
    <span class="chips">
      {of.slice(0, 5).map((policy, at) => (
        <span class={`chip ${policy.shadow === true ? 'shadow' : ''}`} title={policy.from ?? ''} key={at}>
          {policy.kind}
        </span>
      ))}
      {of.length > 5 && <span class="chip">+{of.length - 5}</span>}
    </span>
  );
}

/** A text that narrows a list, kept in the address of the page. */
export function Filter({ value, label, name = 'q' }: { value: string; label: string; name?: string }) {
  return (
    <input
      type="search"
      aria-label={label}
      placeholder={label}
      value={value}
      onInput={(event) => tune({ [name]: event.currentTarget.value })}
    />
  );
}

export function Switch<T extends string>({
  value,
  options,
  label,
  onChange,
}: {
  value: T;
  options: readonly (readonly [T, string])[];
  label: string;
  onChange: (value: T) => void;
}) {
  return (
    <div class="switch" role="group" aria-label={label}>
      {options.map(([option, text]) => (
        <button type="button" aria-pressed={option === value} onClick={() => onChange(option)} key={option}>
          {text}
        </button>
      ))}
    </div>
  );
}

export function Tabs({ tabs, current }: { tabs: { id: string; text: string; href: string }[]; current: string }) {
  return (
    <nav class="tabs" aria-label="Parts of this page">
      {tabs.map((tab) => (
        <a href={tab.href} aria-current={tab.id === current ? 'page' : undefined} key={tab.id}>
          {tab.text}
        </a>
      ))}
    </nav>
  );
}

/** A text in which backticks stand around code. */
export function Rich({ text }: { text: string }) {
  return <>{text.split('`').map((part, at) => (at % 2 === 0 ? part : <code key={at}>{part}</code>))}</>;
}

// Requests as they end, and one request with every step. Nothing is watched while nobody looks.

import { useEffect, useRef, useState } from 'preact/hooks';
import { ask, Problem, url } from '../api';
import { bytes, clock, ms } from '../format';
import type { PageProps } from '../app';
import { Card, Empty, Failed, Head, Note, Pill, Tabs } from '../parts/basic';
import { Icon } from '../parts/icons';
import { type Step, Steps, text } from '../parts/steps';
import { href, tune } from '../router';
import { may } from '../session';
import type { Json } from '../types';

type Fields = Record<string, Json>;

/** Requests that stay on the page. */
const KEPT = 200;

/** How often what has come is shown. Unit: ms. */
const TURN = 250;

export function Tap({ place }: PageProps) {
  const tab = place.path[1] === 'trace' ? 'trace' : 'tap';
  const filter = place.query.get('filter') ?? '';
  return (
    <>
      <Head title="Tap and trace">
        {tab === 'tap'
          ? 'Requests as they end, with the fields of the access log. Costs nothing while it is closed.'
          : 'One request with every step: what each policy decided and changed, and each attempt at an endpoint.'}
      </Head>
      <Tabs
        current={tab}
        tabs={[
          { id: 'tap', text: 'Tap', href: href(['tap'], { filter }) },
          { id: 'trace', text: 'Trace', href: href(['tap', 'trace'], { filter }) },
        ]}
      />
      {!may('editor') ? (
        <Card flush>
          <Empty title="Your role does not allow this" icon="lock">
            Requests may tell about people: looking at them takes the role editor.
          </Empty>
        </Card>
      ) : (
        <Watch what={tab} filter={filter} key={tab} />
      )}
    </>
  );
}

const EXAMPLES = {
  tap: [
    ['failures', 'response.status >= 500'],
    ['refusals', 'response.status >= 400 && response.status < 500'],
    ['slow ones', "response.duration > duration('500ms')"],
    ['changes', "request.method != 'GET'"],
    ['one path', "request.path.startsWith('/orders')"],
  ],
  trace: [
    ['changes', "request.method != 'GET'"],
    ['one path', "request.path.startsWith('/orders')"],
    ['one host', "request.host == 'shop.example'"],
  ],
} as const;

function Watch({ what, filter }: { what: 'tap' | 'trace'; filter: string }) {
  const [rows, setRows] = useState<{ id: number; data: Fields }[]>([]);
  const [state, setState] = useState<'idle' | 'on' | 'ended'>('idle');
  const [ended, setEnded] = useState('');
  const [dropped, setDropped] = useState(0);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [open, setOpen] = useState<number | null>(null);
  const source = useRef<EventSource | null>(null);
  const last = useRef(0);
  const waiting = useRef<{ id: number; data: Fields }[]>([]);
  const flush = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  useEffect(
    () => () => {
      source.current?.close();
      clearTimeout(flush.current);
    },
    [],
  );

  const show = () => {
    const fresh = waiting.current;
    waiting.current = [];
    flush.current = undefined;
    // Traces are few: the first one is what was waited for.
    setRows((was) => (what === 'trace' ? [...was, ...fresh] : [...fresh.reverse(), ...was].slice(0, KEPT)));
  };
  const stop = (why: string) => {
    source.current?.close();
    source.current = null;
    setState('ended');
    setEnded(why);
  };
  const start = () => {
    source.current?.close();
    setRows([]);
    setDropped(0);
    setProblem(null);
    setOpen(null);
    setState('on');
    const query = what === 'tap' ? { filter, limit: 2000, rate: 50, seconds: 300 } : { filter, limit: 5, seconds: 120 };
    const stream = new EventSource(url(`/${what}`, query));
    source.current = stream;
    const take = (event: Event) => {
      const data = JSON.parse((event as MessageEvent<string>).data) as Fields;
      last.current += 1;
      const row = { id: last.current, data };
      waiting.current.push(row);
      flush.current ??= setTimeout(show, TURN);
      if (what === 'trace') setOpen((was) => was ?? row.id);
    };
    stream.addEventListener('exchange', take);
    stream.addEventListener('trace', take);
    stream.addEventListener('dropped', (event) => {
      const { count } = JSON.parse((event as MessageEvent<string>).data) as { count: number };
      setDropped((was) => was + count);
    });
    stream.addEventListener('end', (event) => {
      const { reason } = JSON.parse((event as MessageEvent<string>).data) as { reason: string };
      stop(reason === 'limit' ? 'Enough were seen.' : reason === 'time' ? 'Its time is over.' : reason);
    });
    stream.onerror = () => {
      const wasOpen = stream.readyState !== EventSource.CLOSED;
      // Never again by itself: a watch that went on would not be noticed.
      stop('The stream ended.');
      if (wasOpen) return;
      // A stream does not say why it was refused; the same question does.
      ask(`/${what}`, { query: { ...query, limit: 1, seconds: 1 } }).catch((error: unknown) => {
        if (error instanceof Problem) setProblem(error);
      });
    };
  };
  return (
    <Card flush>
      <form
        class="body row wrap"
        style={{ padding: '12px 16px', borderBottom: '1px solid var(--line)' }}
        onSubmit={(event) => {
          event.preventDefault();
          if (state === 'on') stop('Stopped.');
          else start();
        }}
      >
        <input
          class="grow mono"
          aria-label={`Filter: a CEL expression over the request${what === 'tap' ? ' and its response' : ''}`}
          placeholder={what === 'tap' ? 'Filter, for example response.status >= 500; empty takes all' : "Filter, for example request.path == '/cart'; empty takes all"}
          value={filter}
          spellcheck={false}
          onInput={(event) => tune({ filter: event.currentTarget.value })}
        />
        <button type="submit" class={`button ${state === 'on' ? '' : 'first'}`}>
          <Icon name={state === 'on' ? 'stop' : 'play'} />
          {state === 'on' ? 'Stop' : 'Start'}
        </button>
        <span class="chips" style={{ width: '100%' }}>
          {EXAMPLES[what].map(([name, text]) => (
            <button type="button" class="chip" style={{ cursor: 'pointer', font: 'inherit', fontSize: '11.5px' }} onClick={() => tune({ filter: text })} title={text} key={name}>
              {name}
            </button>
          ))}
        </span>
      </form>
      <div aria-live="polite">
        {problem && (problem.code === 'filter_invalid' || problem.status === 400 ? <Note level="critical">{problem.message}</Note> : <Failed problem={problem} />)}
        {(state !== 'idle' || dropped > 0) && !problem && (
          <p class="muted small row" style={{ padding: '8px 16px' }}>
            {state === 'on' ? <Pill level="ok">watching</Pill> : <Pill>{ended}</Pill>}
            {rows.length === 0 ? (state === 'on' ? 'Waiting for a request that fits.' : '') : `${rows.length === KEPT ? `the last ${KEPT}` : rows.length} shown`}
            {dropped > 0 && <span class="warn">{dropped} more came too fast and were left out</span>}
          </p>
        )}
      </div>
      {rows.length === 0 && state === 'idle' && (
        <Empty title="Nothing is watched" icon="tap">
          {what === 'tap' ? 'Start, and requests stand here as they end.' : 'Start, then send a request that the filter fits.'}
        </Empty>
      )}
      {rows.length > 0 && (what === 'tap' ? <Exchanges rows={rows} open={open} onOpen={setOpen} /> : <Traces rows={rows} open={open} onOpen={setOpen} />)}
    </Card>
  );
}

interface Rows {
  rows: { id: number; data: Fields }[];
  open: number | null;
  onOpen: (id: number | null) => void;
}

/** The first of the names that a row has. */
function pick(data: Fields, ...names: string[]): Json {
  for (const name of names) if (data[name] !== undefined && data[name] !== null) return data[name] as Json;
  return null;
}


function duration(data: Fields): number | null {
  const value = pick(data, 'duration_ms');
  if (typeof value === 'number') return value;
  const total = value !== null && typeof value === 'object' && !Array.isArray(value) ? value['total'] : null;
  return typeof total === 'number' ? total : null;
}

function statusLevel(status: Json): string {
  const code = Number(status);
  return code >= 500 ? 'critical' : code >= 400 ? 'warning' : code >= 300 ? 'info' : 'ok';
}

function when(data: Fields): string {
  const value = pick(data, 'ts');
  if (typeof value === 'number') return clock(value);
  const parsed = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(parsed) ? '' : clock(parsed / 1000);
}

function Exchanges({ rows, open, onOpen }: Rows) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Requests">
      <table>
        <caption class="hidden-text">Requests as they ended, latest first</caption>
        <thead>
          <tr>
            <th scope="col">At</th>
            <th scope="col">Status</th>
            <th scope="col">Request</th>
            <th scope="col">Route</th>
            <th scope="col">Endpoint</th>
            <th scope="col" class="num">
              Took
            </th>
            <th scope="col">
              <span class="hidden-text">Details</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ id, data }) => {
            const status = pick(data, 'status');
            const failure = pick(data, 'failure_code');
            return (
              <>
                <tr class="goes" onClick={(event) => !(event.target as Element).closest('button') && onOpen(open === id ? null : id)} key={id}>
                  <td class="muted tn">{when(data)}</td>
                  <td>
                    <Pill level={statusLevel(status)}>{text(status)}</Pill>
                  </td>
                  <td>
                    <span class="mono wrap-any">
                      {text(pick(data, 'method'))} {text(pick(data, 'path'))}
                    </span>
                    {failure !== null && <span class="under bad">{text(failure)}</span>}
                    {typeof data['proxy'] === 'string' && <span class="under muted">{data['proxy']}</span>}
                  </td>
                  <td>{text(pick(data, 'route'))}</td>
                  <td class="mono muted">{text(pick(data, 'endpoint', 'backend'))}</td>
                  <td class="num">{ms(duration(data))}</td>
                  <td>
                    <button type="button" class="button plain icon" aria-expanded={open === id} aria-label="Details" onClick={() => onOpen(open === id ? null : id)}>
                      <Icon name={open === id ? 'up' : 'down'} />
                    </button>
                  </td>
                </tr>
                {open === id && (
                  <tr key={`${id}more`}>
                    <td colSpan={7}>
                      <AllFields of={data} />
                    </td>
                  </tr>
                )}
              </>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function AllFields({ of }: { of: Fields }) {
  return (
    <dl class="kv small" style={{ gridTemplateColumns: 'repeat(2, max-content minmax(0, 1fr))' }}>
      {Object.entries(of)
        .filter(([, value]) => value !== null && value !== '')
        .map(([name, value]) => (
          <>
            <dt key={name}>{name}</dt>
            <dd class="mono">{name.startsWith('bytes') && typeof value === 'number' ? bytes(value) : text(value)}</dd>
          </>
        ))}
    </dl>
  );
}

function Traces({ rows, open, onOpen }: Rows) {
  return (
    <ul class="list">
      {rows.map(({ id, data }) => {
        const exchange = (data['exchange'] ?? {}) as Fields;
        const steps = (data['steps'] ?? []) as unknown as Step[];
        const status = pick(exchange, 'status');
        return (
          <li key={id}>
            <button
              type="button"
              class="item"
              style={{ width: '100%', border: 0, background: 'none', font: 'inherit', color: 'inherit', textAlign: 'left', cursor: 'pointer' }}
              aria-expanded={open === id}
              onClick={() => onOpen(open === id ? null : id)}
            >
              <Pill level={statusLevel(status)}>{text(status)}</Pill>
              <span class="mono wrap-any">
                {text(pick(exchange, 'method'))} {text(pick(exchange, 'path'))}
                {typeof data['proxy'] === 'string' && (
                  <span class="under muted">
                    {text(data['part'] ?? null)} of {text(data['parts'] ?? null)} · {data['proxy']}
                  </span>
                )}
              </span>
              <span class="muted tn">{ms(duration(exchange))}</span>
            </button>
            {open === id && (
              <>
                <p class="muted small" style={{ padding: '0 16px 8px' }}>
                  request <code>{text((data['requestId'] as Json | undefined) ?? null)}</code>
                  {data['traceId'] != null && (
                    <>
                      , trace <code>{text(data['traceId'] as Json)}</code>
                    </>
                  )}
                </p>
                <Steps of={steps} />
              </>
            )}
          </li>
        );
      })}
    </ul>
  );
}

// Routes: what matches what, which policies are in force and who wrote them, and a request to explain or to send.

import { useState } from 'preact/hooks';
import { ask, list, Problem } from '../api';
import { ms, percent, rate } from '../format';
import { process } from '../live';
import type { PageProps } from '../app';
import { Card, Empty, Failed, Filter, Head, Loaded, Mark, Note, Pill, Policies } from '../parts/basic';
import { type Step, Steps } from '../parts/steps';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { href, type Place } from '../router';
import { may } from '../session';
import type { Page, Policy, Route } from '../types';
import { ErrorRatio } from './overview';
import { useTop } from './services';

const useRoutes = () => useResource<Page<Route>>('/routes', () => list('/routes'), { every: 20, on: ['documents', 'process'] });

export function Routes({ place }: PageProps) {
  const routes = useRoutes();
  const top = useTop('rule');
  const text = (place.query.get('q') ?? '').toLowerCase();
  const fits = (one: Route) =>
    [one.route, one.template ?? '', one.listener, ...one.hostnames, ...one.backends.map((backend) => backend.backend)].some((part) =>
      part.toLowerCase().includes(text),
    );
  return (
    <>
      <Head title="Routes" end={<Filter value={place.query.get('q') ?? ''} label="Filter by name, host, path or service" />}>
        Each rule with what it matches, the policies in force there, and where requests go.
      </Head>
      <Card flush>
        <Loaded of={routes}>
          {({ items }) => (
            <Table
              rows={items.filter(fits)}
              rowKey={(row) => row.id}
              caption="Routes"
              goesTo={(row) => href(['routes', row.id])}
              sort={{ id: 'rate', down: true }}
              empty={
                <Empty title={text ? 'No route fits' : 'No routes'}>
                  {text ? 'Names, hosts, paths and services are searched.' : 'Routes of the configuration stand here.'}
                </Empty>
              }
              columns={[
                {
                  id: 'match',
                  title: 'Match',
                  by: (row) => `${row.hostnames[0] ?? ''}${row.template ?? ''}`,
                  cell: (row) => (
                    <>
                      <a class="name mono" href={href(['routes', row.id])}>
                        {row.matches[0]?.method && `${row.matches[0].method} `}
                        {row.template ?? '/'}
                      </a>
                      <span class="under">
                        {row.hostnames.length === 0 ? 'any host' : row.hostnames.slice(0, 3).join(', ')}
                      </span>
                    </>
                  ),
                },
                {
                  id: 'route',
                  title: 'Route',
                  by: (row) => row.route,
                  cell: (row) => (
                    <>
                      {row.route}
                      <span class="under">{row.refuses ? <span class="bad">refuses: {row.refuses}</span> : `${row.kind} on ${row.address}`}</span>
                    </>
                  ),
                },
                { id: 'policies', title: 'Policies', by: (row) => row.policies.length, cell: (row) => <Policies of={row.policies} /> },
                { id: 'to', title: 'To', by: (row) => row.backends[0]?.backend, cell: (row) => <To of={row} /> },
                { id: 'rate', title: 'Rate', isNumber: true, by: (row) => topOf(top, row)?.requestsPerSecond, cell: (row) => rate(topOf(top, row)?.requestsPerSecond) },
                { id: 'errors', title: 'Errors', isNumber: true, by: (row) => topOf(top, row)?.errorRatio, cell: (row) => <ErrorRatio value={topOf(top, row)?.errorRatio} /> },
                { id: 'p99', title: 'p99', isNumber: true, by: (row) => topOf(top, row)?.p99Ms, cell: (row) => ms(topOf(top, row)?.p99Ms) },
              ]}
            />
          )}
        </Loaded>
      </Card>
    </>
  );
}

/** Signals are counted by route and template. */
function topOf<T>(top: Map<string, T>, route: Route): T | undefined {
  return top.get(`${route.route} ${route.template ?? ''}`);
}

function To({ of }: { of: Route }) {
  const all = of.backends.reduce((sum, one) => sum + one.weight, 0);
  if (of.backends.length === 0) return <span class="muted">answers by itself</span>;
  return (
    <ul>
      {of.backends.map((one) => (
        <li class="row" key={one.backend}>
          <a class="link" href={href(['services', one.backend])}>
            {one.backend}
          </a>
          {of.backends.length > 1 && <span class="muted small tn even">{percent(all > 0 ? one.weight / all : 0)}</span>}
        </li>
      ))}
    </ul>
  );
}

export function RoutePage({ id }: { place: Place; id: string }) {
  const routes = useRoutes();
  const top = useTop('rule');
  return (
    <Loaded of={routes}>
      {({ items }) => {
        const route = items.find((one) => one.id === id);
        if (route === undefined) {
          return (
            <>
              <Head title="Route" crumb={{ text: 'Routes', href: href(['routes']) }} />
              <Empty title="There is no such route" action={<a class="button" href={href(['routes'])}>All routes</a>}>
                It may have left the configuration.
              </Empty>
            </>
          );
        }
        const now = topOf(top, route);
        return (
          <>
            <Head title={route.route} crumb={{ text: 'Routes', href: href(['routes']) }} end={<Origin of={route} />}>
              <code>{route.template ?? '/'}</code> on {route.listener} ({route.address}), rule {route.rule}
            </Head>
            {route.refuses && <Note level="critical">It refuses its requests: {route.refuses}</Note>}
            <div class="cards">
              <Card title="What it matches">
                <dl class="kv">
                  <dt>Hosts</dt>
                  <dd>{route.hostnames.length === 0 ? 'any' : route.hostnames.join(', ')}</dd>
                  {route.matches.map((match, at) => (
                    <Match match={match} key={at} />
                  ))}
                  <dt>Requests</dt>
                  <dd class="tn">
                    {rate(now?.requestsPerSecond)}, errors <ErrorRatio value={now?.errorRatio} />, p99 {ms(now?.p99Ms)}
                  </dd>
                  <dt>Timeouts</dt>
                  <dd>
                    <Timeouts of={route.timeouts} />
                  </dd>
                </dl>
              </Card>
              <Card title="Policies in force, in their order">
                <Policies of={route.policies} long />
              </Card>
              <Card title="Where requests go" flush>
                {route.backends.length === 0 ? (
                  <Empty title="It answers by itself">A redirect, a fixed answer, or a refusal.</Empty>
                ) : (
                  <ul class="list">
                    {route.backends.map((one) => (
                      <li key={one.backend}>
                        <a class="item" href={href(['services', one.backend])}>
                          <Mark level="ok" />
                          <span>
                            <strong style={{ fontWeight: 560 }}>{one.backend}</strong>
                            {one.policies && one.policies.length > 0 && (
                              <span style={{ display: 'block', marginTop: '4px' }}>
                                <Policies of={one.policies} />
                              </span>
                            )}
                            <Retry of={one.retry} />
                          </span>
                          <span class="muted tn">weight {one.weight}</span>
                        </a>
                      </li>
                    ))}
                  </ul>
                )}
              </Card>
            </div>
            <Try route={route} />
          </>
        );
      }}
    </Loaded>
  );
}

function Origin({ of }: { of: Route }) {
  const [namespace, name] = of.route.includes('/') ? of.route.split('/', 2) : ['-', of.route];
  const isDocument = of.kind.endsWith('Route');
  return (
    <>
      {of.origin && <code class="muted">{of.origin}</code>}
      {isDocument && namespace !== undefined && name !== undefined && (
        <a class="button" href={href(['configuration', 'documents', of.kind, namespace, name])}>
          Document
        </a>
      )}
    </>
  );
}

function Match({ match }: { match: Route['matches'][number] }) {
  const more = [...(match.headers ?? []).map((one) => `header ${one}`), ...(match.query ?? []).map((one) => `query ${one}`)];
  return (
    <>
      <dt>Path</dt>
      <dd>
        <code>
          {match.method ? `${match.method} ` : ''}
          {match.path ?? 'any'}
        </code>
        {more.map((one) => (
          <code style={{ display: 'block' }} key={one}>
            {one}
          </code>
        ))}
      </dd>
    </>
  );
}

function Timeouts({ of }: { of: Route['timeouts'] }) {
  const shown = Object.entries(of ?? {}).flatMap(([name, value]) => {
    if (value === null) return [];
    if (typeof value === 'object') {
      const { value: text, default: isDefault } = value as { value?: string; default?: boolean };
      return text === undefined || text === null ? [] : [{ name, text, isDefault: isDefault === true }];
    }
    return [{ name, text: String(value), isDefault: false }];
  });
  if (shown.length === 0) return <span class="muted">those of the process</span>;
  return (
    <>
      {shown.map(({ name, text, isDefault }, at) => (
        <span key={name}>
          {at > 0 && ', '}
          {name} {text}
          {isDefault && <span class="muted"> (default)</span>}
        </span>
      ))}
    </>
  );
}

function Retry({ of }: { of: unknown }) {
  if (of === null || typeof of !== 'object') return null;
  const { attempts } = of as { attempts?: number };
  if (attempts === undefined) return null;
  return <span class="muted small" style={{ display: 'block' }}>{attempts <= 1 ? 'no retries' : `up to ${attempts} attempts`}</span>;
}

interface Explained {
  candidates?: { route: string; rule: number; chosen?: boolean; lostBy?: string; differs?: { condition: string; wanted: string; got: string | null } }[];
  status?: number;
  why?: string;
  rule?: { route: string; rule: number; policies: (Policy & { origin?: string; hooks?: string[] })[] };
  refuses?: string;
  answers?: Message;
  forwards?: Message;
  resets?: boolean;
  choices?: { share: number; weight: number; endpoint: string | null; backend: { name: string } | null }[];
}

interface Message {
  first: string;
  fields: [string, string][];
}

interface Attempted {
  status: number;
  headers: [string, string][];
  body: string;
  truncated: boolean;
  tookMs: number;
  listener: string;
  trace: { steps?: Step[] } | null;
}

/** A request that is worked out without traffic, or sent. */
function Try({ route }: { route: Route }) {
  const [method, setMethod] = useState(route.matches[0]?.method ?? 'GET');
  const [url, setUrl] = useState(() => example(route));
  const [headers, setHeaders] = useState('');
  const [content, setContent] = useState('');
  const [isBusy, setBusy] = useState(false);
  const [attempted, setAttempted] = useState<Attempted | null>(null);
  const [explained, setExplained] = useState<Explained | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  // A control plane takes no traffic: its gateways do.
  const canSend = may('editor') && process.use()?.kind !== 'control';

  const run = async (what: 'explain' | 'try') => {
    setBusy(true);
    setProblem(null);
    setAttempted(null);
    const asked = {
      method,
      url,
      headers: headers.split('\n').map((line) => line.trim()).filter((line) => line !== ''),
    };
    try {
      setExplained(await ask<Explained>('/explain', { method: 'POST', body: asked }));
      if (what === 'try') {
        setAttempted(await ask<Attempted>('/try', { method: 'POST', body: { ...asked, body: content } }));
      }
    } catch (error) {
      if (what === 'explain') setExplained(null);
      if (error instanceof Problem) setProblem(error);
      else throw error;
    } finally {
      setBusy(false);
    }
  };
  return (
    <Card title="Try a request" id="try">
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void run('explain');
        }}
      >
        <div class="row wrap">
          <select aria-label="Method" value={method} onChange={(event) => setMethod(event.currentTarget.value)}>
            {[...new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', method])].map((one) => (
              <option value={one} key={one}>
                {one}
              </option>
            ))}
          </select>
          <input
            class="grow mono"
            aria-label="URL"
            value={url}
            onInput={(event) => setUrl(event.currentTarget.value)}
            spellcheck={false}
            required
          />
          <button type="submit" class="button first" disabled={isBusy}>
            {isBusy ? 'Working on it…' : 'Explain'}
          </button>
          {canSend && (
            <button type="button" class="button" disabled={isBusy} onClick={() => void run('try')}>
              Send it
            </button>
          )}
        </div>
        <div class="cards">
          <label class="field">
            Fields, one per line
            <textarea rows={2} value={headers} placeholder="Accept: application/json" onInput={(event) => setHeaders(event.currentTarget.value)} spellcheck={false} />
          </label>
          {canSend && (
            <label class="field">
              Content, when it is sent
              <textarea rows={2} value={content} onInput={(event) => setContent(event.currentTarget.value)} spellcheck={false} />
            </label>
          )}
        </div>
      </form>
      <div aria-live="polite" class="stack" style={{ marginTop: problem || explained || attempted ? '16px' : 0 }}>
        {problem && (problem.isElsewhere || problem.status === 0 ? <Failed problem={problem} /> : <Note level="warning">{problem.message}</Note>)}
        {attempted && <Outcome of={attempted} />}
        {explained && <Explanation of={explained} />}
      </div>
    </Card>
  );
}

/** What came of a request that was sent. */
function Outcome({ of }: { of: Attempted }) {
  const level = of.status >= 500 ? 'critical' : of.status >= 400 ? 'warning' : 'ok';
  return (
    <section class="stack tight" aria-label="Answer">
      <h3>
        <Pill level={level}>{of.status}</Pill> in {ms(of.tookMs)} <span class="muted small">through {of.listener}</span>
      </h3>
      <Text title="Fields of the answer" of={{ first: `HTTP/1.1 ${of.status}`, fields: of.headers }} />
      {of.body !== '' && (
        <pre class="text foreign" tabIndex={0} aria-label="Content of the answer">
          {of.body}
        </pre>
      )}
      {of.truncated && <p class="muted small">There is more than is shown.</p>}
      {of.trace?.steps ? (
        <>
          <h3>Step by step</h3>
          <Steps of={of.trace.steps} />
        </>
      ) : (
        <p class="muted small">Its steps were not recorded: as many look at requests as may at a time.</p>
      )}
    </section>
  );
}

function example(route: Route): string {
  const [host, port] = route.address.split(/:(?=\d+$)/);
  const isTls = process.now()?.listeners.find((one) => one.name === route.listener)?.protocol === 'https';
  const authority = route.hostnames[0]?.replace(/^\*\./, 'www.') ?? (host === '0.0.0.0' || host === '[::]' ? '127.0.0.1' : host ?? '127.0.0.1');
  const path = (route.template ?? '/').replace(/\*+$/, '1').replace(/\{[^}]*\}/g, '1');
  return `${isTls ? 'https' : 'http'}://${authority}${port ? `:${port}` : ''}${path.startsWith('/') ? path : '/'}`;
}

function Explanation({ of }: { of: Explained }) {
  const chosen = of.candidates?.find((one) => one.chosen === true);
  const others = of.candidates?.filter((one) => one.chosen !== true) ?? [];
  return (
    <div class="cards">
      <div class="stack tight">
        <h3>Which rule gets it</h3>
        {chosen ? (
          <p>
            <Pill level="ok">chosen</Pill> {chosen.route}, rule {chosen.rule}
          </p>
        ) : (
          <p>
            <Pill level="warning">{of.status ?? 'none'}</Pill> {of.why ?? 'No rule gets it.'}
          </p>
        )}
        {others.slice(0, 8).map((one, at) => (
          <p class="small muted" key={at}>
            {one.route}, rule {one.rule}:{' '}
            {one.lostBy ? `less specific by ${one.lostBy}` : one.differs ? `${one.differs.condition} is ${one.differs.got ?? 'absent'}, not ${one.differs.wanted}` : ''}
          </p>
        ))}
        {of.rule && of.rule.policies.length > 0 && (
          <>
            <h3>Policies on the way</h3>
            <Policies of={of.rule.policies.map((one) => ({ kind: one.kind, from: one.origin ?? one.from, shadow: one.shadow ?? false }))} long />
          </>
        )}
      </div>
      <div class="stack tight">
        <h3>What comes of it</h3>
        {of.refuses && <p class="bad">Refused: {of.refuses}</p>}
        {of.resets && <p>The connection is reset.</p>}
        {of.answers && <Text title="Answered here" of={of.answers} />}
        {of.forwards && <Text title="Forwarded as" of={of.forwards} />}
        {of.choices?.map((one, at) => (
          <p key={at}>
            <Pill level="info">{one.share} %</Pill> {one.backend?.name ?? 'nowhere'}
            {one.endpoint && <span class="muted mono"> {one.endpoint}</span>}
          </p>
        ))}
      </div>
    </div>
  );
}

function Text({ title, of }: { title: string; of: Message }) {
  return (
    <pre class="text" tabIndex={0} aria-label={title}>
      {of.first}
      {of.fields.map(([name, value]) => `\n${name}: ${value}`).join('')}
    </pre>
  );
}

// What is wrong, what changed, how it goes.

import { ask } from '../api';
import { count, ms, percent, plural, rate, sentence, span } from '../format';
import { SHOWN_SECONDS, signals } from '../live';
import type { PageProps } from '../app';
import { Ago, Card, Empty, Head, Loaded, Mark, Rich } from '../parts/basic';
import { Traffic } from '../parts/traffic';
import { Icon } from '../parts/icons';
import { Spark } from '../parts/spark';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { about, href } from '../router';
import type { Backend, Event, Finding, Overview as Data, Page, Signals, Top } from '../types';

/** Things that are wrong and are shown at once. */
const SHOWN = 8;

export function Overview(_: PageProps) {
  const overview = useResource<Data>('/overview', () => ask('/overview'), { every: 5, on: ['health', 'documents', 'events'] });
  const events = useResource<{ events: Event[] }>(
    overview.data !== null && overview.data.changes === undefined ? '/events' : null,
    () => ask('/events', { query: { limit: 20 } }),
    { every: 5 },
  );
  return (
    <>
      <Head title="Overview" />
      <Loaded of={overview}>
        {(data) => (
          <>
            <Banner data={data} />
            <Tiles data={data} />
            <div class="cards two">
              <Wrong checks={data.checks} />
              <Changes changes={data.changes ?? events.data?.events ?? []} />
            </div>
          </>
        )}
      </Loaded>
      <Traffic of={{}} percentiles={['p99', 'p95', 'p50']} />
      <Busiest />
    </>
  );
}

function Banner({ data }: { data: Data }) {
  const { checks, process: own } = data;
  const critical = checks.filter((check) => check.level === 'critical').length;
  const title =
    checks.length === 0
      ? 'All is well'
      : critical > 0
        ? `${plural(critical, 'thing')} ${critical === 1 ? 'needs' : 'need'} you now`
        : `${plural(checks.length, 'thing')} to look at`;
  return (
    <section class={`banner ${data.level}`} aria-label="Health" aria-live="polite">
      <div class="sign">
        <Icon name={data.level === 'ok' ? 'check' : 'alert'} />
      </div>
      <div class="grow">
        <strong>{title}</strong>
        <span class="muted">
          {own.state === 'ready' ? (own.kind === 'control' ? 'Serves proxies' : 'Takes traffic') : own.state === 'draining' ? 'Drains: takes no new traffic' : 'Is starting'}
          {own.listeners.length > 0 && ` on ${own.listeners.map((one) => one.address).join(', ')}`}; revision {own.revision}
          {own.liveSince !== null && (
            <>
              {' '}
              came into force <Ago at={own.liveSince} />
            </>
          )}
          .
        </span>
      </div>
      <dl class="row far" style={{ gap: '24px' }}>
        <Fact name="Up" value={span(own.uptimeSeconds)} />
        {own.kind === 'control' ? (
          <Fact name="Proxies" value={count(data.counts.proxies)} />
        ) : (
          <>
            <Fact name="Connections" value={count(own.connections)} />
            <Fact name="Workers" value={count(own.workers)} />
          </>
        )}
      </dl>
    </section>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt class="muted small">{name}</dt>
      <dd class="tn" style={{ fontWeight: 600 }}>
        {value}
      </dd>
    </div>
  );
}

function Tiles({ data }: { data: Data }) {
  const readings = signals.use();
  const now = readings.at(-1) ?? data.signals ?? null;
  const moments = (pick: (one: Signals) => number | null) => readings.map((one) => ({ at: one.at ?? 0, value: pick(one) }));
  const { endpoints } = data.counts;
  return (
    <div class="tiles">
      <section class="card tile" aria-label="Requests">
        <span class="name">Requests</span>
        <span class="value">{rate(now?.requestsPerSecond)}</span>
        <Spark moments={moments((one) => one.requestsPerSecond)} seconds={SHOWN_SECONDS} floor={1} />
      </section>
      <section class="card tile" aria-label="Errors">
        <span class="name">Errors</span>
        <span class={`value ${(now?.errorRatio ?? 0) >= 0.05 ? 'bad' : (now?.errorRatio ?? 0) >= 0.01 ? 'warn' : ''}`}>
          {percent(now?.errorRatio)}
          <span class="also">
            {now && now.requestsPerSecond !== null && now.errorRatio !== null && now.errorRatio > 0
              ? rate(now.requestsPerSecond * now.errorRatio)
              : ''}
          </span>
        </span>
        <Spark moments={moments((one) => one.errorRatio)} seconds={SHOWN_SECONDS} color="var(--bad-mark)" floor={0.02} />
      </section>
      <section class="card tile" aria-label="Latency">
        <span class="name">Latency, p99</span>
        <span class="value">
          {ms(now?.p99Ms)}
          <span class="also">p50 {ms(now?.p50Ms)}</span>
        </span>
        <Spark moments={moments((one) => one.p99Ms)} seconds={SHOWN_SECONDS} color="var(--chart-2)" floor={5} />
      </section>
      <a class="card tile" href={href(['services'])}>
        <span class="name">Endpoints in use</span>
        <span class={`value ${endpoints.eligible < endpoints.total ? 'warn' : ''}`}>
          {count(endpoints.eligible)}
          <span class="also">of {count(endpoints.total)}</span>
        </span>
        <span class="muted small" style={{ alignSelf: 'end', paddingBottom: '12px' }}>
          {plural(data.counts.backends, 'service')}, {plural(data.counts.routes, 'route')}
          {data.counts.proxies !== null && `, ${plural(data.counts.proxies, 'proxy', 'proxies')}`}
        </span>
      </a>
    </div>
  );
}

function Wrong({ checks }: { checks: Finding[] }) {
  const order = { critical: 0, warning: 1, ok: 2 };
  const sorted = [...checks].sort((a, b) => order[a.level] - order[b.level]);
  return (
    <Card title="What is wrong now" end={checks.length > 0 ? plural(checks.length, 'finding') : undefined} flush>
      {sorted.length === 0 ? (
        <Empty title="Nothing is wrong" icon="check">
          Backends, certificates, listeners and the configuration are looked at all the time; what needs you stands here.
        </Empty>
      ) : (
        <ul class="list">
          {sorted.slice(0, SHOWN).map((check, at) => (
            <li key={`${check.code}${check.about?.name ?? at}`}>
              <FindingItem check={check} />
            </li>
          ))}
          {sorted.length > SHOWN && <li class="body muted">and {sorted.length - SHOWN} more</li>}
        </ul>
      )}
    </Card>
  );
}

function FindingItem({ check }: { check: Finding }) {
  const to = check.about ? about(check.about.kind, check.about.name) : href([]);
  return (
    <a class="item" href={to}>
      <Mark level={check.level} />
      <span>
        <strong style={{ fontWeight: 600 }}>{sentence(check.title)}</strong>
        {check.about && <span class="mono muted"> {check.about.name}</span>}
        {check.detail && <span class="under wrap-any muted small" style={{ display: 'block' }}>{check.detail}</span>}
        {check.fix && <span class="small" style={{ display: 'block' }}><Rich text={sentence(check.fix)} /></span>}
      </span>
      <code class="muted">{check.code}</code>
    </a>
  );
}

/** The same again and again is told once, with how often. */
function gathered(changes: Event[]): { event: Event; times: number }[] {
  const found: { event: Event; times: number }[] = [];
  for (const event of changes) {
    const last = found.find((one) => one.event.kind === event.kind && one.event.about === event.about && one.event.proxy === event.proxy && event.about);
    if (last === undefined) found.push({ event, times: 1 });
    else last.times += 1;
  }
  return found;
}

function Changes({ changes }: { changes: Event[] }) {
  return (
    <Card title="What changed lately" flush>
      {changes.length === 0 ? (
        <Empty title="Nothing has changed">Configurations that came into force, endpoints that went and came, certificates that were renewed stand here.</Empty>
      ) : (
        <ul class="list">
          {gathered(changes).slice(0, SHOWN).map(({ event, times }, at) => (
            <li class="item" key={`${event.at}${at}`}>
              <Mark level={event.level} />
              <span>
                <span class="wrap-any">{sentence(event.text)}</span>
                {event.about && <span class="mono muted small"> {event.about}</span>}
                {event.proxy && <span class="mono muted small"> · {event.proxy}</span>}
                {times > 1 && <span class="muted small"> · {times} times</span>}
              </span>
              <span class="muted small tn">
                <Ago at={event.at} />
              </span>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Busiest() {
  const top = useResource<{ items: Top[] }>('/top?route', () => ask('/top', { query: { by: 'route', window: 60, limit: 8 } }), {
    every: 5,
  });
  const services = useResource<{ items: Top[] }>(
    '/top?backend',
    () => ask('/top', { query: { by: 'backend', window: 60, limit: 8 } }),
    { every: 5 },
  );
  const backends = useResource<Page<Backend>>('/backends?few', () => ask('/backends', { query: { limit: 100 } }), { every: 10 });
  if (top.data === null && services.data === null) return null;
  const health = new Map(backends.data?.items.map((one) => [one.backend, one]));
  return (
    <div class="cards">
      <Card title="Busiest routes" end={<a class="link" href={href(['routes'])}>All routes</a>} flush>
        <TopTable items={top.data?.items ?? []} what="route" to={(name) => href(['routes'], { q: name })} />
      </Card>
      <Card title="Busiest services" end={<a class="link" href={href(['services'])}>All services</a>} flush>
        <TopTable items={services.data?.items ?? []} what="service" to={(name) => href(['services', name])} health={health} />
      </Card>
    </div>
  );
}

function TopTable({
  items,
  what,
  to,
  health,
}: {
  items: Top[];
  what: string;
  to: (name: string) => string;
  health?: Map<string, Backend>;
}) {
  return (
    <Table
      rows={items}
      rowKey={(row) => row.name}
      caption={`Busiest ${what}s, last minute`}
      goesTo={(row) => to(row.name)}
      sort={{ id: 'rate', down: true }}
      empty={<Empty title="No requests in the last minute" />}
      columns={[
        {
          id: 'name',
          title: what === 'route' ? 'Route' : 'Service',
          by: (row) => row.name,
          cell: (row) => {
            const backend = health?.get(row.name);
            return (
              <span class="row">
                {backend && <Mark level={levelOf(backend)} />}
                <a class="name cut" href={to(row.name)}>
                  {row.name}
                </a>
              </span>
            );
          },
        },
        { id: 'rate', title: 'Rate', isNumber: true, by: (row) => row.requestsPerSecond, cell: (row) => rate(row.requestsPerSecond) },
        { id: 'errors', title: 'Errors', isNumber: true, by: (row) => row.errorRatio, cell: (row) => <ErrorRatio value={row.errorRatio} /> },
        { id: 'p50', title: 'p50', isNumber: true, by: (row) => row.p50Ms, cell: (row) => ms(row.p50Ms) },
        { id: 'p99', title: 'p99', isNumber: true, by: (row) => row.p99Ms, cell: (row) => ms(row.p99Ms) },
      ]}
    />
  );
}

export function ErrorRatio({ value }: { value: number | null | undefined }) {
  const kind = (value ?? 0) >= 0.05 ? 'bad' : (value ?? 0) > 0 ? 'warn' : 'muted';
  return <span class={kind}>{percent(value)}</span>;
}

/** How a service is, from how its endpoints are. */
export function levelOf(backend: Backend): 'ok' | 'warning' | 'critical' | 'idle' {
  if (backend.endpoints.length === 0) return 'critical';
  const used = backend.endpoints.filter((one) => one.share > 0 && one.state !== 'draining').length;
  if (used === 0) return 'critical';
  if (backend.panicking) return 'critical';
  const isWhole = backend.endpoints.every((one) => one.state === 'healthy' || one.state === 'slow start' || one.state === 'draining');
  return isWhole ? 'ok' : 'warning';
}

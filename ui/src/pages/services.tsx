// Services and their endpoints: load, ejections, breaker, ramp.

import { ask, list } from '../api';
import { count, ms, percent, rate, sentence, span, words } from '../format';
import type { PageProps } from '../app';
import { Card, Empty, Filter, Head, Loaded, Mark, Note, Pill } from '../parts/basic';
import { Traffic } from '../parts/traffic';
import { Icon } from '../parts/icons';
import { Table, type Column } from '../parts/table';
import { useResource } from '../resource';
import { process } from '../live';
import { href, type Place } from '../router';
import type { Backend, Endpoint, Page, Route, Top } from '../types';
import { FleetService } from './fleet';
import { ErrorRatio, levelOf } from './overview';

const useBackends = () => useResource<Page<Backend>>('/backends', () => list('/backends'), { every: 3 });

export function useTop(by: string): Map<string, Top> {
  const top = useResource<{ items: Top[] }>(
    `/top?by=${by}&all`,
    () => ask('/top', { query: { by, window: 30, limit: 1000 } }),
    { every: 5 },
  );
  return new Map(top.data?.items.map((one) => [one.name, one]));
}

export function Services({ place }: PageProps) {
  const backends = useBackends();
  const top = useTop('backend');
  // What load endpoints have, their callers know.
  const isFleet = process.use()?.kind === 'control';
  const text = place.query.get('q') ?? '';
  const fits = (one: Backend) => one.backend.includes(text) || one.endpoints.some((endpoint) => endpoint.address.includes(text));
  return (
    <>
      <Head title="Services" end={<Filter value={text} label="Filter by name or address" />}>
        What requests are forwarded to. Endpoints that fail are put out by themselves, tried with single requests, and come back
        step by step.
      </Head>
      <Card flush>
        <Loaded of={backends}>
          {({ items }) => (
            <Table
              rows={items.filter(fits)}
              rowKey={(row) => row.backend}
              caption="Services"
              sort={{ id: 'state', down: true }}
              goesTo={(row) => href(['services', row.backend])}
              empty={<Empty title={text ? 'No service fits' : 'No services'}>{text ? '' : 'Backends of the configuration stand here.'}</Empty>}
              columns={[
                {
                  id: 'state',
                  title: 'State',
                  by: (row) => ({ ok: 0, idle: 1, warning: 2, critical: 3 })[levelOf(row)],
                  cell: (row) => <State backend={row} />,
                  width: '104px',
                },
                {
                  id: 'name',
                  title: 'Service',
                  by: (row) => row.backend,
                  cell: (row) => (
                    <>
                      <a class="name" href={href(['services', row.backend])}>
                        {row.backend}
                      </a>
                      <span class="under">
                        {[row.protocol, row.tls ? 'TLS' : null, row.algorithm].filter(Boolean).join(' · ')}
                        {row.mesh && (
                          <span title={row.mesh.identities.join(', ')}>
                            {' '}
                            · <Icon name="lock" style={{ width: '11px', height: '11px', verticalAlign: '-1px' }} /> mutual TLS
                          </span>
                        )}
                      </span>
                    </>
                  ),
                },
                { id: 'endpoints', title: 'Endpoints', by: (row) => row.endpoints.length, cell: (row) => <Cells of={row.endpoints} /> },
                {
                  id: 'rate',
                  title: 'Rate',
                  isNumber: true,
                  by: (row) => top.get(row.backend)?.requestsPerSecond,
                  cell: (row) => rate(top.get(row.backend)?.requestsPerSecond),
                },
                {
                  id: 'errors',
                  title: 'Errors',
                  isNumber: true,
                  by: (row) => top.get(row.backend)?.errorRatio,
                  cell: (row) => <ErrorRatio value={top.get(row.backend)?.errorRatio} />,
                },
                { id: 'p99', title: 'p99', isNumber: true, by: (row) => top.get(row.backend)?.p99Ms, cell: (row) => ms(top.get(row.backend)?.p99Ms) },
                ...(isFleet ? [] : OWN),
              ]}
            />
          )}
        </Loaded>
      </Card>
    </>
  );
}

/** What only the process itself knows. */
const OWN: Column<Backend>[] = [
  { id: 'flight', title: 'In flight', isNumber: true, by: (row) => inFlight(row), cell: (row) => <Flight backend={row} /> },
  { id: 'ejections', title: 'Ejections', isNumber: true, by: (row) => ejections(row), cell: (row) => count(ejections(row)) },
];

const inFlight = (backend: Backend) => backend.endpoints.reduce((sum, one) => sum + one.inFlight, 0);
const ejections = (backend: Backend) =>
  Object.entries(backend.ejections ?? {}).reduce((sum, [kind, number]) => (kind === 'spared' ? sum : sum + number), 0);

function State({ backend }: { backend: Backend }) {
  const level = levelOf(backend);
  const text =
    backend.endpoints.length === 0
      ? 'no endpoints'
      : backend.panicking
        ? 'panicking'
        : { ok: 'healthy', idle: 'idle', warning: 'degraded', critical: 'down' }[level];
  return <Pill level={level}>{text}</Pill>;
}

export function endpointLevel(endpoint: Endpoint): 'ok' | 'warning' | 'critical' | '' {
  switch (endpoint.state) {
    case 'healthy':
      return 'ok';
    case 'ejected':
    case 'failing check':
      return 'critical';
    case 'draining':
    case 'not checked':
      return '';
    default:
      return 'warning';
  }
}

function Cells({ of }: { of: Endpoint[] }) {
  const good = of.filter((one) => one.share > 0).length;
  return (
    <span class="row">
      <span class="cells" aria-hidden="true">
        {of.slice(0, 24).map((one) => (
          <i class={endpointLevel(one)} title={`${one.address}: ${one.state}`} key={one.address} />
        ))}
      </span>
      <span class="muted small">
        {good} of {of.length}
      </span>
    </span>
  );
}

function Flight({ backend }: { backend: Backend }) {
  const limit = backend.requests?.limit;
  const now = inFlight(backend);
  if (limit === undefined) return <>{count(now)}</>;
  return (
    <span title={`${backend.requests?.refused ?? 0} refused`}>
      {count(now)} <span class="muted">of {count(limit)}</span>
    </span>
  );
}

export function ServicePage({ name }: { place: Place; name: string }) {
  return process.use()?.kind === 'control' ? <FleetService name={name} /> : <OwnService name={name} />;
}

function OwnService({ name }: { name: string }) {
  const backends = useBackends();
  const routes = useResource<Page<Route>>(`/routes?backend=${name}`, () => list('/routes', { backend: name }), { on: ['documents'] });
  const top = useTop('backend').get(name);
  return (
    <>
      <Head title={name} crumb={{ text: 'Services', href: href(['services']) }} />
      <Loaded of={backends}>
        {({ items }) => {
          const backend = items.find((one) => one.backend === name);
          if (backend === undefined) {
            return (
              <Empty title="There is no such service" action={<a class="button" href={href(['services'])}>All services</a>}>
                It may have left the configuration.
              </Empty>
            );
          }
          return (
            <>
              {backend.panicking && (
                <Note level="critical">
                  So few endpoints are left that all are used again, good or not: turning all away would be worse.
                </Note>
              )}
              <div class="tiles">
                <Number name="Endpoints in use" value={`${backend.endpoints.filter((one) => one.share > 0).length} of ${backend.endpoints.length}`} />
                <Number name="Requests" value={rate(top?.requestsPerSecond)} also={`errors ${percent(top?.errorRatio)}`} />
                <Number name="Latency, p99" value={ms(top?.p99Ms)} also={`p50 ${ms(top?.p50Ms)}`} />
                <Number
                  name="In flight"
                  value={count(inFlight(backend))}
                  also={backend.requests ? `limit ${count(backend.requests.limit)}, ${count(backend.requests.refused)} refused` : 'no limit'}
                />
              </div>
              <Card title="Endpoints" end={<Ejections backend={backend} />} flush>
                <Endpoints of={backend.endpoints} />
              </Card>
              <Traffic of={{ by: 'backend', name }} percentiles={['p99', 'p50']} />
              <div class="cards">
                <Card title="How it is reached">
                  <dl class="kv">
                    <dt>Protocol</dt>
                    <dd>{[backend.protocol ?? 'unknown', backend.tls ? 'over TLS' : null].filter(Boolean).join(' ')}</dd>
                    <dt>Balancing</dt>
                    <dd>{backend.algorithm}</dd>
                    {backend.mesh && (
                      <>
                        <dt>Mesh</dt>
                        <dd>
                          mutual TLS{backend.mesh.serverName ? `, to ${backend.mesh.serverName}` : ''}
                          {backend.mesh.identities.map((identity) => (
                            <code style={{ display: 'block' }} key={identity}>
                              {identity}
                            </code>
                          ))}
                        </dd>
                      </>
                    )}
                  </dl>
                </Card>
                <Card title="Routes that lead here" flush>
                  <Loaded of={routes} lines={2}>
                    {(page) =>
                      page.items.length === 0 ? (
                        <Empty title="No route leads here" />
                      ) : (
                        <ul class="list">
                          {page.items.map((route) => (
                            <li key={route.id}>
                              <a class="item" href={href(['routes', route.id])}>
                                <Icon name="routes" style={{ width: '14px', marginTop: '3px' }} />
                                <span>
                                  {route.route} <code class="muted">{route.template ?? '/'}</code>
                                </span>
                                <span class="muted small">{route.listener}</span>
                              </a>
                            </li>
                          ))}
                        </ul>
                      )
                    }
                  </Loaded>
                </Card>
              </div>
            </>
          );
        }}
      </Loaded>
    </>
  );
}

export function Number({ name, value, also }: { name: string; value: string; also?: string }) {
  return (
    <section class="card tile" style={{ minHeight: '84px', paddingBottom: '10px' }} aria-label={name}>
      <span class="name">{name}</span>
      <span class="value">{value}</span>
      <span class="muted small tn">{also ?? ''}</span>
    </section>
  );
}

function Ejections({ backend }: { backend: Backend }) {
  const all = Object.entries(backend.ejections ?? {});
  if (all.length === 0) return <>never ejected</>;
  return <>{all.map(([kind, number]) => `${number} × ${words(kind)}`).join(', ')}</>;
}

function Endpoints({ of }: { of: Endpoint[] }) {
  return (
    <Table
      rows={of}
      rowKey={(row) => row.address}
      caption="Endpoints"
      sort={{ id: 'state', down: true }}
      empty={<Empty title="No endpoints">Requests for this service are answered with 503. Look at its names, workloads or addresses.</Empty>}
      columns={[
        {
          id: 'state',
          title: 'State',
          by: (row) => ({ ok: 0, '': 1, warning: 2, critical: 3 })[endpointLevel(row)],
          cell: (row) => <Pill level={endpointLevel(row)}>{row.state}</Pill>,
          width: '110px',
        },
        {
          id: 'address',
          title: 'Endpoint',
          by: (row) => row.address,
          cell: (row) => (
            <>
              <span class="name mono">{row.address}</span>
              <span class="under">
                {row.hostname && `${row.hostname} · `}
                {row.zone && `${row.zone} · `}
                {row.why ? (
                  <span class={endpointLevel(row) === 'critical' ? 'bad' : 'warn'}>{sentence(row.why)}</span>
                ) : (
                  `for ${span(row.sinceSeconds)}`
                )}
                {row.next && ` · ${row.next}`}
              </span>
            </>
          ),
        },
        {
          id: 'share',
          title: 'Share',
          by: (row) => row.share,
          cell: (row) => (
            <span class="row" title={`${percent(row.share)} of its weight ${row.weight}`}>
              <span class="bar" aria-hidden="true">
                <i class={row.share >= 1 ? 'ok' : row.share > 0 ? 'warning' : 'critical'} style={{ width: `${Math.round(row.share * 100)}%` }} />
              </span>
              <span class="small muted num">{percent(row.share)}</span>
            </span>
          ),
        },
        { id: 'flight', title: 'In flight', isNumber: true, by: (row) => row.inFlight, cell: (row) => count(row.inFlight) },
        { id: 'latency', title: 'Latency', isNumber: true, by: (row) => row.latencyMs, cell: (row) => ms(row.succeeded > 0 ? row.latencyMs : null) },
        { id: 'ok', title: 'Succeeded', isNumber: true, by: (row) => row.succeeded, cell: (row) => count(row.succeeded) },
        {
          id: 'failed',
          title: 'Failed',
          isNumber: true,
          by: (row) => row.failed,
          cell: (row) => <span class={row.failed > 0 ? 'bad' : 'muted'}>{count(row.failed)}</span>,
        },
        { id: 'out', title: 'Ejections', isNumber: true, by: (row) => row.ejections, cell: (row) => count(row.ejections) },
        {
          id: 'check',
          title: 'Check',
          by: (row) => row.check?.state,
          cell: (row) =>
            row.check === null ? (
              <span class="muted">none</span>
            ) : (
              <span class="row" title={row.check.detail ?? ''}>
                <Mark level={row.check.state === 'passing' ? 'ok' : row.check.state === 'failing' ? 'critical' : 'idle'} />
                {row.check.state}
              </span>
            ),
        },
      ]}
    />
  );
}


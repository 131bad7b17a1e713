// Who calls whom: edges by health, a lock where both sides prove who they are, and how it was in past hours.

import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, list } from '../api';
import { hours, ms, percent, rate, span } from '../format';
import { process } from '../live';
import { series } from '../series';
import type { PageProps } from '../app';
import { Card, Empty, Head, Loaded, Pill } from '../parts/basic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { about, tune } from '../router';
import { edgeKey, layout, NODE } from './layout';
import type { Backend, Edge, Page, Process } from '../types';
import { ErrorRatio, levelOf } from './overview';

interface Edges {
  at: number;
  edges: Edge[];
}

/** How far back the slider reaches. Unit: minutes. */
const REACH = 24 * 60;

export function Topology({ place }: PageProps) {
  const back = Math.min(REACH, Math.max(0, Number(place.query.get('back') ?? 0) || 0));
  const own = process.use();
  const edges = useResource<Edges>(`/edges?${back}&${own?.kind ?? ''}`, () => fetched(own, back), { every: back === 0 ? 3 : 0 });
  const backends = useResource<Page<Backend>>('/backends', () => list('/backends'), { every: 5 });
  const [last, setLast] = useState<Edges | null>(null);
  useEffect(() => {
    if (edges.data !== null) setLast(edges.data);
  }, [edges.data]);
  const shown = edges.data ?? (edges.problem ? null : last);
  const [lit, setLit] = useState<string | null>(null);
  return (
    <>
      <Head title="Topology">
        Who calls whom. The line is as wide as there are requests, and says by shape and colour how they end; a lock is
        mutual TLS.
      </Head>
      <Card flush>
        <Loaded of={{ ...edges, data: shown }}>
          {(data) =>
            data.edges.length === 0 ? (
              <Empty title="No calls" icon="topology">
                {back === 0 ? 'Nobody has called anybody for a while. Send a request through a listener, and it is here.' : 'Nobody called anybody then, or it is not kept any more.'}
              </Empty>
            ) : (
              <Map edges={joined(data.edges)} backends={backends.data?.items ?? []} lit={lit} onLit={setLit} />
            )
          }
        </Loaded>
        <Replay back={back} at={shown?.at ?? null} />
      </Card>
      {shown !== null && shown.edges.length > 0 && (
        <Card title="Edges" end="the same as a table" flush>
          <Table
            rows={shown.edges}
            rowKey={(row) => `${row.source} → ${row.target}`}
            caption="Edges"
            sort={{ id: 'rate', down: true }}
            columns={[
              { id: 'source', title: 'From', by: (row) => row.source, cell: (row) => <span class="name">{row.source}</span> },
              { id: 'target', title: 'To', by: (row) => row.target, cell: (row) => <a class="link" href={about('backend', row.target)}>{row.target}</a> },
              { id: 'mtls', title: 'Identity', by: (row) => (row.mtls ? 1 : 0), cell: (row) => (row.mtls ? <Pill level="ok">mutual TLS</Pill> : row.source === CLIENTS ? <span class="muted">–</span> : <Pill>none</Pill>) },
              { id: 'rate', title: 'Rate', isNumber: true, by: (row) => row.requestsPerSecond, cell: (row) => rate(row.requestsPerSecond) },
              { id: 'errors', title: 'Errors', isNumber: true, by: (row) => row.errorRatio, cell: (row) => <ErrorRatio value={row.errorRatio} /> },
              { id: 'p50', title: 'p50', isNumber: true, by: (row) => row.p50Ms, cell: (row) => ms(row.p50Ms) },
              { id: 'p95', title: 'p95', isNumber: true, by: (row) => row.p95Ms, cell: (row) => ms(row.p95Ms) },
              { id: 'p99', title: 'p99', isNumber: true, by: (row) => row.p99Ms, cell: (row) => ms(row.p99Ms) },
            ]}
          />
        </Card>
      )}
    </>
  );
}

/** What stands for whoever calls a listener. */
const CLIENTS = 'clients';

/** The edges; those of a gateway begin with whoever calls its listeners. */
async function fetched(own: Process | null, back: number): Promise<Edges> {
  const at = Math.round(Date.now() / 1000 - back * 60);
  const told = await ask<Edges>('/edges', { query: { at: back === 0 ? null : at } });
  if (own?.kind !== 'gateway' || told.edges.length === 0) return told;
  const account = /\/ns\/([^/]+)\/sa\/([^/]+)/.exec(own.mesh?.identity ?? '');
  const name = account === null ? 'gateway' : `${account[1]}/${account[2]}`;
  if (!told.edges.some((edge) => edge.source === name)) return told;
  const all = await series({}, 60, at).catch(() => null);
  const mean = (values: (number | null)[]) => {
    const known = values.filter((value): value is number => value !== null);
    return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
  };
  const [requests, errors] = [mean(all?.requests ?? []), mean(all?.errors ?? [])];
  if (all === null || requests === null || errors === null) return told;
  const clients: Edge = {
    source: CLIENTS,
    target: name,
    mtls: false,
    requestsPerSecond: requests,
    errorRatio: requests === 0 ? 0 : errors / requests,
    p50Ms: mean(all.p50),
    p95Ms: mean(all.p95),
    p99Ms: mean(all.p99),
  };
  return { ...told, edges: [clients, ...told.edges] };
}

function Replay({ back, at }: { back: number; at: number | null }) {
  const text = back === 0 ? 'now' : `${span(back * 60)} ago`;
  return (
    <div class="replay">
      <span class="muted small">24 h ago</span>
      <input
        type="range"
        aria-label="Replay: how many minutes ago"
        aria-valuetext={text}
        min={-REACH}
        max={0}
        step={1}
        value={-back}
        onInput={(event) => {
          const minutes = -Number(event.currentTarget.value);
          tune({ back: minutes === 0 ? null : String(minutes) });
        }}
      />
      <span class="tn" style={{ width: '128px' }}>
        {text}
        {back > 0 && at !== null && <span class="muted"> · {hours(at)}</span>}
      </span>
      <button type="button" class="button" disabled={back === 0} onClick={() => tune({ back: null })}>
        Now
      </button>
    </div>
  );
}

const edgeLevel = (edge: Edge) =>
  edge.requestsPerSecond === 0 ? 'idle' : (edge.errorRatio ?? 0) >= 0.05 ? 'critical' : (edge.errorRatio ?? 0) >= 0.005 ? 'warning' : '';

/** What a node is called: the last part large, what it is in below it. */
function named(name: string): { title: string; sub: string } {
  if (name === CLIENTS) return { title: 'clients', sub: 'of the listeners' };
  if (name === 'unknown' || name === '(unknown)') return { title: 'clients', sub: 'without an identity' };
  const at = name.lastIndexOf('/');
  return at < 0 ? { title: name, sub: '' } : { title: name.slice(at + 1), sub: name.slice(0, at) };
}

/** An account that is named like a service is that service's, so that what it calls begins at the service. */
function joined(edges: Edge[]): Edge[] {
  const services = [...new Set(edges.map((edge) => edge.target))];
  const of = (name: string) => services.find((service) => service.replace(/:\d+$/, '') === name) ?? name;
  return edges.map((edge) => ({ ...edge, source: of(edge.source) }));
}

/** The width of an element, as it changes. */
function useWidth(): [(element: HTMLDivElement | null) => void, number] {
  const [width, set] = useState(0);
  const observer = useRef<ResizeObserver | null>(null);
  const ref = useCallback((element: HTMLDivElement | null) => {
    observer.current?.disconnect();
    if (element === null) return;
    set(element.clientWidth);
    observer.current = new ResizeObserver(() => set(element.clientWidth));
    observer.current.observe(element);
  }, []);
  return [ref, width];
}

/** Below this width the map is moved sideways instead of made smaller. */
const LEAST = 640;

const LOCK = { shut: 'M4 7.5h8V14H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5', open: 'M4 7.5h8V14H4zM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1' };

function Map({
  edges,
  backends,
  lit,
  onLit,
}: {
  edges: Edge[];
  backends: Backend[];
  lit: string | null;
  onLit: (name: string | null) => void;
}) {
  const [box, width] = useWidth();
  const shape = edges.map((edge) => edgeKey(edge.source, edge.target)).sort().join();
  const placed = useMemo(() => layout(edges.map((edge) => [edge.source, edge.target]), Math.max(LEAST, width)), [shape, width]);
  const known = new globalThis.Map(backends.map((one) => [one.backend, one]));
  const centre = edges.find((edge) => edge.source === CLIENTS)?.target ?? 'gateway';
  const most = Math.max(...edges.map((edge) => edge.requestsPerSecond), 0.001);
  const isNear = (edge: Edge) => lit === null || edge.source === lit || edge.target === lit;
  const near = new Set(edges.filter(isNear).flatMap((edge) => [edge.source, edge.target]));
  const out = (name: string) => edges.filter((edge) => edge.source === name).length;
  const into = (name: string) => edges.filter((edge) => edge.target === name).length;
  const words = edges.map((edge) => `${edge.source} calls ${edge.target}: ${rate(edge.requestsPerSecond)}, errors ${percent(edge.errorRatio)}`).join('. ');
  const lines = edges.map((edge) => {
    const points = placed.ways.get(edgeKey(edge.source, edge.target)) ?? [];
    // A label is where its edge is most alone: at the end that has fewer of them.
    return { edge, path: curve(points), spot: spotOn(points, out(edge.source) >= into(edge.target)) };
  });
  return (
    <div class="map" tabIndex={0} role="region" aria-label="Map of calls" ref={box}>
      {width > 0 && (
        <svg class="graph" viewBox={`0 0 ${placed.width} ${placed.height}`} width={placed.width} height={placed.height}>
          <title>{words}</title>
          {lines.map(({ edge, path }) => (
            <g class={`edge ${edgeLevel(edge)} ${isNear(edge) ? '' : 'dim'}`} key={edgeKey(edge.source, edge.target)}>
              <path
                d={path}
                stroke-width={(1.3 + 5 * Math.sqrt(edge.requestsPerSecond / most)).toFixed(1)}
                stroke-dasharray={edgeLevel(edge) === 'critical' ? '9 4' : undefined}
              >
                <title>{told(edge)}</title>
              </path>
            </g>
          ))}
          {lines.map(({ edge, spot: [x, y] }) => {
            const text = edge.requestsPerSecond === 0 ? 'idle' : `${rate(edge.requestsPerSecond)}${(edge.errorRatio ?? 0) > 0 ? ` · ${percent(edge.errorRatio)}` : ''}`;
            const size = text.length * 5.9 + (edge.source === CLIENTS ? 26 : 32);
            return (
              <g class={`edge ${edge.mtls ? '' : 'open'} ${isNear(edge) ? '' : 'dim'}`} key={edgeKey(edge.source, edge.target)}>
                <g class={`tag ${edgeLevel(edge)}`} transform={`translate(${(x - size / 2).toFixed(1)} ${(y - 11).toFixed(1)})`}>
                  <title>{told(edge)}</title>
                  <rect width={size} height="22" rx="11" />
                  {edge.source !== CLIENTS && <svg class="lock" x="8" y="4" width="13" height="13" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.6">
                    <path d={edge.mtls ? LOCK.shut : LOCK.open} />
                  </svg>}
                  <text x={edge.source === CLIENTS ? 14 : 25} y="15">
                    {text}
                  </text>
                </g>
              </g>
            );
          })}
          {[...placed.nodes.values()].map((node) => {
            const { title, sub } = named(node.name);
            const backend = known.get(node.name);
            const level = backend ? levelOf(backend) : '';
            const below = backend === undefined ? node.name === centre ? 'this process' : sub || (into(node.name) === 0 ? 'calls' : '') : endpoints(backend);
            return (
              <a
                {...(backend ? { href: about('backend', node.name) } : {})}
                class={`node ${node.name === centre ? 'own' : ''} ${level === 'ok' ? '' : level} ${near.has(node.name) ? '' : 'dim'}`}
                onPointerEnter={() => onLit(node.name)}
                onPointerLeave={() => onLit(null)}
                onFocus={() => onLit(node.name)}
                onBlur={() => onLit(null)}
                key={node.name}
              >
                <g transform={`translate(${node.x} ${node.y})`}>
                  <title>{node.name}</title>
                  <rect width={NODE.width} height={NODE.height} rx="9" />
                  <text x="14" y="21">
                    {title.length > 18 ? `${title.slice(0, 17)}…` : title}
                  </text>
                  <text class="sub" x="14" y="38">
                    {below.length > 22 ? `${below.slice(0, 21)}…` : below}
                  </text>
                </g>
              </a>
            );
          })}
        </svg>
      )}
    </div>
  );
}

const told = (edge: Edge) =>
  `${edge.source} → ${edge.target}: ${rate(edge.requestsPerSecond)}, errors ${percent(edge.errorRatio)}, p99 ${ms(edge.p99Ms)}, ${edge.mtls ? 'mutual TLS' : 'no mutual TLS'}`;

function endpoints(backend: Backend): string {
  const good = backend.endpoints.filter((one) => one.share > 0).length;
  return backend.endpoints.length === 0 ? 'no endpoints' : `${good} of ${backend.endpoints.length} endpoints`;
}

/** How far a line goes straight on before it bends. */
const bendOf = (from: number, to: number) => (to > from ? (to - from) / 2 : 80);

function curve(points: [number, number][]): string {
  return points
    .map(([x, y], at) => {
      const before = points[at - 1];
      if (before === undefined) return `M${x} ${y}`;
      const bend = bendOf(before[0], x);
      // Back to a layer before: below the nodes.
      const dip = x > before[0] ? 0 : 80;
      return `C${before[0] + bend} ${before[1] + dip} ${x - bend} ${y + dip} ${x} ${y}`;
    })
    .join('');
}

/** A point in the middle of the last or the first bend of a way. */
function spotOn(points: [number, number][], isLast: boolean): [number, number] {
  const at = isLast ? points.length - 1 : 1;
  const [from, to]: [[number, number], [number, number]] = [points[at - 1] ?? [0, 0], points[at] ?? [0, 0]];
  const dip = to[0] > from[0] ? 0 : 80;
  const t = points.length === 2 ? (isLast ? 0.6 : 0.4) : 0.5;
  const bend = bendOf(from[0], to[0]);
  const mix = (a: number, b: number, c: number, d: number) => (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t ** 2 * c + t ** 3 * d;
  return [mix(from[0], from[0] + bend, to[0] - bend, to[0]), mix(from[1], from[1] + dip, to[1] + dip, to[1])];
}

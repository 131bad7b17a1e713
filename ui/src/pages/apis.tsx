// What traffic shows of APIs, and what is declared and unused.

import { useState } from 'preact/hooks';
import { ask } from '../api';
import { ago, count, percent, plural } from '../format';
import type { PageProps } from '../app';
import { Ago, Card, Empty, Filter, Head, Loaded, Pill } from '../parts/basic';
import { Icon } from '../parts/icons';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { href } from '../router';

interface Operation {
  host: string;
  method: string;
  path: string;
  version: string | null;
  requests: number;
  firstSeenAt: number;
  lastSeenAt: number;
  statuses: Record<string, { requests: number; types: Record<string, number> }>;
  requestTypes: Record<string, number>;
  query: Record<string, number>;
  callers: Record<string, number>;
  routes: Record<string, number>;
  fields: Record<string, number>;
  example: string;
}

interface Declared {
  route: string;
  template: string;
  lastSeenAt?: number | null;
}

interface Answer {
  since: number;
  operations: Operation[];
  routes: Declared[];
  dropped: number;
}

/** A rule that nobody has used for so long is unused. Unit: s. */
const UNUSED = 30 * 86_400;

const key = (one: Operation) => `${one.method} ${one.host}${one.path}`;

export function Apis({ place }: PageProps) {
  const apis = useResource<Answer>('/apis', () => ask('/apis'), { every: 10 });
  const text = place.query.get('q') ?? '';
  const [open, setOpen] = useState<string | null>(null);
  return (
    <>
      <Head title="APIs" end={<Filter value={text} label="Filter by host, path or caller" />}>
        Operations as traffic shows them, on all hosts. <code>rhumb apis --openapi FILE</code> compares them with what documents
        promise.
      </Head>
      <Loaded of={apis}>
        {(data) => {
          const fits = (one: Operation) => `${key(one)} ${Object.keys(one.callers).join(' ')}`.includes(text);
          const shown = data.operations.filter(fits);
          const opened = data.operations.find((one) => key(one) === open);
          return (
            <>
              <Card
                title="Seen"
                end={
                  <>
                    {plural(data.operations.length, 'operation')} since {ago(data.since)}
                    {data.dropped > 0 && <span class="warn">, {count(data.dropped)} requests found no room</span>}
                  </>
                }
                flush
              >
                <Operations of={shown} open={open} onOpen={(name) => setOpen(name === open ? null : name)} isFiltered={text !== ''} />
              </Card>
              {opened && <Details of={opened} />}
              <Unused of={data.routes} />
            </>
          );
        }}
      </Loaded>
    </>
  );
}

function Operations({ of, open, onOpen, isFiltered }: { of: Operation[]; open: string | null; onOpen: (name: string) => void; isFiltered: boolean }) {
  return (
    <Table
      rows={of}
      rowKey={key}
      selected={open}
      caption="Operations that were seen"
      sort={{ id: 'requests', down: true }}
      empty={
        <Empty title={isFiltered ? 'No operation fits' : 'Nothing was seen yet'} icon="apis">
          {isFiltered ? '' : 'Operations stand here as soon as a backend has answered a request of theirs.'}
        </Empty>
      }
      columns={[
        { id: 'method', title: 'Method', by: (row) => row.method, cell: (row) => <Pill>{row.method}</Pill>, width: '84px' },
        {
          id: 'path',
          title: 'Operation',
          by: (row) => row.path,
          cell: (row) => (
            <>
              <span class="name mono wrap-any">{row.path}</span>
              <span class="under">
                {row.host}
                {row.version && ` · ${row.version}`}
              </span>
            </>
          ),
        },
        { id: 'requests', title: 'Requests', isNumber: true, by: (row) => row.requests, cell: (row) => count(row.requests) },
        { id: 'statuses', title: 'Statuses', cell: (row) => <Statuses of={row} /> },
        {
          id: 'callers',
          title: 'Callers',
          by: (row) => Object.keys(row.callers).length,
          cell: (row) => <Few of={Object.keys(row.callers)} none="nobody known" />,
        },
        { id: 'last', title: 'Last seen', isNumber: true, by: (row) => row.lastSeenAt, cell: (row) => <Ago at={row.lastSeenAt} /> },
        {
          id: 'more',
          title: '',
          isNumber: true,
          cell: (row) => (
            <button type="button" class="button plain icon" aria-expanded={open === key(row)} aria-label={`Details of ${key(row)}`} onClick={() => onOpen(key(row))}>
              <Icon name={open === key(row) ? 'up' : 'down'} />
            </button>
          ),
        },
      ]}
    />
  );
}

function Statuses({ of }: { of: Operation }) {
  return (
    <span class="chips">
      {Object.entries(of.statuses).map(([status, { requests }]) => (
        <Pill level={status >= '500' ? 'critical' : status >= '400' ? 'warning' : 'ok'} title={`${count(requests)} requests`} key={status}>
          {status}
          {Object.keys(of.statuses).length > 1 && ` ${percent(requests / Math.max(1, of.requests))}`}
        </Pill>
      ))}
    </span>
  );
}

function Few({ of, none }: { of: string[]; none: string }) {
  if (of.length === 0) return <span class="muted">{none}</span>;
  return (
    <>
      {of.slice(0, 2).join(', ')}
      {of.length > 2 && <span class="muted"> and {of.length - 2} more</span>}
    </>
  );
}

function Details({ of }: { of: Operation }) {
  const types = Object.entries(of.statuses).flatMap(([status, one]) => Object.keys(one.types).map((type) => `${status} ${type}`));
  const names = (counts: Record<string, number>) => (
    <span class="chips">
      {Object.entries(counts).map(([name, number]) => (
        <span class="chip" title={`in ${count(number)}`} key={name}>
          {name}
        </span>
      ))}
      {Object.keys(counts).length === 0 && <span class="muted">none</span>}
    </span>
  );
  return (
    <Card title={`${of.method} ${of.path}`} end={of.host}>
      <dl class="kv">
        <dt>For example</dt>
        <dd>
          <code>{of.example}</code>
        </dd>
        <dt>First seen</dt>
        <dd>
          <Ago at={of.firstSeenAt} />
        </dd>
        <dt>Query parameters</dt>
        <dd>{names(of.query)}</dd>
        <dt>Fields of contents</dt>
        <dd>{names(of.fields)}</dd>
        <dt>Media types sent</dt>
        <dd>{names(of.requestTypes)}</dd>
        <dt>Media types answered</dt>
        <dd>{types.length === 0 ? <span class="muted">none</span> : types.join(', ')}</dd>
        <dt>Routes</dt>
        <dd>
          {Object.keys(of.routes).map((route) => (
            <a class="link" href={href(['routes'], { q: route })} style={{ marginRight: '8px' }} key={route}>
              {route}
            </a>
          ))}
        </dd>
        <dt>Callers</dt>
        <dd>{names(of.callers)}</dd>
      </dl>
    </Card>
  );
}

function Unused({ of }: { of: Declared[] }) {
  const now = Date.now() / 1000;
  const unused = of.filter((one) => one.lastSeenAt == null || now - one.lastSeenAt > UNUSED);
  return (
    <Card title="Declared and not used" end={`${unused.length} of ${plural(of.length, 'rule')}`} flush>
      <Table
        rows={unused}
        rowKey={(row) => `${row.route} ${row.template}`}
        caption="Rules that nobody uses"
        sort={{ id: 'rule', down: false }}
        goesTo={(row) => href(['routes'], { q: row.route })}
        empty={
          <Empty title="Every rule is used" icon="check">
            Rules that nobody has used for 30 days stand here: perhaps they can go.
          </Empty>
        }
        columns={[
          {
            id: 'rule',
            title: 'Rule',
            by: (row) => row.template,
            cell: (row) => (
              <a class="name mono" href={href(['routes'], { q: row.route })}>
                {row.template || '/'}
              </a>
            ),
          },
          { id: 'route', title: 'Route', by: (row) => row.route, cell: (row) => row.route },
          {
            id: 'last',
            title: 'Last used',
            isNumber: true,
            by: (row) => row.lastSeenAt ?? 0,
            cell: (row) => (row.lastSeenAt == null ? <span class="muted">never seen</span> : <Ago at={row.lastSeenAt} />),
          },
        ]}
      />
    </Card>
  );
}

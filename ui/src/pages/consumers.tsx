// Consumers and what they use.

import { ask, list, url } from '../api';
import { bytes, count, ms, percent, rate } from '../format';
import type { PageProps } from '../app';
import { Card, Empty, Filter, Head, Loaded, Pill, Policies, Switch } from '../parts/basic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { tune, type Place } from '../router';
import type { Consumer, Page } from '../types';
import { ErrorRatio } from './overview';
import { useTop } from './services';

export function Consumers({ place }: PageProps) {
  const consumers = useResource<Page<Consumer>>('/consumers', () => list('/consumers'), { every: 20, on: ['documents'] });
  const top = useTop('consumer');
  const text = place.query.get('q') ?? '';
  return (
    <>
      <Head title="Consumers" end={<Filter value={text} label="Filter by name" />}>
        Who calls: registered consumers, the policies that hold for them alone, and what they use.
      </Head>
      <Card flush>
        <Loaded of={consumers}>
          {({ items }) => (
            <Table
              rows={items.filter((one) => one.name.includes(text))}
              rowKey={(row) => row.name}
              caption="Consumers"
              sort={{ id: 'rate', down: true }}
              empty={
                <Empty title={text ? 'No consumer fits' : 'No consumers'} icon="consumers">
                  {text ? '' : 'Consumers of the configuration stand here: callers with keys, passwords or tokens of their own.'}
                </Empty>
              }
              columns={[
                {
                  id: 'name',
                  title: 'Consumer',
                  by: (row) => row.name,
                  cell: (row) => (
                    <>
                      <span class="name">{row.name}</span>
                      {row.refuses && <span class="under bad">refused: {row.refuses}</span>}
                    </>
                  ),
                },
                { id: 'policies', title: 'Policies of its own', by: (row) => row.policies.length, cell: (row) => <Policies of={row.policies} /> },
                { id: 'state', title: 'State', by: (row) => row.refuses, cell: (row) => (row.refuses ? <Pill level="critical">refused</Pill> : top.get(row.name) ? <Pill level="ok">calls</Pill> : <Pill>rests</Pill>) },
                { id: 'rate', title: 'Rate', isNumber: true, by: (row) => top.get(row.name)?.requestsPerSecond, cell: (row) => rate(top.get(row.name)?.requestsPerSecond) },
                { id: 'errors', title: 'Errors', isNumber: true, by: (row) => top.get(row.name)?.errorRatio, cell: (row) => <ErrorRatio value={top.get(row.name)?.errorRatio} /> },
                { id: 'p99', title: 'p99', isNumber: true, by: (row) => top.get(row.name)?.p99Ms, cell: (row) => ms(top.get(row.name)?.p99Ms) },
              ]}
            />
          )}
        </Loaded>
      </Card>
      <Usage place={place} />
    </>
  );
}

interface Row {
  route?: string;
  operation?: string;
  consumer?: string;
  plan?: string;
  status?: string;
  requests: number;
  errors: number;
  bytesIn: number;
  bytesOut: number;
  meanMs: number;
}

const COLUMNS = [
  ['consumer', 'Consumer'],
  ['operation', 'Operation'],
  ['route', 'Route'],
  ['plan', 'Plan'],
  ['status', 'Status'],
] as const;

const TIMES = [
  ['1', '24 h'],
  ['7', '7 d'],
  ['30', '30 d'],
] as const;

type By = (typeof COLUMNS)[number][0];

/** What a row without a name stands for. */
const NAMELESS: Record<By, string> = { consumer: 'nobody registered', operation: '–', route: 'no route', plan: 'no plan', status: '–' };

function Usage({ place }: { place: Place }) {
  const by = (COLUMNS.find(([id]) => id === place.query.get('by'))?.[0] ?? 'consumer') as By;
  const days = TIMES.find(([id]) => id === place.query.get('days'))?.[0] ?? '1';
  const query = () => {
    const to = Math.floor(Date.now() / 1000);
    return { by, from: to - Number(days) * 86400, to };
  };
  const usage = useResource<{ rows: Row[] }>(`/usage?${by}&${days}`, () => ask('/usage', { query: query() }), { every: 30 });
  const title = COLUMNS.find(([id]) => id === by)?.[1] ?? by;
  return (
    <Card
      title="Usage"
      end={
        <>
          <Switch label="Told apart by" value={by} options={COLUMNS} onChange={(next) => tune({ by: next })} />
          <Switch label="Over" value={days} options={TIMES} onChange={(next) => tune({ days: next })} />
          {usage.data && (
            <a class="link" href={url('/usage', { ...query(), format: 'csv' })} download="usage.csv">
              CSV
            </a>
          )}
        </>
      }
      flush
    >
      <Loaded of={usage}>
        {({ rows }) => {
          const most = Math.max(1, ...rows.map((row) => row.requests));
          return (
            <Table
              rows={rows}
              rowKey={(row) => row[by] ?? ''}
              caption={`Usage by ${by}`}
              sort={{ id: 'requests', down: true }}
              empty={<Empty title="Nothing was used">Requests of this time stand here, told apart as you like.</Empty>}
              columns={[
                { id: 'name', title, by: (row) => row[by], cell: (row) => (row[by] ? <span class="name">{row[by]}</span> : <span class="muted">{NAMELESS[by]}</span>) },
                {
                  id: 'share',
                  title: 'Share',
                  cell: (row) => (
                    <span class="bar" aria-hidden="true">
                      <i style={{ width: `${Math.max(2, (row.requests / most) * 100)}%` }} />
                    </span>
                  ),
                },
                { id: 'requests', title: 'Requests', isNumber: true, by: (row) => row.requests, cell: (row) => count(row.requests) },
                { id: 'errors', title: 'Errors', isNumber: true, by: (row) => row.errors, cell: (row) => <span class={row.errors > 0 ? 'warn' : 'muted'}>{percent(row.requests === 0 ? 0 : row.errors / row.requests)}</span> },
                { id: 'in', title: 'Received', isNumber: true, by: (row) => row.bytesIn, cell: (row) => bytes(row.bytesIn) },
                { id: 'out', title: 'Sent', isNumber: true, by: (row) => row.bytesOut, cell: (row) => bytes(row.bytesOut) },
                { id: 'mean', title: 'Mean time', isNumber: true, by: (row) => row.meanMs, cell: (row) => ms(row.meanMs) },
              ]}
            />
          );
        }}
      </Loaded>
    </Card>
  );
}

// A service as a control plane knows it: who calls it, its endpoints, and what proxies say of it.

import { ask } from '../api';
import { ms, percent, rate, sentence } from '../format';
import { health } from '../live';
import { Card, Empty, Head, Loaded, Mark, Note, Pill, Rich } from '../parts/basic';
import { Traffic } from '../parts/traffic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { href } from '../router';
import type { Backend, Edge, Endpoint, Page, Top } from '../types';
import { ErrorRatio } from './overview';
import { endpointLevel, Number, useTop } from './services';

export function FleetService({ name }: { name: string }) {
  const edges = useResource<{ edges: Edge[] }>('/edges', () => ask('/edges'), { every: 5 });
  const backend = useResource<Page<Backend>>(`/backends?q=${name}`, () => ask('/backends', { query: { q: name } }), { every: 5 });
  const top = useTop('backend').get(name);
  const said = (health.use()?.checks ?? []).filter((check) => check.about?.kind === 'backend' && check.about.name === name);
  const endpoints = backend.data?.items.find((one) => one.backend === name)?.endpoints ?? [];
  return (
    <>
      <Head title={name} crumb={{ text: 'Services', href: href(['services']) }} />
      {said.map((check) => (
        <Note level={check.level === 'critical' ? 'critical' : 'warning'} key={check.code}>
          <p>
            <strong>{sentence(check.title)}</strong> <code>{check.code}</code>
          </p>
          {check.detail && <p class="wrap-any">{sentence(check.detail)}</p>}
          {check.fix && (
            <p>
              <Rich text={sentence(check.fix)} />
            </p>
          )}
          {(check.proxies?.length ?? 0) > 0 && <p class="muted small">Said by {check.proxies?.join(', ')}</p>}
        </Note>
      ))}
      <div class="tiles">
        <Number name="Endpoints in use" value={`${endpoints.filter((one) => one.share > 0).length} of ${endpoints.length}`} />
        <Number name="Requests" value={rate(top?.requestsPerSecond)} also={`errors ${percent(top?.errorRatio)}`} />
        <Number name="Latency, p99" value={ms(top?.p99Ms)} also={`p50 ${ms(top?.p50Ms)}`} />
      </div>
      <Card title="Who calls it" flush>
        <Loaded of={edges} lines={2}>
          {({ edges: all }) => <Callers edges={all.filter((edge) => edge.target === name)} />}
        </Loaded>
      </Card>
      <Card title="Endpoints" flush>
        <Endpoints of={endpoints} service={name} />
      </Card>
      <Traffic of={{ by: 'backend', name }} percentiles={['p99', 'p50']} />
    </>
  );
}

function Callers({ edges }: { edges: Edge[] }) {
  return (
    <Table
      rows={edges}
      rowKey={(row) => row.source}
      caption="Callers"
      sort={{ id: 'errors', down: true }}
      empty={<Empty title="Nobody has called it in the last minute" />}
      columns={[
        { id: 'source', title: 'Caller', by: (row) => row.source, cell: (row) => <span class="name">{row.source}</span> },
        { id: 'mtls', title: 'Identity', by: (row) => (row.mtls ? 1 : 0), cell: (row) => (row.mtls ? <Pill level="ok">mutual TLS</Pill> : <Pill>none</Pill>) },
        { id: 'rate', title: 'Rate', isNumber: true, by: (row) => row.requestsPerSecond, cell: (row) => rate(row.requestsPerSecond) },
        { id: 'errors', title: 'Errors', isNumber: true, by: (row) => row.errorRatio, cell: (row) => <ErrorRatio value={row.errorRatio} /> },
        { id: 'p50', title: 'p50', isNumber: true, by: (row) => row.p50Ms, cell: (row) => ms(row.p50Ms) },
        { id: 'p99', title: 'p99', isNumber: true, by: (row) => row.p99Ms, cell: (row) => ms(row.p99Ms) },
      ]}
    />
  );
}

function Endpoints({ of, service }: { of: Endpoint[]; service: string }) {
  const top = useTop('endpoint');
  const counted = (row: Endpoint): Top | undefined => top.get(`${service} ${row.address}`);
  return (
    <Table
      rows={of}
      rowKey={(row) => row.address}
      caption="Endpoints"
      sort={{ id: 'state', down: true }}
      empty={<Empty title="No endpoints">No workload of this service has registered, and no document names one.</Empty>}
      columns={[
        {
          id: 'state',
          title: 'State',
          by: (row) => ({ ok: 0, '': 1, warning: 2, critical: 3 })[endpointLevel(row)],
          cell: (row) => <Pill level={endpointLevel(row)}>{row.state}</Pill>,
          width: '120px',
        },
        {
          id: 'address',
          title: 'Endpoint',
          by: (row) => row.address,
          cell: (row) => (
            <>
              <span class="name mono">{row.address}</span>
              <span class="under">
                {row.hostname}
                {row.zone && ` · ${row.zone}`}
                {row.why && ` · ${row.why}`}
              </span>
            </>
          ),
        },
        { id: 'rate', title: 'Rate', isNumber: true, by: (row) => counted(row)?.requestsPerSecond, cell: (row) => rate(counted(row)?.requestsPerSecond) },
        { id: 'errors', title: 'Errors', isNumber: true, by: (row) => counted(row)?.errorRatio, cell: (row) => <ErrorRatio value={counted(row)?.errorRatio} /> },
        { id: 'p99', title: 'p99', isNumber: true, by: (row) => counted(row)?.p99Ms, cell: (row) => ms(counted(row)?.p99Ms) },
      ]}
    />
  );
}

/** How a proxy says that it is. */
export function Told({ level, code, more }: { level: 'ok' | 'warning' | 'critical'; code: string | undefined; more: number }) {
  return (
    <span class="row">
      <Mark level={level} />
      {code === undefined ? 'ok' : <code>{code}</code>}
      {more > 0 && <span class="muted small">and {more} more</span>}
    </span>
  );
}

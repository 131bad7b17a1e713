// Certificates: what for, until when.

import { list } from '../api';
import { day, span } from '../format';
import type { PageProps } from '../app';
import { Card, Empty, Filter, Head, Loaded, Pill } from '../parts/basic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import type { Certificate, Page } from '../types';

export function Certificates({ place }: PageProps) {
  const certificates = useResource<Page<Certificate>>('/certificates', () => list('/certificates'), { every: 30, on: ['documents'] });
  const text = place.query.get('q') ?? '';
  const fits = (one: Certificate) => [one.name, ...one.names].some((name) => name.includes(text));
  return (
    <>
      <Head title="Certificates" end={<Filter value={text} label="Filter by name" />}>
        Certificates of listeners and of the mesh. Files are taken over when they change; certificates of the mesh are renewed
        by themselves.
      </Head>
      <Card flush>
        <Loaded of={certificates}>
          {({ items }) => (
            <Table
              rows={items.filter(fits)}
              rowKey={(row) => `${row.use}${row.name}${row.names.join()}`}
              caption="Certificates"
              sort={{ id: 'left', down: false }}
              empty={
                <Empty title={text ? 'No certificate fits' : 'No certificates'} icon="certificates">
                  {text ? '' : 'Listeners with TLS and members of a mesh have some.'}
                </Empty>
              }
              columns={[
                { id: 'use', title: 'For', by: (row) => row.use, cell: (row) => <Pill>{{ listener: 'listener', svid: 'own identity', authority: 'authority' }[row.use] ?? row.use}</Pill> },
                {
                  id: 'name',
                  title: 'Names',
                  by: (row) => row.names[0] ?? row.name,
                  cell: (row) => (
                    <>
                      <span class="name wrap-any">{row.names.length > 0 ? row.names.join(', ') : row.name}</span>
                      <span class="under">
                        {row.name}
                        {row.origin && ` · ${row.origin}`}
                      </span>
                    </>
                  ),
                },
                {
                  id: 'left',
                  title: 'Left',
                  by: (row) => row.secondsLeft,
                  cell: (row) => (
                    <span class="row">
                      <span class="bar" aria-hidden="true">
                        <i class={row.level} style={{ width: `${part(row)}%` }} />
                      </span>
                      <span class={`tn ${row.level === 'critical' ? 'bad' : row.level === 'warning' ? 'warn' : ''}`}>
                        {row.secondsLeft <= 0 ? 'has ended' : span(row.secondsLeft)}
                      </span>
                    </span>
                  ),
                },
                { id: 'until', title: 'Until', by: (row) => row.notAfter, cell: (row) => <time dateTime={new Date(row.notAfter * 1000).toISOString()}>{day(row.notAfter)}</time> },
                { id: 'since', title: 'Since', by: (row) => row.notBefore, cell: (row) => (row.notBefore === null ? '–' : day(row.notBefore)) },
              ]}
            />
          )}
        </Loaded>
      </Card>
    </>
  );
}

function part(row: Certificate): number {
  const whole = row.notBefore === null ? Math.max(row.secondsLeft, 90 * 86400) : row.notAfter - row.notBefore;
  return Math.round(Math.max(3, Math.min(100, (row.secondsLeft / Math.max(whole, 1)) * 100)));
}

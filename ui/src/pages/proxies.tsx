// Proxies of a control plane: who runs what of what it wants, and what it refuses.

import { ask } from '../api';
import { count, sentence, span } from '../format';
import type { PageProps } from '../app';
import { Card, Empty, Filter, Head, Loaded, Note, Pill, Rich } from '../parts/basic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import type { Proxy } from '../types';
import { Told } from './fleet';

interface Answer {
  revision: number;
  proxies: Proxy[];
}

export function Proxies({ place }: PageProps) {
  const answer = useResource<Answer>('/proxies', () => ask('/proxies'), { every: 5, on: ['proxies', 'documents'] });
  const text = place.query.get('q') ?? '';
  return (
    <>
      <Head title="Proxies" end={<Filter value={text} label="Filter by identity" />}>
        Each proxy asks for what it needs and says when it runs it. One that refuses something keeps the last good version.
      </Head>
      <Loaded of={answer}>
        {({ proxies }) => {
          const refused = proxies.flatMap((proxy) => proxy.refused.map((one) => ({ ...one, proxy: proxy.proxy })));
          return (
            <>
              {refused.length > 0 && (
                <Note level="critical">
                  {refused.slice(0, 5).map((one) => (
                    <p key={`${one.proxy}${one.resource}`}>
                      <code>{one.proxy}</code> refuses <code>{one.resource}</code>: {one.why}
                    </p>
                  ))}
                </Note>
              )}
              {proxies.filter((one) => text !== '' && one.proxy.includes(text) && one.connected).map((one) => <Checks of={one} key={one.proxy} />)}
              <Card flush>
                <Table
                  rows={proxies.filter((one) => one.proxy.includes(text))}
                  rowKey={(row) => row.proxy}
                  caption="Proxies"
                  sort={{ id: 'proxy', down: false }}
                  empty={
                    <Empty title={text ? 'No proxy fits' : 'No proxy has come yet'} icon="proxies">
                      {text ? '' : 'Start one with rhumb run --control, or a sidecar; it stands here as soon as it has joined.'}
                    </Empty>
                  }
                  columns={[
                    { id: 'state', title: 'State', by: (row) => stateOf(row), cell: (row) => <State of={row} />, width: '120px' },
                    { id: 'proxy', title: 'Proxy', by: (row) => row.proxy, cell: (row) => <span class="name mono wrap-any">{row.proxy}</span> },
                    {
                      id: 'runs',
                      title: 'Runs',
                      by: (row) => (row.wants === 0 ? 1 : row.current / row.wants),
                      cell: (row) => (
                        <span class="row">
                          <span class="bar" aria-hidden="true">
                            <i class={row.current === row.wants ? 'ok' : 'warning'} style={{ width: `${row.wants === 0 ? 100 : Math.round((row.current / row.wants) * 100)}%` }} />
                          </span>
                          <span class="tn">
                            {count(row.current)} of {count(row.wants)}
                          </span>
                        </span>
                      ),
                    },
                    { id: 'refused', title: 'Refuses', isNumber: true, by: (row) => row.refused.length, cell: (row) => <span class={row.refused.length > 0 ? 'bad' : 'muted'}>{count(row.refused.length)}</span> },
                    {
                      id: 'health',
                      title: 'Health',
                      by: (row) => ({ ok: 0, warning: 1, critical: 2 })[row.level ?? 'ok'],
                      cell: (row) =>
                        row.level === undefined ? <span class="muted">–</span> : <Told level={row.level} code={row.checks?.[0]?.code} more={Math.max(0, (row.checks?.length ?? 0) - 1)} />,
                    },
                    {
                      id: 'certificate',
                      title: 'Certificate',
                      by: (row) => row.certificates?.[0]?.secondsLeft,
                      cell: (row) => {
                        const first = row.certificates?.[0];
                        return first === undefined ? <span class="muted">–</span> : <span class={first.level === 'critical' ? 'bad' : first.level === 'warning' ? 'warn' : ''}>{first.secondsLeft > 0 ? `ends in ${span(first.secondsLeft)}` : 'has ended'}</span>;
                      },
                    },
                    { id: 'version', title: 'Version', by: (row) => row.version, cell: (row) => row.version ?? <span class="muted">–</span> },
                    { id: 'for', title: 'For', isNumber: true, by: (row) => row.forSeconds, cell: (row) => span(row.forSeconds) },
                  ]}
                />
              </Card>
            </>
          );
        }}
      </Loaded>
    </>
  );
}

/** What is wrong with a proxy that was asked for. */
function Checks({ of }: { of: Proxy }) {
  return (
    <>
      {of.checks?.map((check) => (
        <Note level={check.level === 'critical' ? 'critical' : 'warning'} key={`${check.code}${check.about?.name}`}>
          <p>
            <strong>{sentence(check.title)}</strong> <code>{check.about?.name}</code> <code class="muted">{check.code}</code>
          </p>
          {check.detail && <p class="wrap-any">{sentence(check.detail)}</p>}
          {check.fix && (
            <p>
              <Rich text={sentence(check.fix)} />
            </p>
          )}
        </Note>
      ))}
    </>
  );
}

const stateOf = (proxy: Proxy) => (!proxy.connected ? 'away' : proxy.refused.length > 0 ? 'refuses' : proxy.current < proxy.wants ? 'behind' : 'current');

function State({ of }: { of: Proxy }) {
  const state = stateOf(of);
  return <Pill level={{ away: 'warning', refuses: 'critical', behind: 'warning', current: 'ok' }[state] ?? ''}>{state}</Pill>;
}

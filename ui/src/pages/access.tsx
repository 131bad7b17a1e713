// Who may use the admin API, and what was done through it.

import { useState } from 'preact/hooks';
import { ask, Problem } from '../api';
import type { PageProps } from '../app';
import { Ago, Card, Empty, Head, Loaded, Note, Pill } from '../parts/basic';
import { Table } from '../parts/table';
import { useResource } from '../resource';
import { may, who } from '../session';
import { say } from '../toast';

interface Token {
  name: string;
  role: string;
  createdAt: number;
  expiresAt: number | null;
  lastUsedAt: number | null;
}

interface Entry {
  number: number;
  at: number;
  who: string;
  role: string | null;
  via: string | null;
  from: string;
  method: string;
  path: string;
  status: number;
  result: string;
  code: string | null;
}

export function Access(_: PageProps) {
  const now = who.use();
  if (!may('admin')) {
    return (
      <>
        <Head title="Access" />
        <Card flush>
          <Empty title="Your role does not allow this" icon="lock">
            {now.is === 'known' && `You are ${now.session.name} with the role ${now.session.role}. `}
            Tokens and the audit log are for the role admin.
          </Empty>
        </Card>
      </>
    );
  }
  return (
    <>
      <Head title="Access">Tokens of people and programs with their roles, and what was done with them.</Head>
      <Tokens />
      <Audit />
    </>
  );
}

function Tokens() {
  const tokens = useResource<{ tokens: Token[] }>('/tokens', () => ask('/tokens'));
  const [made, setMade] = useState<{ name: string; token: string } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [name, setName] = useState('');
  const [role, setRole] = useState('viewer');
  const attempt = async (what: () => Promise<void>) => {
    setProblem(null);
    try {
      await what();
      await tokens.reload();
    } catch (error) {
      if (error instanceof Problem) setProblem(error);
      else throw error;
    }
  };
  return (
    <Card title="Tokens" flush>
      <Loaded of={tokens} lines={3}>
        {(data) => (
          <Table
            rows={data.tokens}
            rowKey={(row) => row.name}
            caption="Tokens"
            sort={{ id: 'name', down: false }}
            empty={<Empty title="No named tokens">Only the token of the process opens this API. A token of their own tells apart who did what.</Empty>}
            columns={[
              { id: 'name', title: 'Name', by: (row) => row.name, cell: (row) => <span class="name">{row.name}</span> },
              { id: 'role', title: 'Role', by: (row) => row.role, cell: (row) => <Pill>{row.role}</Pill> },
              { id: 'made', title: 'Made', by: (row) => row.createdAt, cell: (row) => <Ago at={row.createdAt} /> },
              { id: 'used', title: 'Last used', by: (row) => row.lastUsedAt, cell: (row) => (row.lastUsedAt === null ? <span class="muted">never</span> : <Ago at={row.lastUsedAt} />) },
              {
                id: 'act',
                title: '',
                isNumber: true,
                cell: (row) => (
                  <button
                    type="button"
                    class="button plain danger"
                    onClick={() =>
                      void attempt(async () => {
                        await ask(`/tokens/${encodeURIComponent(row.name)}`, { method: 'DELETE' });
                        say(`The token ${row.name} opens nothing any more`);
                      })
                    }
                  >
                    Revoke
                    <span class="hidden-text"> {row.name}</span>
                  </button>
                ),
              },
            ]}
          />
        )}
      </Loaded>
      <form
        class="row wrap"
        style={{ padding: '12px 16px', borderTop: '1px solid var(--line)' }}
        onSubmit={(event) => {
          event.preventDefault();
          void attempt(async () => {
            setMade(await ask('/tokens', { method: 'POST', body: { name, role, expiresInSeconds: null } }));
            setName('');
          });
        }}
      >
        <input aria-label="Name of a new token" placeholder="Name of a new token" value={name} required onInput={(event) => setName(event.currentTarget.value)} />
        <select aria-label="Role" value={role} onChange={(event) => setRole(event.currentTarget.value)}>
          <option value="viewer">viewer</option>
          <option value="editor">editor</option>
          <option value="admin">admin</option>
        </select>
        <button type="submit" class="button">
          Make a token
        </button>
      </form>
      <div aria-live="polite">
        {problem && <Note level="critical">{problem.message}</Note>}
        {made && (
          <Note>
            The token of {made.name}, shown this once: <code style={{ userSelect: 'all' }}>{made.token}</code>
          </Note>
        )}
      </div>
    </Card>
  );
}

function Audit() {
  const audit = useResource<{ entries: Entry[] }>('/audit', () => ask('/audit', { query: { limit: 200 } }), { every: 10 });
  return (
    <Card title="Audit log" flush>
      <Loaded of={audit}>
        {(data) => (
          <Table
            rows={data.entries}
            rowKey={(row) => String(row.number)}
            caption="Audit log, newest first"
            empty={<Empty title="Nothing was changed or refused yet" />}
            columns={[
              { id: 'at', title: 'At', by: (row) => row.at, cell: (row) => <Ago at={row.at} /> },
              {
                id: 'who',
                title: 'Who',
                by: (row) => row.who,
                cell: (row) => (
                  <>
                    <span class="name">{row.who}</span>
                    <span class="under">{[row.role, row.via, row.from].filter(Boolean).join(' · ')}</span>
                  </>
                ),
              },
              { id: 'what', title: 'What', by: (row) => row.path, cell: (row) => <code>{`${row.method} ${row.path}`}</code> },
              {
                id: 'result',
                title: 'Result',
                by: (row) => row.result,
                cell: (row) => (
                  <span class="row">
                    <Pill level={row.result === 'done' ? 'ok' : row.result === 'refused' ? 'warning' : 'critical'}>{row.result}</Pill>
                    <span class="muted small">
                      {row.status} {row.code ?? ''}
                    </span>
                  </span>
                ),
              },
            ]}
          />
        )}
      </Loaded>
    </Card>
  );
}
